//! Scratch folders for tests.

use std::fs;
use std::path::{Path, PathBuf};

/// A new folder that goes with the value.
pub(crate) struct Folder(PathBuf);

/// An empty folder of that name. Each test uses its own name.
pub(crate) fn folder(name: &str) -> Folder {
    let path = std::env::temp_dir().join(format!("pype-tabular-{}-{name}", std::process::id()));
    fs::create_dir_all(&path).expect("a temporary folder can be made");
    Folder(path)
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and gives its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file can be written");
        path.to_string_lossy().into_owned()
    }

    /// The path that a file of that name would have.
    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("the folder was made by this value");
    }
}
