//! Which modules there are: their kinds, ports, globals and configs.
//!
//! A catalog is what a registry file says. This room neither finds the file nor opens a library; it
//! reads the text ([`parse_registry`]), writes it ([`registry_to_json`]) and answers questions.

mod beside;
mod integers;
mod labels;
mod paths;
mod registry;
mod schema;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::document::{Source, Spanned};
use crate::name::{ModuleName, NameError};
use crate::retry::Retry;
use crate::suggest;

pub use registry::{parse_registry, registry_to_json};
pub use schema::{ConfigSchema, Parameter, ParameterType};

/// What a module is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModuleKind {
    /// Brings data in.
    Source,
    /// Transforms data.
    Mod,
    /// Takes data out.
    Sink,
    /// Does something without data.
    Solo,
    /// A stage of a pipeline.
    Execute,
    /// The stage that hands the rest of a pipeline to the background.
    Dispatch,
}

impl ModuleKind {
    /// As it is written: `source`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ModuleKind::Source => "source",
            ModuleKind::Mod => "mod",
            ModuleKind::Sink => "sink",
            ModuleKind::Solo => "solo",
            ModuleKind::Execute => "execute",
            ModuleKind::Dispatch => "dispatch",
        }
    }

    /// May a control edge between sub flows leave it?
    #[must_use]
    pub fn control_may_leave(self) -> bool {
        match self {
            ModuleKind::Source | ModuleKind::Sink | ModuleKind::Solo => true,
            ModuleKind::Mod | ModuleKind::Execute | ModuleKind::Dispatch => false,
        }
    }

    /// May a control edge between sub flows enter it?
    #[must_use]
    pub fn control_may_enter(self) -> bool {
        match self {
            ModuleKind::Source | ModuleKind::Solo => true,
            ModuleKind::Mod | ModuleKind::Sink | ModuleKind::Execute | ModuleKind::Dispatch => false,
        }
    }

    /// May it stand in a flow?
    #[must_use]
    pub fn in_flows(self) -> bool {
        match self {
            ModuleKind::Source | ModuleKind::Mod | ModuleKind::Sink | ModuleKind::Solo => true,
            ModuleKind::Execute | ModuleKind::Dispatch => false,
        }
    }

    /// May it stand in a pipeline?
    #[must_use]
    pub fn in_pipelines(self) -> bool {
        !self.in_flows()
    }
}

impl fmt::Display for ModuleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One module as the registry describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModuleEntry {
    /// The library: a path relative to the registry file, or a bare library name.
    pub module_path: String,
    /// What it is for.
    #[serde(rename = "type")]
    pub kind: ModuleKind,
    /// Its own version.
    #[serde(default)]
    pub version: String,
    /// What it does, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The heading it is listed under.
    #[serde(default)]
    pub category: String,
    /// Its inputs; `in*` stands for any number of them.
    #[serde(default)]
    pub input_ports: Vec<String>,
    /// Its outputs.
    #[serde(default)]
    pub output_ports: Vec<String>,
    /// The values it announces while it runs.
    #[serde(default)]
    pub globals: Vec<String>,
    /// The lists it announces while it runs: what an ITERATE edge goes over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<String>,
    /// Of a source: it has no end. It feeds streams, and no flow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unbounded: bool,
    /// It runs in a process of its own only, since a fault in it would end the host: its library was built with `panic=abort`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// When a stage is tried again, if its pipeline says nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What it is built on.
    #[serde(default)]
    pub packages: Vec<String>,
    /// What it can be told.
    #[serde(default)]
    pub config_schema: ConfigSchema,
    /// The digest of the library when it was registered, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The version of the plugin API it was built against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Keys of a later pype, kept so that rewriting the file loses nothing.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ModuleEntry {
    /// The declared port (or family of ports) that `port` is an input of.
    #[must_use]
    pub fn input_port(&self, port: &str) -> Option<&str> {
        matching_port(&self.input_ports, port)
    }

