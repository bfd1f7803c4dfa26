//! Data edges: do both ends exist, may data go there, is every input fed exactly once.

use std::collections::{BTreeMap, BTreeSet};

use super::globals::Read;
use super::{DataEdge, Endpoint, PlannedNode};
use crate::catalog::{Catalog, ModuleEntry, ModuleKind, port_matches};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::document::Spanned;
use crate::flow::spec::{self, Flow, Module, NodeId, PortRef};
use crate::suggest;

/// A flow's modules beside their entries, and its sound data edges.
pub(super) struct Wiring<'a> {
    entries: BTreeMap<String, &'a ModuleEntry>,
    ids: Vec<NodeId>,
    places: BTreeMap<String, usize>,
    pub(super) data_edges: Vec<DataEdge>,
    /// Are all data edges sound? Else sub flows cannot be told apart.
    pub(super) complete: bool,
}

pub(super) fn check<'a>(flow: &Flow, catalog: &'a Catalog, found: &mut Diagnostics) -> Wiring<'a> {
    let mut wiring = Wiring {
        entries: BTreeMap::new(),
        ids: flow.modules.iter().map(|module| module.id.value.clone()).collect(),
        places: BTreeMap::new(),
        data_edges: Vec::new(),
        complete: flow.edges_complete,
    };
    wiring.places = wiring.ids.iter().enumerate().map(|(place, id)| (id.to_string(), place)).collect();
    for module in &flow.modules {
        match catalog.get(module.name.value.as_str()) {
            Some(entry) => {
                wiring.entries.insert(module.id.value.to_string(), entry);
            }
            None => {
                found.push(catalog.unknown(&flow.source, &module.name));
            }
        }
    }
    let mut doubtful: BTreeSet<NodeId> = BTreeSet::new();
    for edge in &flow.data_edges {
        if let Some(sound) = wiring.edge(flow, edge, found) {
            wiring.data_edges.push(sound);
        } else {
            wiring.complete = false;
            doubtful.insert(wiring.meant(&edge.to.node.value));
        }
    }
    wiring.fed_twice(flow, found);
    if flow.edges_complete {
        let mut fed: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for edge in &wiring.data_edges {
            fed.entry(edge.to.node.as_str()).or_default().push(edge.to.port.as_str());
        }
        for module in flow.modules.iter().filter(|module| !doubtful.contains(&module.id.value)) {
            let fed = fed.get(module.id.value.as_str()).map_or(&[][..], Vec::as_slice);
            wiring.unconnected(flow, module, fed, found);
        }
    }
    wiring
}

/// The modules of a flow as nodes of its plan.
pub(super) fn nodes(modules: Vec<Module>, reads: &[Read], catalog: &Catalog) -> Vec<PlannedNode> {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for read in reads {
        wanted.entry(read.writer.to_string()).or_default().insert(read.name.clone());
    }
    modules
        .into_iter()
        .filter_map(|module| {
            let entry = catalog.get(module.name.value.as_str())?.clone();
            Some(PlannedNode {
                isolated: module.misc.isolates() || entry.isolated,
                entry,
                wanted_globals: wanted.remove(module.id.value.as_str()).unwrap_or_default(),
                id: module.id.value,
                module: module.name.value,
                configs: module.configs,
                spans: module.spans,
                labels: module.labels,
                join: module.misc.join.map(|join| join.value),
                checkpoint: module.misc.keeps_output(),
            })
        })
        .collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Output,
    Input,
}

