//! From a path or a glob to the files it means.

use std::path::{Path, PathBuf};
use std::{fs, io};

use glob::{MatchOptions, Pattern};
use polars::prelude::PlRefPath;
use pype_plugin::prelude::*;

use crate::suggest;

/// The files a source reads: at least one, sorted, none of them empty.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) paths: Vec<PathBuf>,
    /// Together, as stored.
    pub(crate) bytes: u64,
}

impl Files {
    /// The file at `pattern`, or all files that it matches as a glob.
    pub(crate) fn find(pattern: &str) -> Result<Self> {
        let paths = paths(pattern)?;
        let mut bytes = 0;
        for path in &paths {
            bytes += size(path)?;
        }
        Ok(Self { paths, bytes })
    }

    /// The paths as polars takes them.
    pub(crate) fn scan_paths<C: FromIterator<PlRefPath>>(&self) -> Result<C> {
        self.paths.iter().map(|path| scan_path(path)).collect()
    }
}

/// The file at `pattern`, or all files that it matches as a glob, each as it is now.
pub(crate) fn resources(pattern: &str) -> Result<Vec<Resource>> {
    paths(pattern)?.iter().map(Resource::file).collect()
}

/// The file at `pattern`, or all files that it matches as a glob: sorted, maybe none.
pub(crate) fn matching(pattern: &str) -> Result<Vec<PathBuf>> {
    let literal = Path::new(pattern);
    match fs::metadata(literal) {
        Ok(metadata) if metadata.is_dir() => Err(is_a_folder(literal)),
        Ok(_) => Ok(vec![literal.to_owned()]),
        Err(_) if is_glob(pattern) => matches(pattern),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(cannot_read(literal, &error)),
    }
}

/// The same, at least one.
fn paths(pattern: &str) -> Result<Vec<PathBuf>> {
    let paths = matching(pattern)?;
    match paths.is_empty() {
        false => Ok(paths),
        true if is_glob(pattern) => {
            Err(Error::new(ErrorKind::NotFound, "no-file", format!("no file matches `{pattern}`")))
        }
        true => Err(cannot_read(Path::new(pattern), &io::ErrorKind::NotFound.into())),
    }
}

/// The path as polars takes it.
pub(crate) fn scan_path(path: &Path) -> Result<PlRefPath> {
    text(path).map(PlRefPath::new)
}

/// The path as text.
pub(crate) fn text(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        let message = format!("the path `{}` is not UTF-8", path.display());
        Error::new(ErrorKind::Config, "bad-path", message)
    })
}

/// The error for a file that cannot be read, with a near name if it is not there.
pub(crate) fn cannot_read(path: &Path, error: &io::Error) -> Error {
    if error.kind() != io::ErrorKind::NotFound {
        return Error::new(ErrorKind::Io, "cannot-read", format!("cannot read `{}`: {error}", path.display()));
    }
    let missing = Error::new(ErrorKind::NotFound, "no-file", format!("there is no file `{}`", path.display()));
    match neighbour(path) {
        Some(near) => missing.hint(format!("did you mean `{}`?", near.display())),
        None => missing,
    }
}

fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    let bad_glob = |reason: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Config, "bad-glob", format!("cannot read the pattern `{pattern}`: {reason}"))
    };
    let mut paths = Vec::new();
    // As in a shell, hidden files are left: the temporary ones of a running sink are hidden.
    let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
    for path in glob::glob_with(&literal_folder(pattern), options).map_err(|error| bad_glob(&error))? {
        let path = path.map_err(|error| cannot_read(error.path(), error.error()))?;
        if path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// The pattern with the folders that exist taken as they are: the brackets in `runs [1]/*.csv` are the folder's own.
fn literal_folder(pattern: &str) -> String {
    let is_folder = |end: &usize| Path::new(&pattern[..*end]).is_dir();
    let ends = pattern.char_indices().filter(|(_, c)| std::path::is_separator(*c)).map(|(at, c)| at + c.len_utf8());
    let end = ends.filter(is_folder).max().unwrap_or(0);
    Pattern::escape(&pattern[..end]) + &pattern[end..]
}

fn size(path: &Path) -> Result<u64> {
    match fs::metadata(path).map_err(|error| cannot_read(path, &error))?.len() {
        0 => Err(empty(path)),
        bytes => Ok(bytes),
    }
}

/// The error for a file without a byte.
pub(crate) fn empty(path: &Path) -> Error {
    Error::new(ErrorKind::Data, "empty-file", format!("`{}` is empty: it has not even a header", path.display()))
}

fn is_a_folder(path: &Path) -> Error {
    let message = format!("`{}` is a folder", path.display());
    let hint = format!("read the files in it with a pattern: `{}`", path.join("*").display());
    Error::new(ErrorKind::Config, "is-a-folder", message).hint(hint)
}

/// The file in the same folder whose name is nearest.
fn neighbour(path: &Path) -> Option<PathBuf> {
    let folder = path.parent()?;
    let names: Vec<String> =
        fs::read_dir(folder).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let near = suggest::nearest(path.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(folder.join(near))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(folder: &Path, pattern: &str) -> Result<Vec<String>> {
        let files = Files::find(&folder.join(pattern).to_string_lossy())?;
        let name = |path: &PathBuf| path.strip_prefix(folder).expect("inside").to_string_lossy().into_owned();
        Ok(files.paths.iter().map(name).collect())
    }

    #[test]
    fn a_pattern_gives_its_files_in_order() {
        let folder = crate::testing::folder("files");
        for name in ["b.csv", "a.csv", "c.txt", "odd[1].csv"] {
            fs::write(folder.path().join(name), "x").expect("written");
        }
        fs::create_dir(folder.path().join("sub.csv")).expect("made");
        let root = folder.path();
        assert_eq!(find(root, "[ab].csv").expect("found"), ["a.csv", "b.csv"]);
        assert_eq!(find(root, "odd[1].csv").expect("a literal name wins"), ["odd[1].csv"]);
        assert_eq!(find(root, "c.txt").expect("found"), ["c.txt"]);
    }

    #[test]
    fn a_pattern_leaves_hidden_files_and_reads_folders_as_they_are() {
        let folder = crate::testing::folder("files-hidden");
        let root = folder.path();
        for sub in [".old", "runs [1]", "runs 1"] {
            fs::create_dir(root.join(sub)).expect("made");
            fs::write(root.join(sub).join("a.csv"), "x").expect("written");
            fs::write(root.join(sub).join(".b.csv"), "x").expect("written");
        }
        assert_eq!(find(root, "runs [1]/*.csv").expect("found"), ["runs [1]/a.csv"]);
        assert_eq!(find(root, "*/*.csv").expect("found"), ["runs 1/a.csv", "runs [1]/a.csv"]);
    }

    #[test]
    fn what_is_not_there_is_said_with_what_is() {
        let folder = crate::testing::folder("files-missing");
        fs::write(folder.path().join("people.csv"), "x").expect("written");
        fs::write(folder.path().join("empty.csv"), "").expect("written");
        let root = folder.path();
        let error = find(root, "poeple.csv").expect_err("a slip");
        assert!(error.to_string().contains("there is no file"), "{error}");
        assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("people.csv")));
        for (pattern, expect) in [
            ("x*.csv", "no file matches"),
            ("empty.csv", "is empty"),
            ("", "is a folder"),
            ("a[.csv", "cannot read the pattern"),
        ] {
            let error = find(root, pattern).expect_err(pattern);
            assert!(error.to_string().contains(expect), "{pattern}: {error}");
        }
    }
}
