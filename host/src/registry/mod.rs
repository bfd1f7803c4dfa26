//! Which modules there are, and which library each is in.
//!
//! A registry file lists a project's modules; below it always lies the bundled set, so that a project with a registry
//! of its own can still use `csv_source`. The rooms: [`places`] knows where to look, [`file`] reads and writes,
//! [`register`] decides what a library's description changes.
//!
//! This module opens no library: describing and hashing is the [loader](crate::loader)'s.

mod error;
mod file;
mod places;
mod register;

use std::path::{Path, PathBuf};

use pype_core::catalog::{Catalog, ModuleEntry, parse_registry};
use pype_core::diagnostic::Diagnostic;

pub use self::error::RegistryError;
pub use self::places::{Places, is_bare, libraries_in, plugin_folders, project_of};
pub use self::register::{Change, Inspected, Options, Registered, clear, inspect};

use self::file::Modules;

/// The bundled modules, for an executable without a `modules.json` beside it.
const BUNDLED: &str = include_str!("../../../registry/modules.json");

/// The modules that a flow can use.
#[derive(Clone, Debug)]
pub struct Registry {
    /// The project's registry file. Without one: where the bundled set's file would be.
    pub path: PathBuf,
    /// The modules. A `module_path` is absolute, or a bare library name.
    pub catalog: Catalog,
    /// The entries that are not valid, and why. The rest are in the catalog.
    pub problems: Vec<Diagnostic>,
}

/// The registry for documents in the folder `near`: the `explicit` one, else the one that `PYPE_REGISTRY` names, else
/// the nearest `registry/modules.json` upward from `near`, else the bundled set.
///
/// # Errors
/// The explicit registry is not there, or the file is not readable as JSON.
pub fn find(explicit: Option<&Path>, near: &Path) -> Result<Registry, RegistryError> {
    Registry::find(&Places::of_process(), explicit, near)
}

/// The library that `entry` names, where `registry_dir` is the folder of its registry file.
///
/// # Errors
/// It is not there, or it has no digest and is not beside the executable.
pub fn library_path(entry: &ModuleEntry, registry_dir: &Path) -> Result<PathBuf, RegistryError> {
    Places::of_process().library(entry, registry_dir)
}

impl Registry {
    /// As [`find`], for a process with these `places`.
    ///
    /// # Errors
    /// As [`find`].
    pub fn find(places: &Places, explicit: Option<&Path>, near: &Path) -> Result<Self, RegistryError> {
        let bundled = Self::bundled(places)?;
        let Some(path) = places.registry(explicit, near)? else { return Ok(bundled) };
        let text = file::read(&path)?.ok_or_else(|| RegistryError::Missing { path: path.clone() })?;
        // What the project's file says about a name hides the bundled module, also when it is not valid.
        let written = Modules::parse(&path, &text)?;
        let mut registry = Self::parse(&path, &text);
        for (name, entry) in bundled.catalog.iter().filter(|(name, _)| !written.contains(name.as_str())) {
            registry.catalog.insert(name.as_str(), entry.clone()).expect("the bundled names are names");
        }
        Ok(registry)
    }

    /// The modules that come with pype.
    ///
    /// # Errors
    /// There is a `modules.json` beside the executable that cannot be read.
    pub fn bundled(places: &Places) -> Result<Self, RegistryError> {
        match places.bundled_registry() {
            Some(path) if path.is_file() => {
                let text = file::read(&path)?.ok_or_else(|| RegistryError::Missing { path: path.clone() })?;
                Modules::parse(&path, &text)?;
                Ok(Self::parse(&path, &text))
            }
            path => Ok(Self::parse(&path.unwrap_or_else(|| "modules.json".into()), BUNDLED)),
        }
    }

