//! Where registries and libraries are looked for.

use std::path::{Component, Path, PathBuf};

use pype_core::catalog::ModuleEntry;

use super::RegistryError;

/// What a process knows about where things are.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The registry that `PYPE_REGISTRY` names.
    pub chosen: Option<PathBuf>,
    /// The folder of the pype executable (for those who embed the host: also that of `PYPE_BIN`).
    pub beside: Vec<PathBuf>,
    /// The folders of `PYPE_PLUGIN_PATH`.
    pub plugin_path: Vec<PathBuf>,
}

impl Places {
    /// Those of this process.
    pub fn of_process() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let executables = [std::env::current_exe().ok(), set("PYPE_BIN").map(PathBuf::from)];
        let mut beside = Vec::new();
        for executable in executables.into_iter().flatten() {
            let folder = executable.canonicalize().unwrap_or(executable).parent().map(Path::to_owned);
            beside.extend(folder.filter(|folder| !beside.contains(folder)));
        }
        Self {
            chosen: set("PYPE_REGISTRY").map(PathBuf::from),
            beside,
            plugin_path: set("PYPE_PLUGIN_PATH").map_or_else(Vec::new, |paths| std::env::split_paths(&paths).collect()),
        }
    }

    /// The project's registry file for documents in `near`, if there is one.
    pub(super) fn registry(&self, explicit: Option<&Path>, near: &Path) -> Result<Option<PathBuf>, RegistryError> {
        if let Some(path) = self.named(explicit) {
            return match path.is_file() {
                true => Ok(Some(tidy(path))),
                false => Err(RegistryError::Missing { path: path.to_owned() }),
            };
        }
        let near = tidy(near);
        Ok(near.ancestors().map(|folder| folder.join("registry/modules.json")).find(|path| path.is_file()))
    }

    /// The registry file to write to from `near`; it need not be there yet.
    ///
    /// # Errors
    /// The folder cannot be looked at.
    pub fn registry_to_write(&self, explicit: Option<&Path>, near: &Path) -> Result<PathBuf, RegistryError> {
        if let Some(path) = self.named(explicit) {
            return Ok(tidy(path));
        }
        Ok(self.registry(None, near)?.unwrap_or_else(|| tidy(near).join("registry/modules.json")))
    }

    fn named<'a>(&'a self, explicit: Option<&'a Path>) -> Option<&'a Path> {
        explicit.or(self.chosen.as_deref())
    }

    /// Where a registry of the bundled modules may stand.
    pub(super) fn bundled_registry(&self) -> Option<PathBuf> {
        let files: Vec<PathBuf> = self.beside.iter().map(|folder| folder.join("modules.json")).collect();
        files.iter().find(|file| file.is_file()).or(files.first()).cloned()
    }

    /// See [`super::library_path`].
    ///
    /// # Errors
    /// As there.
    pub fn library(&self, entry: &ModuleEntry, registry_dir: &Path) -> Result<PathBuf, RegistryError> {
        let path = self.resolve(&entry.module_path, registry_dir)?;
        if entry.sha256.is_none() && !self.is_beside(&path) {
            return Err(RegistryError::NoDigest { path });
        }
        Ok(path)
    }

    /// The file that a `module_path` stands for, whoever vouches for it.
    ///
    /// # Errors
    /// It is not there.
    pub fn resolve(&self, module_path: &str, registry_dir: &Path) -> Result<PathBuf, RegistryError> {
        let candidates = match is_bare(module_path) {
            true => self.named_library(module_path),
            false => vec![tidy(&canonical(registry_dir).join(module_path))],
        };
        first_file(module_path, candidates)
    }

    /// The library that a user calls `name`, in the project at `root`.
    ///
    /// # Errors
    /// It is nowhere.
    pub fn library_by_name(&self, name: &str, root: &Path) -> Result<PathBuf, RegistryError> {
        let plugins = root.join("plugins");
        let own = plugins.join(name).join("target");
        let target = root.join("target");
        let folders = [plugins, own.join("release"), own.join("debug"), target.join("release"), target.join("debug")];
        let file = file_name(name);
        let mut candidates: Vec<PathBuf> = folders.iter().map(|folder| folder.join(&file)).collect();
        candidates.extend(self.named_library(name));
        first_file(name, candidates)
    }

    /// Whether `path` is a file in the executable's folder.
    pub(super) fn is_beside(&self, path: &Path) -> bool {
        path.parent().is_some_and(|parent| self.beside.iter().any(|folder| same(folder, parent)))
    }

    fn named_library(&self, name: &str) -> Vec<PathBuf> {
        let file = file_name(name);
        self.beside.iter().chain(&self.plugin_path).map(|folder| folder.join(&file)).collect()
    }
}

