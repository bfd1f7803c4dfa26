//! The section `context`.

use std::num::NonZeroU32;

use indexmap::IndexMap;
use serde_json::{Map, Value};

use crate::diagnostic::Diagnostics;
use crate::document::{Node, Source, Spanned};
use crate::form::fields::{Fields, bad_name, list};
use crate::name::{ContextVersion, FieldName};
use crate::pipeline::context::{ContextSpec, Field, FieldSpec, FieldType, Migration};
use crate::pipeline::form;
use crate::suggest;

/// Reads the section. None if its version or its fields cannot be read, which has been reported.
pub(super) fn context(source: &Source, node: &Spanned<Node>, found: &mut Diagnostics) -> Option<ContextSpec> {
    let mut section = Fields::of(source, node, &form::CONTEXT, found)?;
    let version =
        section.required("version", found).and_then(|node| section.name::<ContextVersion>(node, "version", found));
    let fields = section.required("fields", found).and_then(|node| self::fields(source, node, found));
    let shard_key = section.optional("shard_key");
    let shards = section.optional("shards");
    let migrations = section.optional("migrations");

    let shard_key = shard_key.and_then(|node| {
        let name = section.name::<FieldName>(node, "shard_key", found)?;
        Some(Spanned::new(name, node.span))
    });
    let count = shards.and_then(|node| section.integer(node, "shards", found));
    section.finish(found);
    let migrations = migrations.and_then(|node| self::migrations(source, node, found));

    let (version, fields) = (version?, fields?);
    if let Some(key) = &shard_key {
        check_shard_key(source, key, &fields, found);
    }
    if let Some(shards) = shards.filter(|_| shard_key.is_none()) {
        let message = "`shards` says nothing without a `shard_key`";
        found.warning("no-shard-key", &source.path, shards.span, message);
    }
    let migrations = migrations.unwrap_or_default();
    Chain { source, current: &version, fields: &fields, migrations: &migrations }.check(found);
    Some(ContextSpec {
        version,
        fields,
        shard_key: shard_key.map(|key| key.value),
        shards: count.and_then(|n| u32::try_from(n).ok()).and_then(NonZeroU32::new).unwrap_or(ContextSpec::SHARDS),
        migrations: migrations.into_iter().map(|step| step.migration).collect(),
    })
}

fn fields(source: &Source, node: &Spanned<Node>, found: &mut Diagnostics) -> Option<IndexMap<FieldName, FieldSpec>> {
    let Node::Map(entries) = &node.value else {
        let message = format!("`fields` must be a mapping, not {}", node.value.kind());
        found.push(source.error("wrong-type", node.span, message));
        return None;
    };
    let mut fields = IndexMap::new();
    for (key, value) in entries {
        // A field that cannot be read is there all the same: nobody may be blamed for naming it.
        let field = self::field(source, key, value, found).unwrap_or_else(|| FieldSpec::of(FieldType::Any));
        if let Some(name) = field_name(source, key, found) {
            fields.insert(name, field);
        }
    }
    Some(fields)
}

fn field_name(source: &Source, text: &Spanned<String>, found: &mut Diagnostics) -> Option<FieldName> {
    text.value.parse().map_err(|error| found.push(bad_name(source, text.span, &error))).ok()
}

/// `str?`, or a mapping.
fn field(source: &Source, name: &Spanned<String>, node: &Spanned<Node>, found: &mut Diagnostics) -> Option<FieldSpec> {
    match &node.value {
        Node::Str(text) => {
            let (kind, optional) = field_type(source, text, node, found)?;
            Some(FieldSpec { optional, ..FieldSpec::of(kind) })
        }
        Node::Map(_) => described(source, &name.value, node, found),
        Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Seq(_) => {
            let message = format!("the field `{}` must be a type or a mapping, not {}", name.value, node.value.kind());
            found.push(source.error("wrong-type", node.span, message));
            None
        }
    }
}

/// `{type: int, default: 0}`.
fn described(source: &Source, name: &str, node: &Spanned<Node>, found: &mut Diagnostics) -> Option<FieldSpec> {
    let mut fields = Fields::of(source, node, &form::FIELD, found)?;
    let kind = fields.required("type", found).and_then(|node| {
        let text = fields.text(node, "type", found)?;
        field_type(source, &text, node, found)
    });
    let default = fields.optional("default");
    let desc = fields.optional("desc").and_then(|node| fields.text(node, "desc", found));
    fields.finish(found);
    let (kind, optional) = kind?;
    let default = default.and_then(|node| self::default(source, name, kind, node, found));
    Some(FieldSpec { kind, optional, default, desc })
}

