//! The source, and the decoders: modules that no edge names.

use super::Reader;
use crate::catalog::{ModuleEntry, ModuleKind};
use crate::diagnostic::Diagnostics;
use crate::document::{Node, Spanned};
use crate::flow::load::configs;
use crate::form::Form;
use crate::form::configs::{Configs, Described, Schemas};
use crate::form::fields::{Fields, list};
use crate::form::ids::ids;
use crate::name::{ModuleName, NodeId};
use crate::stream::plan::Module;
use crate::stream::{ERRORS, SOURCE, form};

/// A module as it is written.
struct Written<'a> {
    name: Spanned<ModuleName>,
    configs: Option<&'a Spanned<Node>>,
}

impl<'a> Reader<'a> {
    /// The section `source`. None if it cannot be used, which has been reported.
    pub(super) fn input(
        self,
        node: &'a Spanned<Node>,
        schemas: &mut Schemas,
        found: &mut Diagnostics,
    ) -> Option<Module> {
        let written = self.written(node, &form::SOURCE, found)?;
        let id = SOURCE.parse().expect("a name that this program gives is well formed");
        let id = Spanned::new(id, written.name.span);
        let entry = self.entry(&written.name, Reader::feeds_streams, found);
        self.module(&id, &written, entry, schemas, found)
    }

    /// The section `decode`. None if one of them cannot be used, which has been reported.
    pub(super) fn decoders(
        self,
        node: &'a Spanned<Node>,
        schemas: &mut Schemas,
        found: &mut Diagnostics,
    ) -> Option<Vec<Module>> {
        let items = list(self.source, node, "decode", found)?;
        let written: Vec<Written> = items.iter().filter_map(|item| self.written(item, &form::DECODE, found)).collect();
        let names: Vec<_> = written.iter().map(|one| (None, one.name.clone())).collect();
        let ids = ids(self.source, &names, found);
        let read: Vec<Option<Module>> = written
            .iter()
            .zip(&ids)
            .map(|(one, id)| {
                let entry = self.entry(&one.name, Reader::decodes, found);
                self.module(id, one, entry, schemas, found)
            })
            .collect();
        read.into_iter().collect::<Option<Vec<_>>>().filter(|read| read.len() == items.len())
    }

    fn written(self, node: &'a Spanned<Node>, form: &'static Form, found: &mut Diagnostics) -> Option<Written<'a>> {
        let mut fields = Fields::of(self.source, node, form, found)?;
        let name = fields.required("name", found);
        let name = name.and_then(|node| Some(Spanned::new(fields.name(node, "name", found)?, node.span)));
        let configs = fields.optional("configs");
        fields.finish(found);
        Some(Written { name: name?, configs })
    }

    /// The module of this name, if `fits` has nothing against it.
    fn entry(
        self,
        name: &Spanned<ModuleName>,
        fits: fn(Self, &Spanned<ModuleName>, &ModuleEntry, &mut Diagnostics) -> bool,
        found: &mut Diagnostics,
    ) -> Option<&'a ModuleEntry> {
        let entry = self.catalog.get(name.value.as_str());
        if entry.is_none() {
            found.push(self.catalog.unknown(self.source, name));
        }
        entry.filter(|entry| fits(self, name, entry, found) && entry.may_run_here(self.source, name, found))
    }

    fn feeds_streams(self, name: &Spanned<ModuleName>, entry: &ModuleEntry, found: &mut Diagnostics) -> bool {
        if entry.kind != ModuleKind::Source {
            let message = format!("`{}` is of kind {}, not a source", name.value, entry.kind);
            found.push(self.source.error("wrong-kind", name.span, message));
        } else if !entry.unbounded {
            let message = format!("`{}` has an end: it feeds a flow, not a stream", name.value);
            let help = "a document that starts with `flow:` takes it as one of its `modules`";
            found.push(self.source.error("bounded-source", name.span, message).help(help));
        }
        entry.kind == ModuleKind::Source && entry.unbounded
    }

    fn decodes(self, name: &Spanned<ModuleName>, entry: &ModuleEntry, found: &mut Diagnostics) -> bool {
        let (inputs, outputs) =
            (entry.input_ports.len(), entry.output_ports.iter().filter(|port| *port != ERRORS).count());
        let fits = (inputs, outputs) == (1, 1);
        if entry.kind != ModuleKind::Mod {
            let message = format!("`{}` is of kind {}, not a mod", name.value, entry.kind);
            found.push(self.source.error("wrong-kind", name.span, message));
        } else if !fits {
            let message = format!(
                "`{}` cannot decode: that takes one input port, and one output port besides `{ERRORS}`",
                name.value
            );
            let help = "a mod of several ports can stand in `handle.modules`";
            found.push(self.source.error("not-a-decoder", name.span, message).help(help));
        }
        entry.kind == ModuleKind::Mod && fits
    }

    /// Reads the configs; of a module that cannot be used as far as that goes.
    fn module(
        self,
        id: &Spanned<NodeId>,
        written: &Written<'_>,
        entry: Option<&ModuleEntry>,
        schemas: &mut Schemas,
        found: &mut Diagnostics,
    ) -> Option<Module> {
        let name = &written.name.value;
        let described = entry.map(|entry| Described { name, entry, schemas });
        let read = configs(self.source, id, written.configs, described, self.context, found);
        read.refuse_globals(self.source, "a stream has no globals", "a stream has no loops", found);
        let Configs { configs, spans, .. } = read;
        Some(Module { id: id.value.clone(), module: name.clone(), entry: entry?.clone(), configs, spans })
    }
}