fn first_file(library: &str, candidates: Vec<PathBuf>) -> Result<PathBuf, RegistryError> {
    match candidates.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => Err(RegistryError::NoLibrary { library: library.to_owned(), looked: candidates }),
    }
}

/// Where the project at `root` keeps and builds its plugins, as far as the folders are there.
pub fn plugin_folders(root: &Path) -> Vec<PathBuf> {
    let plugins = root.join("plugins");
    let crates = std::fs::read_dir(&plugins).into_iter().flatten().flatten();
    let mut built: Vec<PathBuf> = crates.map(|one| one.path().join("target/release")).collect();
    built.sort();
    built.insert(0, plugins);
    built.push(root.join("target/release"));
    built.retain(|folder| folder.is_dir());
    built
}

/// The files in `folders` that are called like libraries, in the order of the folders.
///
/// # Errors
/// A folder cannot be read.
pub fn libraries_in(folders: &[PathBuf]) -> Result<Vec<PathBuf>, RegistryError> {
    let mut found = Vec::new();
    for folder in folders {
        let failed = |source| RegistryError::Io { doing: "read", path: folder.clone(), source };
        let entries = std::fs::read_dir(folder).map_err(failed)?;
        let mut here = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>().map_err(failed)?;
        here.retain(|path| is_library_file(path) && path.is_file());
        here.sort();
        found.extend(here);
    }
    Ok(found)
}

/// Whether a `module_path` is the name of a library rather than a path: `pype_tabular`.
pub fn is_bare(module_path: &str) -> bool {
    !module_path.contains(std::path::MAIN_SEPARATOR) && !is_library_file(Path::new(module_path))
}

/// Whether this is what libraries are called here: `libwait.so`.
fn is_library_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "so" || extension == std::env::consts::DLL_EXTENSION)
}

/// `my-plugin` is built as `libmy_plugin.so`.
fn file_name(name: &str) -> String {
    let (prefix, suffix) = (std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    format!("{prefix}{}{suffix}", name.replace('-', "_"))
}

/// `libmy_plugin.so` has the bare name `my_plugin`.
pub(super) fn bare_name(path: &Path) -> Option<&str> {
    let name = path.file_stem()?.to_str()?;
    Some(name.strip_prefix(std::env::consts::DLL_PREFIX).unwrap_or(name))
}

/// The folder that a project's registry belongs to: the one that holds `registry/`.
pub fn project_of(registry: &Path) -> &Path {
    let folder = registry.parent().unwrap_or(Path::new("."));
    match folder.file_name() {
        Some(name) if name == "registry" => folder.parent().unwrap_or(folder),
        _ => folder,
    }
}

/// `library` as an entry of `registry` names it: relative inside the project, absolute elsewhere.
pub(super) fn as_written(library: &Path, registry: &Path) -> String {
    let library = real_folder(library).join(library.file_name().unwrap_or_default());
    let (root, folder) = (canonical(project_of(registry)), real_folder(registry));
    let relative = library.strip_prefix(&root).ok().map(|inside| {
        let up = folder.strip_prefix(&root).map_or(0, |down| down.components().count());
        std::iter::repeat_n(Component::ParentDir, up).collect::<PathBuf>().join(inside)
    });
    let written = relative.unwrap_or(library).to_string_lossy().into_owned();
    if is_bare(&written) { format!("./{written}") } else { written }
}

/// Whether both are the same file or folder.
pub(super) fn same(one: &Path, other: &Path) -> bool {
    canonical(one) == canonical(other)
}

/// The folder of `file`, its links resolved: `..` is only what it seems in such a path.
pub(super) fn real_folder(file: &Path) -> PathBuf {
    canonical(tidy(file).parent().unwrap_or(Path::new(".")))
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| tidy(path))
}

/// Absolute and without `.` and `..`, as far as that needs no look at the disk.
pub(super) fn tidy(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut tidy = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir if tidy.file_name().is_some() => {
                tidy.pop();
            }
            Component::CurDir => {}
            part => tidy.push(part),
        }
    }
    tidy
}
