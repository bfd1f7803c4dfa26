//! From text to a typed [`Flow`], with every problem at once.
//!
//! A section that cannot be read does not hide the problems of the others, nor those of the wiring: what planning does
//! not look at gets a stand-in. What no type can say (does the port exist, is there a cycle) is for [`super::plan`].

mod configs;
mod edges;
mod modules;

use std::num::NonZeroUsize;

use serde_json::Map;

use self::edges::Edges;
use super::form;
use super::spec::{About, Flow, FlowMeta, Settings};
use crate::catalog::Catalog;
use crate::diagnostic::Diagnostics;
use crate::document::{Node, Source, Spanned, parse};
use crate::form::fields::Fields;
use crate::template::Context;

pub(crate) use self::configs::configs;
pub(crate) use self::edges::data_edges;
pub(crate) use self::modules::modules;

/// Reads a flow document. There is a flow wherever its shape can be made out, so that [`super::plan`] can add its own
/// findings; only if there are no errors among the findings is it right.
#[must_use]
pub fn load(source: &Source, catalog: &Catalog, context: &Context) -> (Option<Flow>, Diagnostics) {
    let tree = match parse(source) {
        Ok(tree) => tree,
        Err(found) => return (None, found),
    };
    let mut found = Diagnostics::new();
    let flow = document(source, &tree, catalog, context, &mut found);
    (flow, found)
}

fn document(
    source: &Source,
    tree: &Spanned<Node>,
    catalog: &Catalog,
    context: &Context,
    found: &mut Diagnostics,
) -> Option<Flow> {
    let mut top = Fields::of(source, tree, &form::DOCUMENT, found)?;
    let meta = top.required("flow", found);
    let settings = top.optional("settings");
    let modules = top.required("modules", found);
    let connections = top.optional("connections");
    top.finish(found);

    let meta = meta.and_then(|node| self::meta(source, node, found)).unwrap_or_else(stand_in);
    let settings = settings.map_or_else(Settings::default, |node| self::settings(source, node, found));
    let modules = modules.and_then(|node| modules::modules(source, node, catalog, context, found));
    let edges = connections.map_or_else(Edges::default, |node| edges::connections(source, node, context, found));
    Some(Flow {
        meta,
        settings,
        modules: modules?,
        data_edges: edges.data,
        control_edges: edges.control,
        edges_complete: edges.complete,
        source: source.clone(),
    })
}

fn meta(source: &Source, node: &Spanned<Node>, found: &mut Diagnostics) -> Option<FlowMeta> {
    let mut fields = Fields::of(source, node, &form::META, found)?;
    let name = fields.required("name", found).and_then(|node| fields.name(node, "name", found));
    let version = fields.required("version", found).and_then(|node| fields.name(node, "version", found));
    let authors = fields.required("authors", found).and_then(|node| fields.texts(node, "authors", found));
    let created = fields.required("created", found).and_then(|node| fields.name(node, "created", found));
    let desc = fields.optional("desc").and_then(|node| fields.text(node, "desc", found));
    let labels = fields.labels(found);
    fields.finish(found);
    let about = About { authors: authors?, created: created?, desc, labels };
    Some(FlowMeta { name: name?, version: version?, about })
}

/// For a section `flow` that cannot be read, which has been reported: no plan leaves [`super::load_and_plan`] with it.
fn stand_in() -> FlowMeta {
    const WELL_FORMED: &str = "a name that this program gives is well formed";
    let about = About {
        authors: Vec::new(),
        created: "2000-01-01".parse().expect(WELL_FORMED),
        desc: None,
        labels: Map::new(),
    };
    FlowMeta { name: "unnamed".parse().expect(WELL_FORMED), version: "0.0.0".parse().expect(WELL_FORMED), about }
}

fn settings(source: &Source, node: &Spanned<Node>, found: &mut Diagnostics) -> Settings {
    let defaults = Settings::default();
    let Some(mut fields) = Fields::of(source, node, &form::SETTINGS, found) else { return defaults };
    let timeout = fields.optional("timeout").and_then(|node| fields.integer(node, "timeout", found));
    let retries = fields.optional("retries").and_then(|node| fields.integer(node, "retries", found));
    let threads = fields.optional("threads").and_then(|node| fields.integer(node, "threads", found));
    let spill = fields.optional("spill_threshold_rows");
    let spill = spill.and_then(|node| fields.integer(node, "spill_threshold_rows", found));
    let share = fields.optional("max_ram_share").and_then(|node| fields.number(node, "max_ram_share", found));
    let strategies = &form::FAIL_STRATEGIES;
    let fail_strategy =
        fields.optional("fail_strategy").and_then(|node| fields.choice(node, "fail_strategy", strategies, found));
    let modes = &form::EXECUTION_MODES;
    let execution_mode =
        fields.optional("execution_mode").and_then(|node| fields.choice(node, "execution_mode", modes, found));
    fields.finish(found);
    Settings {
        timeout_s: timeout.map_or(defaults.timeout_s, i64::unsigned_abs),
        retries: retries.and_then(|n| u8::try_from(n).ok()).unwrap_or(defaults.retries),
        fail_strategy: fail_strategy.unwrap_or(defaults.fail_strategy),
        execution_mode: execution_mode.unwrap_or(defaults.execution_mode),
        threads: threads.and_then(|n| usize::try_from(n).ok()).and_then(NonZeroUsize::new),
        spill_threshold_rows: spill.map_or(defaults.spill_threshold_rows, i64::unsigned_abs),
        max_ram_share: share.unwrap_or(defaults.max_ram_share),
    }
}
