//! What pype writes for people to start from: a module's crate, a project.

mod init;
mod new_module;
mod templates;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) use self::init::{InitArgs, init};
pub(crate) use self::new_module::{NewModuleArgs, new_module};

use super::Exit;
use super::render::{self, Failure};

/// A file to be written: its path within the new folder, and its text.
type File = (PathBuf, String);

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
enum ScaffoldError {
    #[error("`{given}` cannot be the name of a module: {rule}")]
    Name { given: String, rule: &'static str, instead: Option<String> },
    #[error("`{}` is there already", render::shown(path))]
    Exists { path: PathBuf },
    #[error("there is no plugin SDK at `{}`: {why}", path.display())]
    NoSdk { path: PathBuf, why: &'static str },
    #[error("cannot write `{}`: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl From<ScaffoldError> for Failure {
    fn from(error: ScaffoldError) -> Self {
        let message = error.to_string();
        match error {
            ScaffoldError::Name { instead: Some(instead), .. } => {
                Self::invalid("bad-name", message).hint(format!("for example: pype new-module {instead}"))
            }
            ScaffoldError::Name { instead: None, .. } => {
                Self::invalid("bad-name", message).hint("take another name: pype new-module NAME")
            }
            ScaffoldError::Exists { .. } => {
                Self::invalid("exists", message).hint("nothing was written; move it away, or choose another folder")
            }
            ScaffoldError::NoSdk { .. } => Self::invalid("no-sdk", message)
                .hint("give the folder of the crate pype-plugin, or a version: --pype-plugin 1.0"),
            ScaffoldError::Io { .. } => {
                Self { exit: Exit::Failed, ..Self::invalid("io", message) }.hint("choose another folder")
            }
        }
    }
}

/// Writes all `files` below `folder`, or none if one of them is there.
fn write(folder: &Path, files: &[File]) -> Result<(), ScaffoldError> {
    let paths = files.iter().map(|(path, _)| folder.join(path));
    if let Some(path) = paths.clone().find(|path| path.symlink_metadata().is_ok()) {
        return Err(ScaffoldError::Exists { path });
    }
    for (path, (_, text)) in paths.zip(files) {
        create(&path, text).map_err(|source| ScaffoldError::Io { path, source })?;
    }
    Ok(())
}

fn create(path: &Path, text: &str) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    fs::File::create_new(path)?.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_files_are_written_or_none() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let files: Vec<File> = vec![("a/one".into(), "1".into()), ("two".into(), "2".into())];
        fs::write(folder.path().join("two"), "mine").expect("written");
        let error = write(folder.path(), &files).expect_err("refused");
        assert!(matches!(error, ScaffoldError::Exists { .. }), "{error}");
        assert!(!folder.path().join("a").exists());
        fs::remove_file(folder.path().join("two")).expect("removed");
        write(folder.path(), &files).expect("written");
        assert_eq!(fs::read_to_string(folder.path().join("a/one")).expect("there"), "1");
    }
}
