//! A file that appears whole or not at all.
//!
//! It is written under a temporary name in the target's own folder, so that the final rename cannot cross file
//! systems: `.{target}.pype-{pid}-{n}.tmp`, and locked as long as its process lives. The next run removes those whose
//! process is gone and whose lock is free (a process in another container has a lock, but no id here), so a killed
//! run leaves the target as it was and its leftover goes with the next one.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use pype_plugin::prelude::*;

use crate::options::IfExists;

/// A temporary file that becomes `target` on [`commit`](Self::commit), and disappears if dropped before.
pub(crate) struct AtomicFile {
    target: PathBuf,
    temporary: PathBuf,
    file: File,
    committed: bool,
}

impl AtomicFile {
    /// Creates the temporary file, and the target's folder if there is none. Removes what dead runs left.
    pub(crate) fn create(target: &Path, if_exists: IfExists) -> Result<Self> {
        let cannot = |error: io::Error| cannot("write", target, &error);
        let target = std::path::absolute(target).map_err(cannot)?;
        let (folder, name) = split(&target)?;
        refuse(&target, if_exists)?;
        fs::create_dir_all(folder).map_err(cannot)?;
        sweep(folder, name);
        let temporary = folder.join(temporary_name(name));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&temporary).map_err(cannot)?;
        if let Err(error) = file.try_lock() {
            // A file system without locks: the process id alone tells then.
            tracing::debug!("cannot lock `{}`: {error}", temporary.display());
        }
        Ok(Self { target, temporary, file, committed: false })
    }

    /// Another handle to write with.
    pub(crate) fn handle(&self) -> Result<File> {
        self.file.try_clone().map_err(|error| cannot("write", &self.target, &error))
    }

    /// Where the bytes are until the commit.
    pub(crate) fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Where they will be.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Makes the file durable, then visible under its name, then the name durable. Returns its size.
    pub(crate) fn commit(mut self, if_exists: IfExists) -> Result<u64> {
        let cannot = |error: io::Error| cannot("complete", &self.target, &error);
        refuse(&self.target, if_exists)?;
        self.file.sync_all().map_err(cannot)?;
        let bytes = self.file.metadata().map_err(cannot)?.len();
        fs::rename(&self.temporary, &self.target).map_err(cannot)?;
        self.committed = true;
        let (folder, _) = split(&self.target)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(cannot)?;
        Ok(bytes)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        discard(&self.temporary);
    }
}

/// Removes a temporary file, if it is there. A writer that still runs writes to nowhere then.
pub(crate) fn discard(temporary: &Path) {
    match fs::remove_file(temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("cannot remove `{}`: {error}", temporary.display());
        }
        _ => {}
    }
}

fn refuse(target: &Path, if_exists: IfExists) -> Result<()> {
    if target.is_dir() {
        let message = format!("`{}` is a folder; the output must be a file", target.display());
        return Err(Error::new(ErrorKind::Config, "is-a-folder", message));
    }
    if if_exists == IfExists::Fail && target.exists() {
        let message = format!("`{}` exists already", target.display());
        return Err(Error::new(ErrorKind::Io, "exists", message).hint("`if_exists: replace` would replace it"));
    }
    Ok(())
}

fn split(target: &Path) -> Result<(&Path, &str)> {
    let name = target.file_name().and_then(|name| name.to_str());
    target.parent().zip(name).ok_or_else(|| {
        Error::new(ErrorKind::Config, "bad-path", format!("`{}` is not the path of a file", target.display()))
    })
}

fn temporary_name(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(".{name}.pype-{}-{n}.tmp", process::id())
}

/// Removes temporary files for `name` whose process is gone. What cannot be read or removed is left for the next run.
fn sweep(folder: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let owner = entry.file_name().to_str().and_then(|file| owner(file, name));
        let dead = owner.is_some_and(|pid| !is_running(pid) && !is_locked(&entry.path()));
        if dead && let Err(error) = fs::remove_file(entry.path()) {
            tracing::debug!("cannot remove the leftover `{}`: {error}", entry.path().display());
        }
    }
}

/// The process that made the temporary file `file` for `name`, if it is one.
fn owner(file: &str, name: &str) -> Option<u32> {
    let tail = file.strip_prefix('.')?.strip_prefix(name)?.strip_prefix(".pype-")?.strip_suffix(".tmp")?;
    tail.split_once('-')?.0.parse().ok()
}

/// Whether a process of that id runs on this machine. Where that cannot be told, yes.
fn is_running(pid: u32) -> bool {
    let processes = Path::new("/proc");
    !processes.join("self").exists() || processes.join(pid.to_string()).exists()
}

/// Whether somebody holds the file's lock. A file that cannot be opened is left alone, as if somebody did.
fn is_locked(path: &Path) -> bool {
    File::open(path).map_or(true, |file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn cannot(what: &str, target: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot-write", format!("cannot {what} `{}`: {error}", target.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder exists");
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_file_appears_at_commit_and_not_before() {
        let folder = crate::testing::folder("atomic-commit");
        let target = folder.path().join("new/out.bin");
        let file = AtomicFile::create(&target, IfExists::Replace).expect("created");
        file.handle().expect("a handle").write_all(b"whole").expect("written");
        assert!(!target.exists());
        assert_eq!(file.commit(IfExists::Replace).expect("committed"), 5);
        assert_eq!(fs::read(&target).expect("the file"), b"whole");
        assert_eq!(names(target.parent().expect("a parent")), ["out.bin"]);
    }

    #[test]
    fn a_file_dropped_before_its_commit_leaves_the_old_one() {
        let folder = crate::testing::folder("atomic-drop");
        let target = folder.path().join("out.bin");
        fs::write(&target, "old").expect("written");
        drop(AtomicFile::create(&target, IfExists::Replace).expect("created"));
        assert_eq!(fs::read(&target).expect("the file"), b"old");
        assert_eq!(names(folder.path()), ["out.bin"]);
    }

    #[test]
    fn leftovers_of_dead_processes_are_swept_and_others_are_not() {
        let folder = crate::testing::folder("atomic-sweep");
        let alive = format!(".out.bin.pype-{}-7.tmp", process::id());
        for leftover in [".out.bin.pype-4294967294-0.tmp", ".other.bin.pype-4294967294-0.tmp", &alive] {
            fs::write(folder.path().join(leftover), "").expect("written");
        }
        drop(AtomicFile::create(&folder.path().join("out.bin"), IfExists::Replace).expect("created"));
        let mut left = names(folder.path());
        left.sort();
        assert_eq!(left, [".other.bin.pype-4294967294-0.tmp".to_owned(), alive]);
    }

    #[test]
    fn an_existing_target_is_refused_when_asked() {
        let folder = crate::testing::folder("atomic-exists");
        let target = folder.path().join("out.bin");
        fs::write(&target, "old").expect("written");
        let error = AtomicFile::create(&target, IfExists::Fail).err().expect("refused");
        assert!(error.to_string().contains("exists already"), "{error}");
        let error = AtomicFile::create(folder.path(), IfExists::Replace).err().expect("refused");
        assert!(error.to_string().contains("is a folder"), "{error}");
    }
}
