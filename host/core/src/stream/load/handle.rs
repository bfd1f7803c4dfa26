//! The section `handle`, and what `parallel` says of it.

use std::num::{NonZeroU64, NonZeroUsize};
use std::time::Duration;

use indexmap::IndexMap;
use serde_json::{Map, json};

use super::{Reader, seconds};
use crate::catalog::{Catalog, ModuleEntry, ModuleKind};
use crate::diagnostic::{Diagnostics, Span};
use crate::document::{Node, SpanMap, Spanned};
use crate::flow;
use crate::flow::load::data_edges;
use crate::flow::spec::{self, Flow, FlowMeta};
use crate::form::fields::{Fields, bad_name};
use crate::name::{FieldName, StreamName};
use crate::stream::plan::{Engine, Handle, Module, Parallel, PerBatch, PerRecord, RecordPart};
use crate::stream::quantity::{ByteSize, Interval};
use crate::stream::{RECORDS, SOURCE, form};

/// What other sections have to do with this one.
#[derive(Clone, Copy)]
pub(super) struct Written<'a> {
    pub(super) parallel: Option<(&'a Spanned<Node>, Parallel)>,
    /// The source, if it can be used.
    pub(super) input: Option<&'a Module>,
    pub(super) name: Option<&'a StreamName>,
}

/// The keys of `handle.batch`.
struct Batch<'a> {
    span: Span,
    batch: &'a Spanned<Node>,
    modules: Option<&'a Spanned<Node>>,
    connections: Option<&'a Spanned<Node>>,
}

const WELL_FORMED: &str = "a name that this program gives is well formed";

impl<'a> Reader<'a> {
    /// None if it cannot be read, which has been reported.
    pub(super) fn handle(
        self,
        node: &'a Spanned<Node>,
        written: Written<'_>,
        found: &mut Diagnostics,
    ) -> Option<Handle> {
        let mut fields = Fields::of(self.source, node, &form::HANDLE, found)?;
        let (pipeline, map) = (fields.optional("pipeline"), fields.optional("map"));
        let (batch, modules) = (fields.optional("batch"), fields.optional("modules"));
        let connections = fields.optional("connections");
        match (pipeline, batch) {
            (Some(path), None) => {
                self.misplaced([("modules", modules), ("connections", connections)], "batch", found);
                let path = fields.text(path, "pipeline", found).map(|text| Spanned::new(text, path.span));
                fields.finish(found);
                self.per_record(path, map, written.parallel.map(|(_, read)| read), found)
            }
            (None, Some(batch)) => {
                self.misplaced([("map", map), ("parallel", written.parallel.map(|(node, _)| node))], "pipeline", found);
                fields.finish(found);
                let batch = Batch { span: node.span, batch, modules, connections };
                self.per_batch(&batch, written, found).map(|batch| Handle::Batch(Box::new(batch)))
            }
            (Some(_), Some(second)) => {
                let message = "records are handled one by one (`pipeline`) or batch by batch (`batch`), not both";
                found.push(self.source.error("bad-handle", second.span, message).help("make two streams of it"));
                fields.finish(found);
                None
            }
            (None, None) => {
                let message = "`handle` needs the key `pipeline` or `batch`";
                let help = "with `batch: {}` its bounds are the usual ones";
                found.push(self.source.error("missing-key", Span::at(node.span.start), message).help(help));
                fields.finish(found);
                None
            }
        }
    }

    fn misplaced<const N: usize>(self, keys: [(&str, Option<&Spanned<Node>>); N], of: &str, found: &mut Diagnostics) {
        for (key, node) in keys.into_iter().filter_map(|(key, node)| Some((key, node?))) {
            let message = format!("`{key}` is for `handle.{of}`, which is not there");
            found.push(self.source.error("misplaced-key", node.span, message));
        }
    }

    fn per_record(
        self,
        path: Option<Spanned<String>>,
        map: Option<&'a Spanned<Node>>,
        parallel: Option<Parallel>,
        found: &mut Diagnostics,
    ) -> Option<Handle> {
        if let Some(path) = path.as_ref().filter(|path| path.value.is_empty()) {
            found.push(self.source.error("no-path", path.span, "`pipeline` is the path of a document, not nothing"));
        }
        let map = map.map(|node| self.map(node, found)).unwrap_or_default();
        Some(Handle::Pipeline(PerRecord { path: path?, map, parallel: parallel.unwrap_or_default() }))
    }

