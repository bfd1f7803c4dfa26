//! A file that appears whole or not at all.
//!
//! It is written under a temporary name in the target's own folder, so that the final rename cannot cross file
//! systems: `.{target}.pype-{pid}-{random}.tmp`, and locked as long as its process lives. The next run removes those
//! that nobody holds the lock of, so a killed run leaves the target as it was and its leftover goes with the next one.
//! A process id says nothing where locks work: in a container every run may have the same one.
//!
//! A target that is a link stays one, and the file it leads to is replaced; a device or a pipe is never replaced. The
//! new file has the old one's permissions.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::process;

use pype_plugin::prelude::*;

use crate::options::IfExists;

/// How often a new temporary file is tried, when others sweep it away before it is locked.
const ATTEMPTS: usize = 8;

/// A temporary file that becomes `target` on [`commit`](Self::commit), and disappears if dropped before.
pub(crate) struct AtomicFile {
    target: PathBuf,
    /// The target with its links followed: what is replaced.
    place: PathBuf,
    temporary: PathBuf,
    file: File,
    /// Whether the temporary file is the target by now.
    renamed: bool,
}

impl AtomicFile {
    /// Creates the temporary file, and the target's folder if there is none. Removes what dead runs left.
    pub(crate) fn create(target: &Path, if_exists: IfExists) -> Result<Self> {
        let cannot = |error: io::Error| cannot("write", target, &error);
        let target = std::path::absolute(target).map_err(cannot)?;
        let place = follow(&target)?;
        refuse(&place, if_exists)?;
        let (folder, name) = split(&place)?;
        fs::create_dir_all(folder).map_err(cannot)?;
        sweep(folder, name);
        let (temporary, file) = temporary_file(folder, name).map_err(cannot)?;
        Ok(Self { target, place, temporary, file, renamed: false })
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
        refuse(&self.place, if_exists)?;
        let bytes = self.finish().map_err(|error| cannot("complete", &self.target, &error))?;
        match if_exists {
            IfExists::Replace => self.replace()?,
            IfExists::Fail => self.appear()?,
        }
        let (folder, _) = split(&self.place)?;
        let synced = File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| cannot("complete", &self.target, &error))?;
        Ok(bytes)
    }

    /// Gives the file the permissions of the one it replaces, and makes it durable.
    fn finish(&self) -> io::Result<u64> {
        let metadata = self.file.metadata()?;
        match fs::metadata(&self.place) {
            // Only where they differ: some file systems have one set of permissions and refuse to change it.
            Ok(old) if old.permissions() != metadata.permissions() => self.file.set_permissions(old.permissions())?,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.file.sync_all()?;
        Ok(self.file.metadata()?.len())
    }

    fn replace(&mut self) -> Result<()> {
        fs::rename(&self.temporary, &self.place).map_err(|error| cannot("complete", &self.target, &error))?;
        self.renamed = true;
        Ok(())
    }

    /// Shows the file if there is none of its name. A link is made or refused in one step; a rename would replace what
    /// somebody else put there since the check.
    fn appear(&mut self) -> Result<()> {
        match fs::hard_link(&self.temporary, &self.place) {
            Ok(()) => Ok(()), // The temporary name goes with the value.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(&self.target)),
            Err(error) => {
                tracing::debug!("`{}` gets no second name, so it is renamed: {error}", self.temporary.display());
                refuse(&self.place, IfExists::Fail)?;
                self.replace()
            }
        }
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.renamed {
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

/// The file that `target` leads to, which may not be there yet.
fn follow(target: &Path) -> Result<PathBuf> {
    match fs::canonicalize(target) {
        Ok(place) => Ok(place),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("write", target, &error)),
        Err(_) if target.is_symlink() => {
            let message = format!("`{}` is a link to a file that is not there", target.display());
            Err(Error::new(ErrorKind::Config, "broken-link", message).hint("remove the link, or make the file"))
        }
        Err(_) => Ok(target.to_owned()),
    }
}

fn refuse(place: &Path, if_exists: IfExists) -> Result<()> {
    let wrong = |code: &'static str, what: &str| {
        let message = format!("`{}` is {what}; the output must be a file", place.display());
        Err(Error::new(ErrorKind::Config, code, message))
    };
    match (fs::metadata(place), if_exists) {
        (Ok(there), _) if there.is_dir() => wrong("is-a-folder", "a folder"),
        (Ok(there), _) if !there.is_file() => wrong("not-a-file", "a device, a pipe or a socket"),
        (Ok(_), IfExists::Fail) => Err(exists(place)),
        (Ok(_), IfExists::Replace) => Ok(()),
        (Err(error), _) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        (Err(error), _) => Err(cannot("write", place, &error)),
    }
}

fn exists(target: &Path) -> Error {
    let message = format!("`{}` exists already", target.display());
    Error::new(ErrorKind::Io, "exists", message).hint("`if_exists: replace` would replace it")
}

fn split(target: &Path) -> Result<(&Path, &str)> {
    let name = target.file_name().and_then(|name| name.to_str());
    target.parent().zip(name).ok_or_else(|| {
        Error::new(ErrorKind::Config, "bad-path", format!("`{}` is not the path of a file", target.display()))
    })
}

/// A new file, locked. Another run's sweep may come between its creation and its lock: then there is a next one.
fn temporary_file(folder: &Path, name: &str) -> io::Result<(PathBuf, File)> {
    for _ in 0..ATTEMPTS {
        let path = folder.join(temporary_name(name));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        match file.try_lock() {
            Ok(()) if path.exists() => return Ok((path, file)),
            Ok(()) | Err(TryLockError::WouldBlock) => discard(&path),
            Err(TryLockError::Error(error)) => {
                // A file system without locks: the process id alone tells then.
                tracing::debug!("cannot lock `{}`: {error}", path.display());
                return Ok((path, file));
            }
        }
    }
    Err(io::Error::other(format!("another run removed its temporary file {ATTEMPTS} times; run it again")))
}

/// Random, because neither the process id nor a count tells two containers apart that write into one folder.
fn temporary_name(name: &str) -> String {
    format!(".{name}.pype-{}-{:016x}.tmp", process::id(), RandomState::new().hash_one(process::id()))
}

/// Removes temporary files for `name` that nobody writes. What cannot be read or removed is left for the next run.
fn sweep(folder: &Path, name: &str) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|file| owner(file, name)) else { continue };
        if let Err(error) = remove_if_dead(&entry.path(), pid) {
            tracing::debug!("cannot remove the leftover `{}`: {error}", entry.path().display());
        }
    }
}

