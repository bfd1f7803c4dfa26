//! What registering a library changes in a registry.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pype_core::catalog::{Catalog, ConfigSchema, ModuleEntry, ModuleKind};
use pype_core::name::ModuleName;
use pype_core::retry::Retry;
use pype_plugin::descriptor::{Kind, LibraryDescriptor, ModuleDescriptor, RetryPolicy};
use serde_json::Value;

use super::file::{self, Modules};
use super::places::{self, Places};
use super::{Registry, RegistryError};
use crate::loader::{self, Described, Digest};

/// A library and what it says about itself.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Where it is.
    pub library: PathBuf,
    /// The digest of the bytes that were asked.
    pub digest: Digest,
    /// What is in it.
    pub descriptor: LibraryDescriptor,
    /// It runs in processes of its own only.
    pub isolated: bool,
}

/// How to register.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Take names over from other libraries.
    pub replace: bool,
    /// As the bundled set is listed: by bare library name, without a digest.
    pub bundled: bool,
}

/// What became of a module in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Added,
    /// Its entry is another now, if only by the digest.
    Updated,
    /// Its entry is what it was.
    Unchanged,
    /// The library does not have it any more.
    Removed,
}

/// What registering a library did.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The registry that was written.
    pub registry: PathBuf,
    /// Each module, in the order of the library.
    pub modules: Vec<(String, Change)>,
}

/// Asks the library at `path` what is in it, in a child process.
///
/// # Errors
/// It is no plugin for this host, or is being overwritten.
pub fn inspect(path: &Path) -> Result<Inspected, RegistryError> {
    let digest = loader::digest(path)?;
    let Described { library: descriptor, aborts } = loader::describe(path)?;
    if loader::digest(path)? != digest {
        return Err(RegistryError::Changing { library: path.to_owned() });
    }
    Ok(Inspected { library: places::tidy(path), digest, descriptor, isolated: aborts })
}

impl Inspected {
    /// Writes an entry for each of its modules into the `registry` file.
    ///
    /// # Errors
    /// A name is taken or unusable, or the file cannot be changed; nothing is written then.
    pub fn register(&self, registry: &Path, places: &Places, options: Options) -> Result<Registered, RegistryError> {
        self.check_names()?;
        let bundled = Registry::bundled(places)?.catalog;
        let plan = Enrolment { inspected: self, registry, places, options, bundled: &bundled };
        let modules = file::update(registry, |modules| plan.carry_out(modules))?;
        Ok(Registered { registry: registry.to_owned(), modules })
    }

    fn check_names(&self) -> Result<(), RegistryError> {
        let mut names = BTreeSet::new();
        for module in &self.descriptor.modules {
            let library = || self.library.clone();
            module.name.parse::<ModuleName>().map_err(|cause| RegistryError::BadName { library: library(), cause })?;
            if !names.insert(&module.name) {
                return Err(RegistryError::Twice { library: library(), module: module.name.clone() });
            }
        }
        Ok(())
    }
}

/// Removes the modules with these `names` from the registry file, or all of them if there are none. Says which went.
///
/// # Errors
/// A name is not there (nothing is removed then), or the file cannot be changed.
pub fn clear(registry: &Path, names: &[String]) -> Result<Vec<String>, RegistryError> {
    if !registry.is_file() {
        return Err(RegistryError::Missing { path: registry.to_owned() });
    }
    file::update(registry, |modules| {
        let there: Vec<String> = modules.iter().map(|(name, _)| name.to_owned()).collect();
        if let Some(name) = names.iter().find(|name| !there.contains(name)) {
            let near = Registry::parse(registry, &modules.to_text()).catalog.suggest(name).map(str::to_owned);
            return Err(RegistryError::NoModule { name: name.clone(), registry: registry.to_owned(), near });
        }
        let cleared: Vec<String> = there.into_iter().filter(|name| names.is_empty() || names.contains(name)).collect();
        cleared.iter().for_each(|name| modules.remove(name));
        Ok(cleared)
    })
}

/// One registration, decided upon the entries that are there.
struct Enrolment<'a> {
    inspected: &'a Inspected,
    registry: &'a Path,
    places: &'a Places,
    options: Options,
    bundled: &'a Catalog,
}

