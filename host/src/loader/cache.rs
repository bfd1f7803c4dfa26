//! Libraries by content, in the user's cache.
//!
//! What is loaded is a copy that is named by its sha256, so that overwriting a `.so` never pulls the pages from under a
//! running host. Which file had which digest is remembered with its device, inode, size and times: a start reads no
//! library that it has seen before.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::LoadError;

/// A sha256, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(String);

impl Digest {
    /// A digest as a registry has it.
    pub fn new(hex: impl Into<String>) -> Self {
        Self(hex.into().to_ascii_lowercase())
    }

    /// The first twelve digits: enough for people.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A library whose bytes are known and kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Admitted {
    /// Its sha256.
    pub digest: Digest,
    /// The copy that may be loaded.
    pub copy: PathBuf,
}

/// The place of the copies.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// Copies that no remembered file has any more are removed after this time.
const KEEP_ORPHANS: Duration = Duration::from_secs(24 * 3600);

#[derive(Default, Serialize, Deserialize)]
struct Memory {
    files: BTreeMap<PathBuf, Seen>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    stamp: Stamp,
    sha256: Digest,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, LoadError> {
        let metadata = fs::metadata(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => LoadError::Missing { path: path.to_owned() },
            _ => LoadError::Io { doing: "read", path: path.to_owned(), source },
        })?;
        let nanoseconds = |seconds: i64, ns: i64| i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified_ns: nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

impl Cache {
    /// The cache of this user: `PYPE_CACHE_DIR`, or `pype` under `XDG_CACHE_HOME` or `~/.cache`.
    ///
    /// # Errors
    /// None of them is set.
    pub fn of_user() -> Result<Self, LoadError> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = set("PYPE_CACHE_DIR")
            .or_else(|| Some(set("XDG_CACHE_HOME")?.join("pype")))
            .or_else(|| Some(set("HOME")?.join(".cache/pype")))
            .ok_or(LoadError::NoCache)?;
        Ok(Self { root })
    }

    /// The same, with `expected` only if its bytes are still those that were registered.
    ///
    /// # Errors
    /// It changed, cannot be read, or the cache cannot be written.
    pub fn admit_as(&self, path: &Path, expected: Option<&Digest>) -> Result<Admitted, LoadError> {
        let admitted = self.admit(path)?;
        match expected.filter(|expected| **expected != admitted.digest) {
            Some(registered) => Err(LoadError::Changed { path: path.to_owned(), registered: registered.clone() }),
            None => Ok(admitted),
        }
    }

    /// The digest of the library at `path` and its copy, made if it was not there.
    ///
    /// # Errors
    /// The library cannot be read, or the cache cannot be written.
    pub fn admit(&self, path: &Path) -> Result<Admitted, LoadError> {
        let stamp = Stamp::of(path)?;
        let key = fs::canonicalize(path).map_err(|source| reading(path, source))?;
        if let Some(admitted) = self.remembered(&key, stamp) {
            return Ok(admitted);
        }
        let admitted = self.copy(path)?;
        if Stamp::of(path)? == stamp {
            self.remember(key, Seen { stamp, sha256: admitted.digest.clone() })?;
        }
        Ok(admitted)
    }

    fn remembered(&self, key: &Path, stamp: Stamp) -> Option<Admitted> {
        let seen = self.memory().files.remove(key).filter(|seen| seen.stamp == stamp)?;
        let copy = self.path_of(&seen.sha256);
        let whole = fs::metadata(&copy).is_ok_and(|metadata| metadata.len() == stamp.size);
        whole.then_some(Admitted { digest: seen.sha256, copy })
    }

    /// Copies and hashes in one pass; the copy appears whole, by rename.
    fn copy(&self, path: &Path) -> Result<Admitted, LoadError> {
        let directory = self.root.join("plugins");
        let writing = |source| LoadError::Io { doing: "write", path: directory.clone(), source };
        fs::create_dir_all(&directory).map_err(writing)?;
        let mut from = File::open(path).map_err(|source| reading(path, source))?;
        let mut to = tempfile::NamedTempFile::new_in(&directory).map_err(writing)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = from.read(&mut buffer).map_err(|source| reading(path, source))?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            to.write_all(&buffer[..count]).map_err(writing)?;
        }
        let digest = Digest(hex::encode(hash.finalize()));
        let copy = self.path_of(&digest);
        to.persist(&copy).map_err(|failed| writing(failed.error))?;
        Ok(Admitted { digest, copy })
    }

    fn path_of(&self, digest: &Digest) -> PathBuf {
        self.root.join("plugins").join(format!("{digest}.so"))
    }

    /// What is remembered; nothing if it cannot be read, for then it is made again.
    fn memory(&self) -> Memory {
        let text = fs::read(self.root.join("digests.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn remember(&self, key: PathBuf, seen: Seen) -> Result<(), LoadError> {
        let path = self.root.join("digests.json");
        let writing = |source| LoadError::Io { doing: "write", path: path.clone(), source };
        let lock = File::create(self.root.join("digests.lock")).map_err(writing)?;
        lock.lock().map_err(writing)?;
        let mut memory = self.memory();
        memory.files.retain(|file, _| file.exists());
        memory.files.insert(key, seen);
        self.forget_orphans(&memory);
        let text = serde_json::to_vec_pretty(&memory).expect("digests are plain data");
        let mut file = tempfile::NamedTempFile::new_in(&self.root).map_err(writing)?;
        file.write_all(&text).map_err(writing)?;
        file.persist(&path).map_err(|failed| writing(failed.error))?;
        Ok(())
    }

    /// A copy that is still mapped somewhere lives on until that process ends, so removing its name harms nobody.
    fn forget_orphans(&self, memory: &Memory) {
        let Ok(copies) = fs::read_dir(self.root.join("plugins")) else { return };
        for copy in copies.flatten() {
            let known = memory.files.values().any(|seen| self.path_of(&seen.sha256) == copy.path());
            let modified = copy.metadata().and_then(|metadata| metadata.modified());
            let old = modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|age| age > KEEP_ORPHANS));
            if !known && old && fs::remove_file(copy.path()).is_err() {
                tracing::debug!("the orphaned copy {} stays: it cannot be removed", copy.path().display());
            }
        }
    }
}

fn reading(path: &Path, source: io::Error) -> LoadError {
    LoadError::Io { doing: "read", path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overwritten_file_gets_a_new_copy_and_the_old_copy_stays() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache { root: folder.path().join("cache") };
        let path = folder.path().join("lib.so");
        fs::write(&path, "one").expect("write");
        let one = cache.admit(&path).expect("admit");
        assert_eq!(one.digest, cache.admit(&path).expect("admit again").digest);
        fs::write(&path, "two").expect("overwrite");
        let two = cache.admit(&path).expect("admit");
        assert_ne!(one.digest, two.digest);
        assert_eq!(fs::read_to_string(one.copy).expect("read"), "one");
        assert_eq!(fs::read_to_string(two.copy).expect("read"), "two");
        assert_eq!(two.digest.to_string(), "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3");
    }

    #[test]
    fn a_memory_that_is_not_readable_is_made_again() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let cache = Cache { root: folder.path().to_owned() };
        let path = folder.path().join("lib.so");
        fs::write(&path, "one").expect("write");
        fs::write(folder.path().join("digests.json"), "{ torn").expect("write");
        cache.admit(&path).expect("admit");
        assert_eq!(cache.memory().files.len(), 1);
    }
}