fn field_type(source: &Source, text: &str, node: &Spanned<Node>, found: &mut Diagnostics) -> Option<(FieldType, bool)> {
    let known = form::TYPES.iter().find(|(name, _)| *name == text).map(|(_, known)| *known);
    if known.is_none() {
        let message = format!("`{text}` is not a type of fields");
        found.push(source.error("unknown-value", node.span, message).help_if(meant_type(text)));
    }
    known
}

/// Names that types have elsewhere.
const OTHER_NAMES: [(&str, &str); 9] = [
    ("string", "str"),
    ("text", "str"),
    ("integer", "int"),
    ("number", "float"),
    ("boolean", "bool"),
    ("binary", "bytes"),
    ("array", "list"),
    ("dict", "object"),
    ("mapping", "object"),
];

fn meant_type(text: &str) -> Option<String> {
    let required = form::TYPES.iter().filter(|(_, (_, optional))| !optional).map(|(name, _)| *name);
    let elsewhere = suggest::nearest(text, OTHER_NAMES.map(|(other, _)| other));
    match OTHER_NAMES.iter().find(|(other, _)| elsewhere == Some(*other)) {
        Some((_, ours)) => Some(format!("did you mean `{ours}`?")),
        None => suggest::help(text, required, "it is one of"),
    }
}

fn default(
    source: &Source,
    name: &str,
    kind: FieldType,
    node: &Spanned<Node>,
    found: &mut Diagnostics,
) -> Option<Value> {
    match kind.take(Field::from(node.value.to_json())) {
        // Bytes are kept as they are written, and read like those that a caller gives.
        Ok(Field::Bytes(_)) => Some(node.value.to_json()),
        Ok(Field::Json(value)) => Some(value.as_ref().clone()),
        Err(problem) => {
            found.push(source.error("wrong-type", node.span, format!("the default of `{name}` {problem}")));
            None
        }
    }
}

fn check_shard_key(
    source: &Source,
    key: &Spanned<FieldName>,
    fields: &IndexMap<FieldName, FieldSpec>,
    found: &mut Diagnostics,
) {
    let Some(field) = fields.get(&key.value) else {
        let help = suggest::help(key.value.as_str(), fields.keys().map(FieldName::as_str), "the fields are");
        let message = format!("the shard key `{}` is not a field of the context", key.value);
        found.push(source.error("unknown-field", key.span, message).help_if(help));
        return;
    };
    let refuse = |why: &str| {
        let message = format!("`{}` cannot be the shard key: {why}", key.value);
        source.error("bad-shard-key", key.span, message).help("take a required field that is not `bytes`")
    };
    if field.kind == FieldType::Bytes {
        found.push(refuse("it holds bytes"));
    }
    if !field.is_required() {
        found.push(refuse("it need not be given"));
    }
}

/// A migration, and where its values stand.
struct Step<'a> {
    migration: Migration,
    from: &'a Spanned<Node>,
    to: &'a Spanned<Node>,
    rename: Option<&'a Spanned<Node>>,
    set: Option<&'a Spanned<Node>>,
}

fn migrations<'a>(source: &'a Source, node: &'a Spanned<Node>, found: &mut Diagnostics) -> Option<Vec<Step<'a>>> {
    let items = list(source, node, "migrations", found)?;
    let steps: Vec<Step> = items.iter().filter_map(|item| step(source, item, found)).collect();
    // Nobody may be blamed for the gap that an unreadable one leaves.
    Some(steps).filter(|steps| steps.len() == items.len())
}

fn step<'a>(source: &'a Source, node: &'a Spanned<Node>, found: &mut Diagnostics) -> Option<Step<'a>> {
    let mut fields = Fields::of(source, node, &form::MIGRATION, found)?;
    let (from, to) = (fields.required("from", found), fields.required("to", found));
    let from = from.and_then(|node| Some((fields.name::<ContextVersion>(node, "from", found)?, node)));
    let to = to.and_then(|node| Some((fields.name::<ContextVersion>(node, "to", found)?, node)));
    let rename = fields.optional("rename");
    let set = fields.optional("set");
    let removed = fields.optional("remove");
    let renamed = rename.map(|node| renames(source, &fields, node, found)).unwrap_or_default();
    let values = set.map(|node| values(source, &fields, node, found)).unwrap_or_default();
    let removed = removed.and_then(|node| fields.list(node, "remove", found)).unwrap_or_default();
    let removed = removed.iter().filter_map(|node| fields.name(node, "remove", found)).collect();
    fields.finish(found);
    let ((from_version, from), (to_version, to)) = (from?, to?);
    let migration = Migration { from: from_version, to: to_version, rename: renamed, set: values, remove: removed };
    Some(Step { migration, from, to, rename, set })
}

