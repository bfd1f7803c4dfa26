//! Files that are there as a whole or not at all, and stay once they are there.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// Puts `text` in the place of the file at `path`, which keeps its permissions.
pub(crate) fn replace(path: &Path, text: &str) -> io::Result<()> {
    // What the process may give, less its umask.
    let permissions = fs::metadata(path).map_or_else(|_| Permissions::from_mode(0o666), |old| old.permissions());
    let mut file = tempfile::Builder::new().prefix(".new-").permissions(permissions).tempfile_in(folder_of(path))?;
    file.write_all(text.as_bytes())?;
    settle(file, path)
}

/// Gives a file, written beside it, its name. Afterwards both are on the disk.
pub(crate) fn settle(file: NamedTempFile, path: &Path) -> io::Result<()> {
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(folder_of(path))?.sync_all()
}

/// Where files are written that will be at `path`.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
