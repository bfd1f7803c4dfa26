//! A run's folder for files that nobody needs afterwards.
//!
//! It holds a lock as long as its process lives, so that the next run can tell, in any container, which folders were left
//! by a run that was killed, and remove those.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;

use tempfile::TempDir;

const PREFIX: &str = "pype-run-";
const LOCK: &str = ".lock";

/// The folder; it goes when this is dropped.
pub struct Scratch {
    folder: TempDir,
    // Closing it frees the lock.
    _lock: File,
}

impl Scratch {
    /// A new folder in `parent`, once those of dead runs are removed from there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn create(parent: &Path) -> io::Result<Self> {
        sweep(parent)?;
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        let lock = take(&folder.path().join(LOCK))?;
        let lock = lock.ok_or_else(|| io::Error::other("somebody else locked a new folder"))?;
        Ok(Self { folder, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Takes the lock at `path`, until the file is closed; `None` if somebody has it. On a file system without locks
/// everybody gets it, and nobody can sweep it either.
pub(super) fn take(path: &Path) -> io::Result<Option<File>> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(cause)) => {
            tracing::debug!("there are no locks for {}: {cause}", path.display());
            Ok(Some(file))
        }
    }
}

fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)?.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX)) && is_left(&entry.path()) {
            // Somebody else's, or being swept by another run at this moment.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    Ok(())
}

/// Whether the lock is there and free. A folder without one has just been made.
fn is_left(folder: &Path) -> bool {
    File::open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_whose_run_is_dead_is_swept_and_one_in_use_is_not() {
        let parent = tempfile::tempdir().expect("a folder");
        let dead = parent.path().join("pype-run-dead");
        fs::create_dir(&dead).expect("made");
        fs::write(dead.join(LOCK), "").expect("written");
        let alive = Scratch::create(parent.path()).expect("made");
        assert!(!dead.exists());
        let another = Scratch::create(parent.path()).expect("made");
        assert!(alive.path().exists() && another.path().exists());
        drop((alive, another));
        assert_eq!(fs::read_dir(parent.path()).expect("readable").count(), 0);
    }
}