/// The process that made the temporary file `file` for `name`, if it is one.
fn owner(file: &str, name: &str) -> Option<u32> {
    let tail = file.strip_prefix('.')?.strip_prefix(name)?.strip_prefix(".pype-")?.strip_suffix(".tmp")?;
    tail.split_once('-')?.0.parse().ok()
}

/// Removes the file unless its writer lives. It is removed under its lock, so that whoever just made it notices.
fn remove_if_dead(path: &Path, pid: u32) -> io::Result<()> {
    // For writing too: NFS gives an exclusive lock to nobody else.
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let dead = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        Err(TryLockError::Error(_)) => !is_running(pid),
    };
    if dead { fs::remove_file(path) } else { Ok(()) }
}

/// Whether a process of that id runs on this machine. Where that cannot be told, yes.
fn is_running(pid: u32) -> bool {
    let processes = Path::new("/proc");
    !processes.join("self").exists() || processes.join(pid.to_string()).exists()
}

fn cannot(what: &str, target: &Path, error: &io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot-write", format!("cannot {what} `{}`: {error}", target.display()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("the folder exists");
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }

    /// Writes `new` through an atomic file.
    fn write(target: &Path, if_exists: IfExists) -> Result<u64> {
        let file = AtomicFile::create(target, if_exists)?;
        file.handle()?.write_all(b"new")?;
        file.commit(if_exists)
    }

    fn refusal(target: &Path, if_exists: IfExists) -> String {
        AtomicFile::create(target, if_exists).err().expect("refused").to_string()
    }

    #[test]
    fn a_file_appears_at_commit_and_not_before() {
        let folder = crate::testing::folder("atomic-commit");
        for if_exists in [IfExists::Replace, IfExists::Fail] {
            let target = folder.path().join(format!("{if_exists:?}/out.bin"));
            let file = AtomicFile::create(&target, if_exists).expect("created");
            file.handle().expect("a handle").write_all(b"whole").expect("written");
            assert!(!target.exists());
            assert_eq!(file.commit(if_exists).expect("committed"), 5);
            assert_eq!(fs::read(&target).expect("the file"), b"whole");
            assert_eq!(names(target.parent().expect("a parent")), ["out.bin"]);
        }
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
    fn leftovers_without_a_lock_are_swept_and_others_are_not() {
        let folder = crate::testing::folder("atomic-sweep");
        // In a container the killed run had the id that this one has.
        let own = format!(".out.bin.pype-{}-0.tmp", process::id());
        for leftover in [".out.bin.pype-4294967294-0.tmp", ".other.bin.pype-4294967294-0.tmp", &own] {
            fs::write(folder.path().join(leftover), "").expect("written");
        }
        // In another container runs one whose id means nothing here.
        let foreign = ".out.bin.pype-4294967295-0.tmp".to_owned();
        let writer = File::create(folder.path().join(&foreign)).expect("written");
        writer.try_lock().expect("a file system with locks");
        let alive = AtomicFile::create(&folder.path().join("out.bin"), IfExists::Replace).expect("created");
        drop(AtomicFile::create(&folder.path().join("out.bin"), IfExists::Replace).expect("created"));
        let mut left = names(folder.path());
        left.sort();
        let (_, own) = split(alive.temporary()).expect("a file's path");
        let mut expect = [".other.bin.pype-4294967294-0.tmp".to_owned(), foreign, own.to_owned()];
        expect.sort();
        assert_eq!(left, expect);
    }

    #[test]
    fn an_existing_target_is_refused_when_asked() {
        let folder = crate::testing::folder("atomic-exists");
        let target = folder.path().join("out.bin");
        let late = AtomicFile::create(&target, IfExists::Fail).expect("not there yet");
        fs::write(&target, "old").expect("written");
        let error = refusal(&target, IfExists::Fail);
        assert!(error.contains("exists already"), "{error}");
        let error = late.commit(IfExists::Fail).expect_err("somebody was faster").to_string();
        assert!(error.contains("exists already"), "{error}");
        assert_eq!(fs::read(&target).expect("the file"), b"old");
        assert_eq!(names(folder.path()), ["out.bin"]);
    }

    #[test]
    fn only_files_are_replaced() {
        let folder = crate::testing::folder("atomic-kinds");
        let link = folder.path().join("link.bin");
        symlink("nowhere.bin", &link).expect("linked");
        for (target, expect) in
            [(folder.path(), "is a folder"), (Path::new("/dev/null"), "is a device"), (&link, "is a link to a file")]
        {
            let error = refusal(target, IfExists::Replace);
            assert!(error.contains(expect), "{error}");
        }
    }

    #[test]
    fn a_link_stays_and_permissions_too() {
        let folder = crate::testing::folder("atomic-links");
        fs::create_dir(folder.path().join("deep")).expect("made");
        let (link, file) = (folder.path().join("link.bin"), folder.path().join("deep/out.bin"));
        fs::write(&file, "old").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("set");
        symlink("deep/out.bin", &link).expect("linked");
        write(&link, IfExists::Replace).expect("written");
        assert!(link.is_symlink());
        assert_eq!(fs::read(&file).expect("the file"), b"new");
        assert_eq!(fs::metadata(&file).expect("the file").permissions().mode() & 0o777, 0o640);
    }
}
