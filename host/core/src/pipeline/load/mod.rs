//! From text to a [`Plan`], with every problem at once.

mod context;
mod stages;

use std::time::Duration;

use self::stages::Reader;
pub(super) use self::stages::{QUEUE, SCHEDULE_JOB};
use super::form;
use super::plan::{Parts, Plan, Settings};
use crate::catalog::Catalog;
use crate::diagnostic::Diagnostics;
use crate::document::{Node, Source, Spanned, parse};
use crate::form::fields::Fields;
use crate::form::meta::{Meta, meta};
use crate::template;

pub(super) fn load_and_plan(
    source: &Source,
    catalog: &Catalog,
    context: &template::Context,
) -> Result<(Plan, Diagnostics), Diagnostics> {
    let tree = parse(source)?;
    let mut found = Diagnostics::new();
    let parts = document(source, &tree, catalog, context, &mut found);
    match parts.filter(|_| !found.has_errors()) {
        Some(parts) => Ok((Plan::new(parts).expect("what keeps stages from being a plan has been reported"), found)),
        None => Err(found),
    }
}

/// What the document holds; none if a part that every pipeline has cannot be read, which has been reported.
fn document(
    source: &Source,
    tree: &Spanned<Node>,
    catalog: &Catalog,
    context: &template::Context,
    found: &mut Diagnostics,
) -> Option<Parts> {
    let mut top = Fields::of(source, tree, &form::DOCUMENT, found)?;
    let meta = top.required("pipeline", found);
    let declared = top.required("context", found);
    let stages = top.required("stages", found);
    let on_error = top.optional("on_error");
    let settings = top.optional("settings");
    top.finish(found);

    let meta = meta.and_then(|node| self::meta(source, node, &form::META, found));
    let spec = declared.and_then(|node| context::context(source, node, found));
    let dead_letter = on_error.and_then(|node| self::dead_letter(source, node, found));
    let settings = settings.map_or_else(Settings::default, |node| self::settings(source, node, found));
    // A context that cannot be read has been reported: nothing more is asked of it.
    let has_shard_key = spec.as_ref().is_none_or(|spec| spec.shard_key.is_some());
    let reader = Reader { source, catalog, context, has_shard_key };
    let stages = stages.and_then(|node| reader.stages(node, dead_letter, found));
    let (Meta { name, version, about }, stages) = (meta?, stages?);
    Some(Parts {
        name,
        version,
        about,
        context: spec?,
        stages: stages.chain,
        dead_letter: stages.dead_letter,
        large: stages.large,
        settings,
        source: source.clone(),
    })
}

fn dead_letter<'a>(source: &'a Source, node: &'a Spanned<Node>, found: &mut Diagnostics) -> Option<&'a Spanned<Node>> {
    let mut fields = Fields::of(source, node, &form::ON_ERROR, found)?;
    let dead_letter = fields.optional("dead_letter");
    fields.finish(found);
    dead_letter
}

fn settings(source: &Source, node: &Spanned<Node>, found: &mut Diagnostics) -> Settings {
    let Some(mut fields) = Fields::of(source, node, &form::SETTINGS, found) else { return Settings::default() };
    let timeout = timeout(&mut fields, found);
    fields.finish(found);
    Settings { timeout }
}

fn timeout(fields: &mut Fields<'_>, found: &mut Diagnostics) -> Option<Duration> {
    let node = fields.optional("timeout_s")?;
    fields.number(node, "timeout_s", found).map(Duration::from_secs_f64)
}