    fn map(self, node: &Spanned<Node>, found: &mut Diagnostics) -> IndexMap<FieldName, RecordPart> {
        let Node::Map(entries) = &node.value else {
            let message = format!("`map` must be a mapping, not {}", node.value.kind());
            found.push(self.source.error("wrong-type", node.span, message));
            return IndexMap::new();
        };
        let entry = |(field, part): &(Spanned<String>, Spanned<Node>)| {
            let name = field.value.parse().map_err(|error| found.push(bad_name(self.source, field.span, &error)));
            let Node::Str(text) = &part.value else {
                let message = format!("`{}` must be text, not {}", field.value, part.value.kind());
                found.push(self.source.error("wrong-type", part.span, message));
                return None;
            };
            let part = text.parse().map_err(|error| found.push(bad_name(self.source, part.span, &error)));
            Some((name.ok()?, part.ok()?))
        };
        entries.iter().filter_map(entry).collect()
    }

    /// The section `parallel`.
    pub(super) fn parallel(self, node: &Spanned<Node>, found: &mut Diagnostics) -> Parallel {
        let usual = Parallel::default();
        let Some(mut fields) = Fields::of(self.source, node, &form::PARALLEL, found) else { return usual };
        let ordering = fields.optional("ordering");
        let ordering = ordering.and_then(|node| fields.choice(node, "ordering", &form::ORDERINGS, found));
        let max = fields.optional("max_in_flight").and_then(|node| fields.integer(node, "max_in_flight", found));
        let engine = fields.optional("engine");
        let engine = engine.and_then(|node| fields.choice(node, "engine", &form::ENGINES, found));
        let (workers, recycle) = (fields.optional("workers"), fields.optional("recycle_after"));
        let engine = engine.unwrap_or(usual.engine);
        if engine == Engine::Async {
            for (key, node) in [("workers", workers), ("recycle_after", recycle)] {
                let message = format!("`{key}` is for child processes");
                let refuse = |node: &Spanned<Node>| self.source.error("misplaced-key", node.span, message);
                found.extend(node.map(|node| refuse(node).help("add `engine: process`")));
            }
        }
        let workers = workers.and_then(|node| fields.integer(node, "workers", found));
        let recycle = recycle.and_then(|node| fields.integer(node, "recycle_after", found));
        let timeout = seconds(&mut fields, "timeout_s", found);
        fields.finish(found);
        Parallel {
            ordering: ordering.unwrap_or(usual.ordering),
            max_in_flight: max.and_then(size).unwrap_or(usual.max_in_flight),
            engine,
            workers: workers.and_then(size),
            recycle_after: recycle.and_then(|number| NonZeroU64::new(number.unsigned_abs())),
            timeout: timeout.unwrap_or(usual.timeout),
        }
    }

    fn per_batch(self, batch: &Batch<'a>, written: Written<'_>, found: &mut Diagnostics) -> Option<PerBatch> {
        let mut fields = Fields::of(self.source, batch.batch, &form::BATCH, found)?;
        let rows = fields.optional("rows").and_then(|node| fields.integer(node, "rows", found));
        let bytes = fields.optional("bytes").and_then(|node| fields.name(node, "bytes", found));
        let interval = fields.optional("interval").and_then(|node| fields.name(node, "interval", found));
        fields.finish(found);
        let flow = self.flow(batch, written, found);
        Some(PerBatch {
            rows: rows.and_then(|rows| NonZeroU64::new(rows.unsigned_abs())).unwrap_or(ROWS),
            bytes: bytes.unwrap_or(ByteSize(BYTES)),
            interval: interval.unwrap_or(Interval(Duration::from_secs(5))),
            flow: flow?,
        })
    }

    /// The modules as a flow whose source is that of the stream.
    fn flow(self, batch: &Batch<'a>, written: Written<'_>, found: &mut Diagnostics) -> Option<flow::plan::Plan> {
        let Some(node) = batch.modules else {
            let message = "`handle` needs the key `modules`: what a batch goes through";
            found.push(self.source.error("missing-key", Span::at(batch.span.start), message));
            return None;
        };
        let modules = flow::load::modules(self.source, node, self.catalog, self.context, found)?;
        for module in &modules {
            self.fits_batches(module, found);
        }
        let mut complete = true;
        let data = batch.connections.and_then(|node| Fields::of(self.source, node, &form::CONNECTIONS, found));
        complete &= data.is_some() || batch.connections.is_none();
        let data = data.and_then(|mut fields| {
            let data = fields.optional("data");
            fields.finish(found);
            data
        });
        let data_edges = data_edges(self.source, data, &mut complete, found);
        let (input, catalog) = self.virtual_source(batch.batch.span, written.input);
        let flow = Flow {
            meta: meta(written.name),
            settings: spec::Settings::default(),
            modules: std::iter::once(input).chain(modules).collect(),
            data_edges,
            control_edges: Vec::new(),
            edges_complete: complete,
            source: self.source.clone(),
        };
        self.planned(flow, &catalog, found)
    }

