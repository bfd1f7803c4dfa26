//! Which sequences of a stream are in files.
//!
//! Nobody reads all files for that. The name of a file says its last sequence, and only files whose last sequence is not before the
//! first one asked for can hold any of those asked for. When an earlier one is asked for, the files before are read too.

use pype_plugin::{Error, ErrorKind, Result};
use roaring::RoaringTreemap;

use crate::identity::Identity;
use crate::shelf::{Listed, Shelf};

/// What is known to be written.
#[derive(Default)]
pub(crate) struct Written {
    sequences: RoaringTreemap,
    /// All files that hold sequences from here on have been read.
    known_from: Option<u64>,
    /// The last sequences of the files that have not.
    unread: Vec<u64>,
}

impl Written {
    pub(crate) fn contains(&self, sequence: u64) -> bool {
        self.sequences.contains(sequence)
    }

    /// These are in a file now.
    pub(crate) fn add(&mut self, sequences: &RoaringTreemap) {
        self.sequences |= sequences;
        self.sequences.optimize();
    }

    /// Nothing is known any more.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Reads what must be read to know of all sequences from `first` on.
    pub(crate) fn reach(&mut self, first: u64, identity: &Identity, shelf: &Shelf) -> Result<()> {
        match self.known_from {
            Some(known_from) if known_from <= first => return Ok(()),
            Some(_) if self.unread.iter().all(|last| *last < first) => {}
            _ => self.read(first, identity, shelf)?,
        }
        self.known_from = Some(first);
        Ok(())
    }

    fn read(&mut self, first: u64, identity: &Identity, shelf: &Shelf) -> Result<()> {
        // What was read before holds all from there on.
        let before = self.known_from;
        let listed = shelf.list(identity)?;
        let wanted =
            listed.iter().filter(|file| file.last >= first && before.is_none_or(|known_from| file.last < known_from));
        let mut files = 0;
        for file in wanted {
            files += 1;
            self.read_file(file, identity, shelf)?;
        }
        tracing::debug!("read the footers of {files} of {} files of the stream `{}`", listed.len(), identity.stream);
        self.unread = listed.iter().map(|file| file.last).filter(|last| *last < first).collect();
        self.sequences.optimize();
        Ok(())
    }

    fn read_file(&mut self, file: &Listed, identity: &Identity, shelf: &Shelf) -> Result<()> {
        let footer = shelf.footer(&file.key)?;
        if footer.identity != *identity {
            let message = format!("`{}` is named as a file of the stream `{}`, and is not", file.key, identity.stream);
            return Err(Error::new(ErrorKind::Data, "foreign-file", message).hint("move it out of the event log"));
        }
        self.sequences |= footer.sequences;
        Ok(())
    }
}