    /// The folder that the registry's relative paths start from.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    fn parse(path: &Path, text: &str) -> Self {
        let (mut catalog, problems) = parse_registry(path, text);
        let folder = places::real_folder(path);
        for (_, entry) in catalog.iter_mut() {
            if !places::is_bare(&entry.module_path) {
                entry.module_path = places::tidy(&folder.join(&entry.module_path)).to_string_lossy().into_owned();
            }
        }
        Self { path: path.to_owned(), catalog, problems }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("created");
        fs::write(path, text).expect("written");
    }

    /// A folder with an executable's folder `bin` that has one bundled module, `csv_source`.
    fn machine() -> (tempfile::TempDir, Places) {
        let root = tempfile::tempdir().expect("a temporary directory");
        let bin = root.path().join("bin");
        write(&bin.join("modules.json"), r#"{"csv_source": {"module_path": "tabular", "type": "source"}}"#);
        let places = Places { beside: vec![bin], plugin_path: vec![root.path().join("more")], ..Places::default() };
        (root, places)
    }

    #[test]
    fn the_nearest_registry_lies_over_the_bundled_set() {
        let (root, mut places) = machine();
        let project = root.path().join("project");
        let own = r#"{"own": {"module_path": "../plugins/libown.so", "type": "mod"}}"#;
        write(&project.join("registry/modules.json"), own);
        write(&root.path().join("other.json"), "{}");
        let names = |places: &Places, explicit: Option<&Path>| {
            let registry = Registry::find(places, explicit, &project.join("flows/deep")).expect("found");
            registry.catalog.names().map(str::to_owned).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(names(&places, None), "csv_source own");
        assert_eq!(names(&places, Some(&root.path().join("other.json"))), "csv_source");
        let registry = Registry::find(&places, None, &project).expect("found");
        let own = registry.catalog.get("own").expect("there");
        assert!(own.module_path.ends_with("/project/plugins/libown.so"), "{}", own.module_path);
        places.chosen = Some(root.path().join("other.json"));
        assert_eq!(names(&places, None), "csv_source");
        places.chosen = Some(root.path().join("gone.json"));
        let error = Registry::find(&places, None, &project).expect_err("refused");
        assert!(matches!(error, RegistryError::Missing { .. }), "{error}");
    }

    #[test]
    fn an_invalid_entry_hides_the_bundled_module_and_a_torn_file_is_an_error() {
        let (root, places) = machine();
        let path = root.path().join("registry/modules.json");
        write(&path, r#"{"csv_source": {"module_path": "mine"}}"#);
        let registry = Registry::find(&places, None, root.path()).expect("found");
        assert!(registry.catalog.is_empty());
        assert_eq!(registry.problems.len(), 1);
        write(&path, "{");
        let error = Registry::find(&places, None, root.path()).expect_err("refused");
        assert!(matches!(error, RegistryError::Malformed { .. }), "{error}");
    }

    #[test]
    fn a_library_without_a_digest_is_taken_from_beside_the_executable_only() {
        let (root, places) = machine();
        let entry = |module_path: &str, sha256: Option<&str>| -> ModuleEntry {
            serde_json::from_value(serde_json::json!({"module_path": module_path, "type": "mod", "sha256": sha256}))
                .expect("an entry")
        };
        let file = |name: &str| format!("{}{name}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
        let library = |entry: &ModuleEntry| places.library(entry, &root.path().join("registry"));
        let RegistryError::NoLibrary { looked, .. } = library(&entry("x", None)).expect_err("nowhere") else {
            panic!("another error")
        };
        assert_eq!(looked, [root.path().join("bin").join(file("x")), root.path().join("more").join(file("x"))]);
        let path = root.path().join("more").join(file("x"));
        write(&path, "");
        assert!(matches!(library(&entry("x", None)), Err(RegistryError::NoDigest { path: found }) if found == path));
        assert_eq!(library(&entry("x", Some("00"))).expect("found"), path);
        let relative = format!("../more/{}", file("x"));
        assert!(matches!(library(&entry(&relative, None)), Err(RegistryError::NoDigest { .. })));
        assert!(library(&entry(&relative, Some("00"))).is_ok());
        let path = root.path().join("bin").join(file("x"));
        write(&path, "");
        assert_eq!(library(&entry("x", None)).expect("found"), path);
    }
}