    /// The declared port (or family of ports) that `port` is an output of.
    #[must_use]
    pub fn output_port(&self, port: &str) -> Option<&str> {
        matching_port(&self.output_ports, port)
    }

    /// Whether it may run in the host itself; if not, that is reported.
    pub(crate) fn may_run_here(&self, source: &Source, name: &Spanned<ModuleName>, found: &mut Diagnostics) -> bool {
        if self.isolated {
            let message =
                format!("`{}` was built with panic=abort: a fault in it would end the whole host", name.value);
            let help = "in a flow, or in the batches of a stream, it has a process of its own; or build its library without `panic = \"abort\"`";
            found.push(source.error("isolated-module", name.span, message).help(help));
        }
        !self.isolated
    }

    /// The declared spelling of a global, however `name` is cased.
    #[must_use]
    pub fn global(&self, name: &str) -> Option<&str> {
        self.globals.iter().map(String::as_str).find(|declared| declared.eq_ignore_ascii_case(name))
    }
}

fn matching_port<'a>(declared: &'a [String], port: &str) -> Option<&'a str> {
    let exact = declared.iter().find(|pattern| *pattern == port);
    exact.or_else(|| declared.iter().find(|pattern| port_matches(pattern, port))).map(String::as_str)
}

/// `in*` stands for `in`, `in1` and `in_<suffix>`.
#[must_use]
pub fn port_matches(pattern: &str, port: &str) -> bool {
    let Some(stem) = pattern.strip_suffix('*') else { return pattern == port };
    let Some(rest) = port.strip_prefix(stem) else { return false };
    match rest.strip_prefix('_') {
        Some(suffix) => !suffix.is_empty(),
        None => rest.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Modules by name, in alphabetical order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog(BTreeMap<ModuleName, ModuleEntry>);

impl Catalog {
    /// No module at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The module of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ModuleEntry> {
        self.0.get(name)
    }

    /// The same, to be changed: a host makes `module_path` absolute.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut ModuleEntry> {
        self.0.get_mut(name)
    }

    /// Adds a module; gives back the one it replaces.
    ///
    /// # Errors
    /// If `name` is not a module name.
    pub fn insert(&mut self, name: &str, entry: ModuleEntry) -> Result<Option<ModuleEntry>, NameError> {
        Ok(self.0.insert(name.parse()?, entry))
    }

    /// Takes a module out.
    pub fn remove(&mut self, name: &str) -> Option<ModuleEntry> {
        self.0.remove(name)
    }

    /// The name nearest to one that is not there, if it is near.
    #[must_use]
    pub fn suggest(&self, name: &str) -> Option<&str> {
        suggest::nearest(name, self.names())
    }

    /// That a document names a module which is not there.
    pub(crate) fn unknown(&self, source: &Source, name: &Spanned<ModuleName>) -> Diagnostic {
        let help = match self.suggest(name.value.as_str()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`pype list-modules` shows what there is, `pype register-module PATH.so` adds more".to_owned(),
        };
        source.error("unknown-module", name.span, format!("there is no module `{}`", name.value)).help(help)
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(ModuleName::as_str)
    }

    /// All modules.
    pub fn iter(&self) -> impl Iterator<Item = (&ModuleName, &ModuleEntry)> {
        self.0.iter()
    }

    /// All modules, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&ModuleName, &mut ModuleEntry)> {
        self.0.iter_mut()
    }

    /// How many modules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Is there no module?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_stands_for_a_family() {
        for port in ["in", "in1", "in12", "in_left", "in_1"] {
            assert!(port_matches("in*", port), "{port}");
        }
        for port in ["input", "in_", "inx", "i", "out", "in1a"] {
            assert!(!port_matches("in*", port), "{port}");
        }
        assert!(port_matches("data", "data"));
        assert!(!port_matches("data", "data1"));
    }
}