fn renames(
    source: &Source,
    fields: &Fields<'_>,
    node: &Spanned<Node>,
    found: &mut Diagnostics,
) -> IndexMap<FieldName, FieldName> {
    let Node::Map(entries) = &node.value else {
        fields.wrong_type(node, "rename", "a mapping", found);
        return IndexMap::new();
    };
    let pair = |(from, to): &(Spanned<String>, Spanned<Node>)| {
        let (from, to) = (field_name(source, from, found), fields.name(to, &from.value, found));
        Some((from?, to?))
    };
    entries.iter().filter_map(pair).collect()
}

fn values(source: &Source, fields: &Fields<'_>, node: &Spanned<Node>, found: &mut Diagnostics) -> Map<String, Value> {
    let Node::Map(entries) = &node.value else {
        fields.wrong_type(node, "set", "a mapping", found);
        return Map::new();
    };
    let mut entry = |(name, value): &(Spanned<String>, Spanned<Node>)| {
        Some((field_name(source, name, found)?.to_string(), value.value.to_json()))
    };
    entries.iter().filter_map(&mut entry).collect()
}

/// All migrations together: each leads, step by step, to the current version and its fields.
struct Chain<'a> {
    source: &'a Source,
    current: &'a ContextVersion,
    fields: &'a IndexMap<FieldName, FieldSpec>,
    migrations: &'a [Step<'a>],
}

impl Chain<'_> {
    fn check(&self, found: &mut Diagnostics) {
        for (at, step) in self.migrations.iter().enumerate() {
            self.starts(at, step, found);
            self.arrives(step, found);
            if step.migration.to == *self.current {
                self.renames_fit(step, found);
                self.values_fit(step, found);
            }
        }
    }

    /// From an older version, and alone from that.
    fn starts(&self, at: usize, step: &Step<'_>, found: &mut Diagnostics) {
        let from = &step.migration.from;
        if from == self.current {
            let message = format!("a migration starts from `{from}`, which is the current version");
            found.push(self.source.error("bad-migration", step.from.span, message));
        }
        if let Some(first) = self.migrations[..at].iter().find(|first| first.migration.from == *from) {
            let line = first.from.span.start.line;
            let message = format!("a second migration starts from `{from}`: there is one in line {line}");
            found.push(self.source.error("bad-migration", step.from.span, message));
        }
    }

    /// At the current version, or where another goes on.
    fn arrives(&self, step: &Step<'_>, found: &mut Diagnostics) {
        let Migration { from, to, .. } = &step.migration;
        let goes_on = self.migrations.iter().any(|next| next.migration.from == *to);
        if to != self.current && !goes_on {
            let message = format!("the migration from `{from}` ends at `{to}`: none leads on to `{}`", self.current);
            let help = format!("add a migration from `{to}`");
            found.push(self.source.error("migration-gap", step.to.span, message).help(help));
        } else if from != self.current && self.is_circle(step) {
            let message = format!("the migration from `{from}` leads back to `{from}`");
            found.push(self.source.error("bad-migration", step.to.span, message));
        }
    }

    fn is_circle(&self, step: &Step<'_>) -> bool {
        let next = |at: &&ContextVersion| {
            let next = self.migrations.iter().find(|next| next.migration.from == **at);
            next.map(|next| &next.migration.to).filter(|_| *at != self.current)
        };
        std::iter::successors(Some(&step.migration.to), next)
            .take(self.migrations.len() + 1)
            .any(|version| *version == step.migration.from)
    }

    fn renames_fit(&self, step: &Step<'_>, found: &mut Diagnostics) {
        let Some(Node::Map(entries)) = step.rename.map(|node| &node.value) else { return };
        for (_, to) in entries {
            if let Node::Str(name) = &to.value {
                self.is_declared(&Spanned::new(name.clone(), to.span), found);
            }
        }
    }

    fn values_fit(&self, step: &Step<'_>, found: &mut Diagnostics) {
        let Some(Node::Map(entries)) = step.set.map(|node| &node.value) else { return };
        for (name, value) in entries {
            let Some(field) = self.is_declared(name, found) else { continue };
            if field.may_be_absent() && value.value == Node::Null {
                continue;
            }
            if let Err(problem) = field.kind.take(Field::from(value.value.to_json())) {
                found.push(self.source.error("wrong-type", value.span, format!("`{}` {problem}", name.value)));
            }
        }
    }

    /// The field; that it is not there is reported.
    fn is_declared(&self, name: &Spanned<String>, found: &mut Diagnostics) -> Option<&FieldSpec> {
        let field = self.fields.get(name.value.as_str());
        // What is no name at all has been reported.
        if field.is_none() && name.value.parse::<FieldName>().is_ok() {
            let help = suggest::help(&name.value, self.fields.keys().map(FieldName::as_str), "the fields are");
            let message = format!("`{}` is not a field of version `{}`", name.value, self.current);
            found.push(self.source.error("unknown-field", name.span, message).help_if(help));
        }
        field
    }
}