impl<'a> Wiring<'a> {
    pub(super) fn entry(&self, id: &NodeId) -> Option<&'a ModuleEntry> {
        self.entries.get(id.as_str()).copied()
    }

    /// The module that an id means, were its author asked: a slip must not be reported a second time as an input that
    /// lacks its edge.
    fn meant(&self, id: &NodeId) -> NodeId {
        let near = suggest::nearest(id.as_str(), self.ids.iter().map(NodeId::as_str));
        self.ids.iter().find(|known| Some(known.as_str()) == near).unwrap_or(id).clone()
    }

    /// Where a module stands in the document.
    pub(super) fn place(&self, id: &NodeId) -> Option<usize> {
        self.places.get(id.as_str()).copied()
    }

    pub(super) fn ids(&self) -> &[NodeId] {
        &self.ids
    }

    /// Where a module stands in the document; an error with a suggestion if it does not.
    pub(super) fn find(&self, flow: &Flow, id: &Spanned<NodeId>, found: &mut Diagnostics) -> Option<usize> {
        let place = self.place(&id.value);
        if place.is_none() {
            let ids = self.ids.iter().map(NodeId::as_str);
            let help = suggest::help(id.value.as_str(), ids, "the modules of this flow are");
            let message = format!("there is no module `{}` in this flow", id.value);
            found.push(flow.source.error("unknown-id", id.span, message).help_if(help));
        }
        place
    }

    fn edge(&self, flow: &Flow, edge: &spec::DataEdge, found: &mut Diagnostics) -> Option<DataEdge> {
        let from = self.endpoint(flow, &edge.from, End::Output, found);
        let to = self.endpoint(flow, &edge.to, End::Input, found);
        Some(DataEdge { from: from?, to: to? })
    }

    fn endpoint(&self, flow: &Flow, port: &PortRef, end: End, found: &mut Diagnostics) -> Option<Endpoint> {
        self.find(flow, &port.node, found)?;
        let entry = self.entry(&port.node.value)?;
        if let Some(refused) = no_data(entry.kind, end) {
            let message = format!("`{}` is a {}: {refused}", port.node.value, entry.kind);
            found.error("data-kind", &flow.source.path, port.node.span, message);
            return None;
        }
        let (known, declared, what) = match end {
            End::Output => (entry.output_port(port.port.value.as_str()), &entry.output_ports, "output"),
            End::Input => (entry.input_port(port.port.value.as_str()), &entry.input_ports, "input"),
        };
        if known.is_none() {
            let help = format!("the {what} ports of");
            found.push(self.unknown_port(flow, port, declared, what).help_if(suggest::help(
                port.port.value.as_str(),
                declared.iter().map(String::as_str),
                &format!("{help} `{}` are", port.node.value),
            )));
            return None;
        }
        Some(Endpoint { node: port.node.value.clone(), port: port.port.value.clone() })
    }

    fn unknown_port(&self, flow: &Flow, port: &PortRef, declared: &[String], what: &str) -> Diagnostic {
        let message = match declared.is_empty() {
            true => format!("`{}` has no {what} ports", port.node.value),
            false => format!("`{}` has no {what} port `{}`", port.node.value, port.port.value),
        };
        flow.source.error("unknown-port", port.port.span, message)
    }

    fn fed_twice(&self, flow: &Flow, found: &mut Diagnostics) {
        let mut fed: BTreeMap<(&str, &str), Span> = BTreeMap::new();
        for edge in &flow.data_edges {
            let input = (edge.to.node.value.as_str(), edge.to.port.value.as_str());
            let Some(first) = fed.insert(input, edge.span()) else { continue };
            let wildcard = self.entry(&edge.to.node.value).and_then(|entry| entry.input_port(input.1));
            let help = match wildcard.and_then(|port| port.strip_suffix('*')) {
                Some(stem) => format!("give each edge a port of its own: `{stem}_1`, `{stem}_2`, …"),
                None => "put a module between that unites both".to_owned(),
            };
            let message =
                format!("input port `{}` of `{}` is fed twice, first on line {}", input.1, input.0, first.start.line);
            found.push(flow.source.error("port-fed-twice", edge.span(), message).help(help));
        }
    }

    /// `fed` are the ports of the module that edges lead to.
    fn unconnected(&self, flow: &Flow, module: &Module, fed: &[&str], found: &mut Diagnostics) {
        let Some(entry) = self.entry(&module.id.value) else { return };
        for port in &entry.input_ports {
            if fed.iter().any(|fed| port_matches(port, fed)) {
                continue;
            }
            let shown = port.replace('*', "_1");
            let message = format!("input port `{port}` of `{}` is not connected", module.id.value);
            let help = format!("add `… - {}.{shown}` to `connections.data`", module.id.value);
            found.push(flow.source.error("unconnected-input", module.id.span, message).help(help));
        }
    }
}

/// Why no data may go there.
fn no_data(kind: ModuleKind, end: End) -> Option<&'static str> {
    match (kind, end) {
        (ModuleKind::Source | ModuleKind::Mod, End::Output) | (ModuleKind::Mod | ModuleKind::Sink, End::Input) => None,
        (ModuleKind::Source, End::Input) => Some("no data goes into it"),
        (ModuleKind::Sink, End::Output) => Some("no data comes out of it"),
        (ModuleKind::Solo, _) => Some("it has no data ports"),
        (ModuleKind::Execute | ModuleKind::Dispatch, _) => Some("it belongs into a pipeline"),
    }
}
