//! The configs of one module: two sections of one object.

use crate::diagnostic::Diagnostics;
use crate::document::{Node, Source, Spanned};
use crate::flow::form;
use crate::flow::spec::NodeId;
use crate::form::configs::{Configs, Described, Given};
use crate::form::fields::Fields;
use crate::template::Context;

/// Reads the configs of a module.
pub(crate) fn configs(
    source: &Source,
    id: &Spanned<NodeId>,
    node: Option<&Spanned<Node>>,
    described: Option<Described<'_>>,
    context: &Context,
    found: &mut Diagnostics,
) -> Configs {
    let mut given = Given::new(source, id, node.map_or(id.span, |node| node.span));
    let sections = node.and_then(|node| Fields::of(source, node, &form::CONFIGS, found)).map(|mut fields| {
        let sections = [fields.optional("required"), fields.optional("optional")];
        fields.finish(found);
        sections
    });
    for section in sections.into_iter().flatten().flatten() {
        given.add(section, |_| true, found);
    }
    given.check(described, context, found)
}
