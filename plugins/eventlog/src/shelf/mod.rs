//! Where files are: a folder, or an object store. The same questions, asked where it may block.

pub(crate) mod folder;
pub(crate) mod objects;

use std::io::{self, Write};

use bytes::Bytes;
use pype_plugin::{Error, ErrorKind, Result};

use self::folder::{Folder, Lock, Temporary, TemporaryFile};
use self::objects::Objects;
use crate::bucket::Finished;
use crate::footer::Footer;
use crate::identity::Identity;

/// A folder, or an object store. Keys are paths below its root, with `/` between their parts.
pub(crate) enum Shelf {
    Folder(Folder),
    Objects(Objects),
}

/// A file of a stream.
#[derive(Debug, PartialEq)]
pub(crate) struct Listed {
    pub(crate) key: String,
    /// Its last sequence.
    pub(crate) last: u64,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    New,
    /// There was one of its name, with all that is in it.
    There,
}

/// The right to write a stream, as long as it is kept.
pub(crate) enum Hold {
    Locked {
        _lock: Lock,
    },
    /// An object store gives none.
    OnTrust,
}

impl Shelf {
    /// The right to write a stream; and whether somebody else may have written it since this shelf had it last.
    pub(crate) fn hold(&self, identity: &Identity) -> Result<(Hold, bool)> {
        match self {
            Self::Folder(folder) => {
                let (lock, is_new) = folder.lock(identity)?;
                Ok((Hold::Locked { _lock: lock }, is_new))
            }
            Self::Objects(_) => Ok((Hold::OnTrust, false)),
        }
    }

    /// Removes what dead writers of a stream have left half done. Only for who [holds](Self::hold) it.
    pub(crate) fn sweep(&self, identity: &Identity) -> Result<()> {
        match self {
            Self::Folder(folder) => folder.sweep(identity),
            Self::Objects(_) => Ok(()),
        }
    }

    /// All files of a stream.
    pub(crate) fn list(&self, identity: &Identity) -> Result<Vec<Listed>> {
        match self {
            Self::Folder(folder) => folder.list(identity),
            Self::Objects(objects) => objects.list(identity),
        }
    }

    /// What a file says of itself. In a folder, its name is on the disk then.
    pub(crate) fn footer(&self, key: &str) -> Result<Footer> {
        match self {
            Self::Folder(folder) => folder.footer(key),
            Self::Objects(objects) => objects.footer(key),
        }
    }

    /// A place for the bytes of a file that will be in that directory.
    pub(crate) fn medium(&self, directory: &str, identity: &Identity) -> Result<Medium> {
        match self {
            Self::Folder(folder) => Ok(Medium::File(folder.temporary(directory, identity)?)),
            Self::Objects(_) => Ok(Medium::Memory(Vec::new())),
        }
    }

    /// Gives files their names, in their order. There are fewer answers than files if a failure ended it.
    pub(crate) fn publish<'a>(&self, files: impl Iterator<Item = &'a Finished>) -> Vec<Result<Published>> {
        match self {
            Self::Folder(folder) => folder.publish(files),
            Self::Objects(objects) => objects.publish(files),
        }
    }

    /// Waits until the names of files are on the disk.
    pub(crate) fn settle<'a>(&self, keys: impl Iterator<Item = &'a str>) -> Result<()> {
        match self {
            Self::Folder(folder) => folder.settle(keys),
            Self::Objects(_) => Ok(()),
        }
    }

    pub(crate) fn uri(&self, key: &str) -> String {
        match self {
            Self::Folder(folder) => folder.path(key).to_string_lossy().into_owned(),
            Self::Objects(objects) => objects.uri(key),
        }
    }
}

/// A file whose name is taken: is all of it in the one that has the name?
fn compare(file: &Finished, there: &Footer, uri: &str) -> Result<Published> {
    let (ours, theirs) = (&file.footer.sequences, &there.sequences);
    if there.identity == file.footer.identity && ours.is_subset(theirs) {
        return Ok(Published::There);
    }
    let missing = ours.difference_len(theirs);
    let message = format!("`{uri}` is there, and lacks {missing} of {} events", file.rows);
    Err(Error::new(ErrorKind::Io, "other-file", message)
        .retryable(true)
        .hint("somebody else writes this stream: one writer at a time; what is in the file is skipped the next time"))
}

/// What a file is written to, before it has a name.
pub(crate) enum Medium {
    File(TemporaryFile),
    Memory(Vec<u8>),
}

/// The bytes of a whole file.
pub(crate) enum Content {
    /// Under a name that nobody reads, on the disk. It goes with the value.
    File(Temporary),
    Memory(Bytes),
}

impl Medium {
    /// The content, and its size.
    pub(crate) fn finish(self) -> Result<(Content, u64)> {
        match self {
            Self::File(file) => {
                let (temporary, bytes) = file.finish()?;
                Ok((Content::File(temporary), bytes))
            }
            Self::Memory(bytes) => {
                let size = bytes.len() as u64;
                Ok((Content::Memory(bytes.into()), size))
            }
        }
    }
}

impl Write for Medium {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.handle().write(bytes),
            Self::Memory(memory) => memory.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.handle().flush(),
            Self::Memory(_) => Ok(()),
        }
    }
}