impl Enrolment<'_> {
    fn carry_out(&self, modules: &mut Modules) -> Result<Vec<(String, Change)>, RegistryError> {
        let mut changes = self.remove_orphans(modules);
        for module in &self.inspected.descriptor.modules {
            let old = modules.get(&module.name);
            let keep = self.may_take(module, old)?;
            let entry = self.entry(module, keep.then_some(old).flatten())?;
            let change = match old {
                None => Change::Added,
                Some(old) if *old == entry => Change::Unchanged,
                Some(_) => Change::Updated,
            };
            modules.insert(&module.name, entry);
            changes.push((module.name.clone(), change));
        }
        Ok(changes)
    }

    /// Takes out what was registered from this library and is not in it any more.
    fn remove_orphans(&self, modules: &mut Modules) -> Vec<(String, Change)> {
        let exported = |name: &str| self.inspected.descriptor.modules.iter().any(|module| module.name == name);
        let orphans: Vec<String> = modules
            .iter()
            .filter(|(name, entry)| !exported(name) && self.stands_at(text(entry, "module_path")))
            .map(|(name, _)| name.to_owned())
            .collect();
        orphans.iter().for_each(|name| modules.remove(name));
        orphans.into_iter().map(|name| (name, Change::Removed)).collect()
    }

    /// Whether `old` is this library's own entry; an error if it is another's and that was not agreed to.
    fn may_take(&self, module: &ModuleDescriptor, old: Option<&Value>) -> Result<bool, RegistryError> {
        let listed = self.bundled.get(&module.name);
        let taken_by = match (old, listed) {
            (Some(old), _) if self.is_own(text(old, "module_path"), text(old, "sha256")) => return Ok(true),
            (None, Some(listed)) if self.is_own(&listed.module_path, "") => return Ok(true),
            (None, None) => return Ok(true),
            (Some(old), _) => text(old, "module_path").to_owned(),
            (None, Some(listed)) => format!("{} (bundled)", listed.module_path),
        };
        if self.options.replace {
            return Ok(false);
        }
        Err(RegistryError::Taken { module: module.name.clone(), library: self.inspected.library.clone(), taken_by })
    }

    /// The same file, the same bytes, or a file of the same name that has gone from where it was.
    fn is_own(&self, module_path: &str, sha256: &str) -> bool {
        let moved = || {
            let gone = self.places.resolve(module_path, self.folder()).is_err();
            let (old, new) = (Path::new(module_path), self.inspected.library.as_path());
            gone && places::bare_name(old) == places::bare_name(new)
        };
        self.stands_at(module_path) || self.inspected.digest == Digest::new(sha256) || moved()
    }

    fn stands_at(&self, module_path: &str) -> bool {
        let there = self.places.resolve(module_path, self.folder());
        there.is_ok_and(|path| places::same(&path, &self.inspected.library))
    }

    fn folder(&self) -> &Path {
        self.registry.parent().unwrap_or(Path::new("."))
    }

    fn entry(&self, module: &ModuleDescriptor, old: Option<&Value>) -> Result<Value, RegistryError> {
        let descriptor = &self.inspected.descriptor;
        let unknown =
            || RegistryError::UnknownKind { library: self.inspected.library.clone(), module: module.name.clone() };
        let old: Option<ModuleEntry> = old.and_then(|old| serde_json::from_value(old.clone()).ok());
        let (module_path, sha256) = self.address(old.as_ref());
        let entry = ModuleEntry {
            module_path,
            kind: kind(module.kind).ok_or_else(unknown)?,
            version: module.version.clone(),
            description: module.description.clone(),
            category: module.category.clone(),
            input_ports: module.input_ports.clone(),
            output_ports: module.output_ports.clone(),
            globals: module.globals.clone(),
            lists: module.lists.clone(),
            unbounded: module.acknowledge.is_some(),
            isolated: self.inspected.isolated,
            retry: module
                .retry
                .and_then(|RetryPolicy { attempts, delay_ms, backoff }| Retry::of_module(attempts, delay_ms, backoff)),
            packages: module.packages.clone(),
            config_schema: ConfigSchema::from_json_schema(&module.config_schema),
            sha256,
            api_version: Some(descriptor.api_version.clone()),
            extra: old.map(|old| old.extra).unwrap_or_default(),
        };
        Ok(serde_json::to_value(entry).expect("an entry is plain data"))
    }

    /// How the entry names its library. One that lists it as bundled, by name and without a digest, goes on to do so.
    fn address(&self, old: Option<&ModuleEntry>) -> (String, Option<String>) {
        let library = &self.inspected.library;
        let as_bundled = old.is_some_and(|old| {
            old.sha256.is_none() && places::is_bare(&old.module_path) && self.places.is_beside(library)
        });
        if let Some(name) = places::bare_name(library).filter(|_| as_bundled || self.options.bundled) {
            return (name.to_owned(), None);
        }
        let kept = old.map(|old| old.module_path.clone()).filter(|path| self.stands_at(path));
        let module_path = kept.unwrap_or_else(|| places::as_written(library, self.registry));
        (module_path, Some(self.inspected.digest.to_string()))
    }
}

fn kind(kind: Kind) -> Option<ModuleKind> {
    Some(match kind {
        Kind::Source => ModuleKind::Source,
        Kind::Mod => ModuleKind::Mod,
        Kind::Sink => ModuleKind::Sink,
        Kind::Solo => ModuleKind::Solo,
        Kind::Execute => ModuleKind::Execute,
        Kind::Dispatch => ModuleKind::Dispatch,
        // The enum of the plugin API may grow.
        _ => return None,
    })
}

/// A text in an entry that may not be valid.
fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