    fn planned(self, flow: Flow, catalog: &Catalog, found: &mut Diagnostics) -> Option<flow::plan::Plan> {
        match flow::plan::plan(flow, catalog) {
            Ok((plan, warnings)) => {
                found.append(warnings);
                Some(plan)
            }
            Err(problems) => {
                found.append(problems);
                None
            }
        }
    }

    /// A batch is one sub flow that begins with its records: nothing else may begin one, or cut it.
    fn fits_batches(self, module: &spec::Module, found: &mut Diagnostics) {
        let entry = self.catalog.get(module.name.value.as_str()).filter(|entry| !entry.unbounded);
        if let Some(kind @ (ModuleKind::Source | ModuleKind::Solo)) = entry.map(|entry| entry.kind) {
            let message = format!("`{}` is a {kind}: a batch goes through mods and sinks", module.name.value);
            let help = format!("the records come out of `{SOURCE}.{RECORDS}`");
            found.push(self.source.error("wrong-kind", module.name.span, message).help(help));
        }
        if module.id.value.as_str().eq_ignore_ascii_case(SOURCE) {
            let message = format!("the id `{}` is that of the stream's source", module.id.value);
            found.push(self.source.error("duplicate-id", module.id.span, message));
        }
        let cut = module.misc.checkpoint.filter(|checkpoint| checkpoint.value).map(|checkpoint| checkpoint.span);
        let join = module.misc.join.map(|join| join.span);
        for (key, span) in [("checkpoint", cut), ("join", join)] {
            let message =
                format!("`{key}` is for flows: a batch is one sub flow, which is done when its sinks have committed");
            found.extend(span.map(|span| self.source.error("misplaced-key", span, message)));
        }
    }

    /// The source of a batch, and a catalog that has its port. Where the stream's own cannot be used there is a stand-in: nobody
    /// may be blamed for the edges that leave it.
    fn virtual_source(self, span: Span, input: Option<&Module>) -> (spec::Module, Catalog) {
        let stand_in = || {
            let entry = json!({"module_path": "", "type": "source"});
            serde_json::from_value::<ModuleEntry>(entry).expect("an entry needs no more")
        };
        let entry = input.map_or_else(stand_in, |input| input.entry.clone());
        let entry = ModuleEntry { output_ports: vec![RECORDS.to_owned()], unbounded: false, ..entry };
        let name = input.map_or_else(|| SOURCE.parse().expect(WELL_FORMED), |input| input.module.clone());
        let mut catalog = self.catalog.clone();
        catalog.insert(name.as_str(), entry).expect(WELL_FORMED);
        let module = spec::Module {
            id: Spanned::new(SOURCE.parse().expect(WELL_FORMED), span),
            name: Spanned::new(name, span),
            configs: input.map_or_else(|| json!({}), |input| input.configs.clone()),
            spans: input.map_or_else(|| SpanMap::rooted(span), |input| input.spans.clone()),
            references: std::collections::BTreeMap::new(),
            misc: spec::Misc::default(),
            labels: Map::new(),
        };
        (module, catalog)
    }
}

const ROWS: NonZeroU64 = NonZeroU64::new(100_000).expect("it is not zero");
const BYTES: NonZeroU64 = NonZeroU64::new(64 << 20).expect("it is not zero");

fn size(number: i64) -> Option<NonZeroUsize> {
    usize::try_from(number).ok().and_then(NonZeroUsize::new)
}

/// A batch's flow has the name of its stream; nobody asks it for the rest.
fn meta(name: Option<&StreamName>) -> FlowMeta {
    let name = name.map_or("unnamed", StreamName::as_str);
    FlowMeta {
        name: name.parse().expect("what names a stream can name a flow"),
        version: "0.0.0".parse().expect(WELL_FORMED),
        about: spec::About {
            authors: Vec::new(),
            created: "2000-01-01".parse().expect(WELL_FORMED),
            desc: None,
            labels: Map::new(),
        },
    }
}
