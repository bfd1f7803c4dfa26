//! A folder: temporary files that get their names when they are whole and on the disk, and a lock a stream.
//!
//! A temporary file is `.pype-{stream}-{writer}-{number}.tmp`, in the directory of its later name. Whoever holds the lock of the
//! stream is its only writer, so whatever temporary files of the stream there are then, a dead one has left.
//!
//! The lock is one of the operating system on `.pype-eventlog/{stream}.lock`, which ends with its process. The file says who
//! had it last: a writer that gets it back and reads its own name knows that nobody else wrote meanwhile.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use parquet::file::metadata::ParquetMetaDataReader;
use pype_plugin::{Error, ErrorKind, Result};

use super::{Content, Listed, Published, compare};
use crate::bucket::Finished;
use crate::footer::Footer;
use crate::identity::Identity;
use crate::place::last_sequence;

/// Where the locks are. Readers pass over names that begin with a dot.
const LOCKS: &str = ".pype-eventlog";

/// The folder of an event log.
pub(crate) struct Folder {
    root: PathBuf,
    /// Tells this writer from all others.
    writer: String,
    next: AtomicU64,
}

/// A lock that is held. It goes with its file.
pub(crate) struct Lock {
    _file: File,
}

impl Folder {
    /// The folder at a path. It is made if there is none.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let root = std::path::absolute(root).map_err(|error| cannot("use", root, &error))?;
        let missing: Vec<_> = root.ancestors().take_while(|folder| !folder.exists()).collect();
        fs::create_dir_all(&root).map_err(|error| cannot("make", &root, &error))?;
        for folder in missing.into_iter().filter_map(Path::parent) {
            sync(folder)?;
        }
        let random = RandomState::new().hash_one(process::id());
        Ok(Self { root, writer: format!("{}-{random:016x}", process::id()), next: AtomicU64::new(0) })
    }

    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Takes the lock of a stream; says whether somebody else had it last.
    pub(crate) fn lock(&self, identity: &Identity) -> Result<(Lock, bool)> {
        let folder = self.root.join(LOCKS);
        let path = folder.join(format!("{}.lock", identity.stream_tag()));
        let cannot = |error: io::Error| cannot("lock", &path, &error);
        fs::create_dir_all(&folder).map_err(cannot)?;
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).to_owned();
        let mut file = options.open(&path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(self.second_writer(identity, &mut file)),
            Err(TryLockError::Error(error)) => {
                return Err(cannot(error).hint("the folder must be on a file system with locks"));
            }
        }
        let mut last = String::new();
        file.read_to_string(&mut last).map_err(cannot)?;
        let is_new = last != self.writer;
        if is_new {
            let written = file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0)));
            written.and_then(|_| file.write_all(self.writer.as_bytes())).map_err(cannot)?;
        }
        Ok((Lock { _file: file }, is_new))
    }

    fn second_writer(&self, identity: &Identity, file: &mut File) -> Error {
        let mut holder = String::new();
        // An aid only: the message is worth having without it.
        let process = match file.read_to_string(&mut holder) {
            Ok(_) => holder.split('-').next().map(|id| format!(" (process {id})")),
            Err(_) => None,
        };
        let message = format!(
            "another writer{} writes the stream `{}` into `{}`",
            process.unwrap_or_default(),
            identity.stream,
            self.root.display()
        );
        Error::new(ErrorKind::Unavailable, "second-writer", message)
            // A stream with a time of its making is kept until its writer ends.
            .retryable(identity.created.is_empty())
            .hint("end the other one, or give this one another root; to share the work, split the stream by subjects")
    }

    pub(crate) fn sweep(&self, identity: &Identity) -> Result<()> {
        let prefix = temporary_prefix(identity);
        self.walk(|name, path| match name.starts_with(&prefix) && name.ends_with(".tmp") {
            true => remove(path),
            false => Ok(()),
        })
    }

    pub(crate) fn list(&self, identity: &Identity) -> Result<Vec<Listed>> {
        let (tag, mut listed) = (identity.tag(), Vec::new());
        self.walk(|name, path| {
            if let Some(last) = last_sequence(name, &tag) {
                let key = path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned();
                listed.push(Listed { key, last });
            }
            Ok(())
        })?;
        Ok(listed)
    }

    pub(crate) fn footer(&self, key: &str) -> Result<Footer> {
        let path = self.path(key);
        let unreadable = |why: String| {
            let message = format!("cannot tell which events are in `{}`: {why}", path.display());
            Error::new(ErrorKind::Data, "unreadable-file", message)
                .hint("move the file away; its events come again if their stream still has them unacknowledged")
        };
        let file = File::open(&path).map_err(|error| cannot("read", &path, &error))?;
        let metadata =
            ParquetMetaDataReader::new().parse_and_finish(&file).map_err(|error| unreadable(error.to_string()))?;
        // Whoever wrote it may have died before its name was on the disk, and what is in it is about to be skipped.
        self.settle([key].into_iter())?;
        Footer::of(&metadata).map_err(unreadable)
    }

    pub(crate) fn temporary(&self, directory: &str, identity: &Identity) -> Result<TemporaryFile> {
        let folder = self.path(directory);
        fs::create_dir_all(&folder).map_err(|error| cannot("make", &folder, &error))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{}{}-{number}.tmp", temporary_prefix(identity), self.writer));
        let file = File::create_new(&path).map_err(|error| cannot("write", &path, &error))?;
        Ok(TemporaryFile { file, temporary: Temporary(path) })
    }

    pub(crate) fn publish<'a>(&self, files: impl Iterator<Item = &'a Finished>) -> Vec<Result<Published>> {
        let mut answers = Vec::new();
        for file in files {
            let Content::File(temporary) = &file.content else { unreachable!("files of a folder are on the disk") };
            let target = self.path(&file.key);
            let answer = appear(&temporary.0, &target).and_then(|appeared| match appeared {
                true => Ok(Published::New),
                false => compare(file, &self.footer(&file.key)?, &target.to_string_lossy()),
            });
            let failed = answer.is_err();
            answers.push(answer);
            if failed {
                break;
            }
        }
        answers
    }

    pub(crate) fn settle<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Result<()> {
        let keys: Vec<_> = keys.map(Path::new).collect();
        // Deepest first: a name is of use once those before it are there.
        let folders: BTreeSet<_> = keys.iter().flat_map(|key| key.ancestors().skip(1)).collect();
        folders.into_iter().rev().try_for_each(|folder| sync(&self.root.join(folder)))
    }

    /// Visits the files of the event log: name and path.
    fn walk(&self, mut visit: impl FnMut(&str, &Path) -> Result<()>) -> Result<()> {
        for simulation in folders(&self.root)? {
            for date in folders(&simulation)? {
                for hour in folders(&date)? {
                    for path in entries(&hour)? {
                        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
                            visit(name, &path)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

fn temporary_prefix(identity: &Identity) -> String {
    format!(".pype-{}-", identity.stream_tag())
}

/// Shows a file under its name, if there is none of that name: whether it does. A link is made or refused in one step; a
/// rename would replace what is there.
fn appear(temporary: &Path, target: &Path) -> Result<bool> {
    match fs::hard_link(temporary, target) {
        // The temporary name goes with its value.
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(_) if target.exists() => Ok(false),
        // A file system without second names. The lock of the stream keeps others from the name meanwhile.
        Err(_) => match fs::rename(temporary, target) {
            Ok(()) => Ok(true),
            Err(error) => Err(cannot("complete", target, &error)),
        },
    }
}

/// The folders in a folder, but for the hidden ones. A link to one counts.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let hidden = |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    Ok(entries(folder)?.into_iter().filter(|path| !hidden(path) && path.is_dir()).collect())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).and_then(|all| all.map(|entry| Ok(entry?.path())).collect());
    match entries {
        // Somebody tidied up meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries.map_err(|error| cannot("list", folder, &error)),
    }
}

fn sync(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| cannot("complete", folder, &error))
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("remove", path, &error)),
        _ => Ok(()),
    }
}

fn cannot(what: &str, path: &Path, cause: &io::Error) -> Error {
    let message = format!("cannot {what} `{}`: {cause}", path.display());
    Error::new(ErrorKind::Io, "event-log-folder", message).retryable(true)
}

/// A temporary file that takes bytes.
pub(crate) struct TemporaryFile {
    file: File,
    temporary: Temporary,
}

/// The path of a temporary file, which is removed with the value.
pub(crate) struct Temporary(PathBuf);

impl TemporaryFile {
    pub(crate) fn handle(&mut self) -> &mut File {
        &mut self.file
    }

    /// Waits until the bytes are on the disk. Files are closed then: there may be thousands before a commit.
    pub(crate) fn finish(self) -> Result<(Temporary, u64)> {
        let size = self.file.sync_all().and_then(|()| Ok(self.file.metadata()?.len()));
        let size = size.map_err(|error| cannot("write", &self.temporary.0, &error))?;
        Ok((self.temporary, size))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            tracing::warn!("{error}");
        }
    }
}
