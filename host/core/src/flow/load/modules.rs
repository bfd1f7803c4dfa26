//! The section `modules`.

use std::collections::BTreeMap;

use super::configs::configs;
use crate::catalog::Catalog;
use crate::diagnostic::Diagnostics;
use crate::document::{Node, Source, Spanned};
use crate::flow::form;
use crate::flow::spec::{Misc, Module, ModuleName, NodeId};
use crate::form::configs::{Configs, Described, Schemas};
use crate::form::fields::{Fields, list};
use crate::template::Context;

/// Reads all modules. None if one of them is not even named: what follows would blame its edges.
pub(crate) fn modules(
    source: &Source,
    node: &Spanned<Node>,
    catalog: &Catalog,
    context: &Context,
    found: &mut Diagnostics,
) -> Option<Vec<Module>> {
    let items = list(source, node, "modules", found)?;
    if items.is_empty() {
        found.push(source.error("no-modules", node.span, "the flow has no modules"));
    }
    let mut schemas = Schemas::default();
    let modules: Vec<Module> =
        items.iter().filter_map(|item| module(source, item, catalog, &mut schemas, context, found)).collect();
    let unique = duplicates(source, &modules, found);
    Some(modules).filter(|modules| unique && modules.len() == items.len())
}

fn module(
    source: &Source,
    node: &Spanned<Node>,
    catalog: &Catalog,
    schemas: &mut Schemas,
    context: &Context,
    found: &mut Diagnostics,
) -> Option<Module> {
    let mut fields = Fields::of(source, node, &form::MODULE, found)?;
    let id = fields.required("id", found);
    let id = id.and_then(|node| Some(Spanned::new(fields.name::<NodeId>(node, "id", found)?, node.span)));
    let name = fields.required("name", found);
    let name = name.and_then(|node| Some(Spanned::new(fields.name::<ModuleName>(node, "name", found)?, node.span)));
    let given = fields.optional("configs");
    let misc = fields.optional("misc");
    let labels = fields.labels(found);
    fields.finish(found);

    let misc = misc.map_or_else(Misc::default, |node| self::misc(source, node, found));
    let name = name?;
    let entry = catalog.get(name.value.as_str());
    match entry {
        None => found.push(catalog.unknown(source, &name)),
        Some(entry) if !entry.kind.in_flows() => {
            let message = format!("`{}` is a stage of pipelines ({}), not a module of flows", name.value, entry.kind);
            found.push(source.error("wrong-kind", name.span, message));
        }
        Some(entry) if entry.unbounded => {
            let message = format!("`{}` has no end: it feeds a stream, not a flow", name.value);
            let help = "a document that starts with `stream:` takes it as its `source`";
            found.push(source.error("unbounded-source", name.span, message).help(help));
        }
        Some(_) => {}
    }
    let id = id?;
    let described = entry.map(|entry| Described { name: &name.value, entry, schemas });
    let Configs { configs, spans, references } = configs(source, &id, given, described, context, found);
    Some(Module { id, name, configs, spans, references, misc, labels })
}

/// True if there are none.
fn duplicates(source: &Source, modules: &[Module], found: &mut Diagnostics) -> bool {
    let mut seen: BTreeMap<String, &Module> = BTreeMap::new();
    for module in modules {
        let Some(first) = seen.insert(module.id.value.as_str().to_lowercase(), module) else { continue };
        let message = format!("the id `{}` is given twice", module.id.value);
        let line = first.id.span.start.line;
        let help = format!("`{}` in line {line} has it; ids differ in more than their case", first.id.value);
        found.push(source.error("duplicate-id", module.id.span, message).help(help));
    }
    seen.len() == modules.len()
}

fn misc(source: &Source, node: &Spanned<Node>, found: &mut Diagnostics) -> Misc {
    let Some(mut fields) = Fields::of(source, node, &form::MISC, found) else { return Misc::default() };
    let checkpoint = fields.optional("checkpoint").and_then(|node| fields.boolean(node, "checkpoint", found));
    let join = fields.optional("join");
    let join = join.and_then(|node| Some(Spanned::new(fields.choice(node, "join", &form::JOINS, found)?, node.span)));
    let isolation = fields.optional("isolation");
    let isolation = isolation
        .and_then(|node| Some(Spanned::new(fields.choice(node, "isolation", &form::ISOLATIONS, found)?, node.span)));
    fields.finish(found);
    Misc { checkpoint, join, isolation }
}
