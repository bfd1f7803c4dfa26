//! The rows of one directory, between two commits.
//!
//! Rows are gathered until it is worth opening a file for them; what has few rows never holds one open.

use pype_plugin::Result;
use roaring::RoaringTreemap;

use crate::draft::Draft;
use crate::footer::Footer;
use crate::identity::Identity;
use crate::place::file_name;
use crate::rows::{EventRows, RowsBuilder};
use crate::shelf::{Content, Shelf};

/// Rows are encoded when there are so many …
const GATHERED_ROWS: usize = 8192;
/// … or so many bytes of them.
const GATHERED_BYTES: usize = 1024 * 1024;

/// The rows of one directory.
#[derive(Default)]
pub(crate) struct Bucket {
    gathered: RowsBuilder,
    draft: Option<Draft>,
    sequences: RoaringTreemap,
}

/// A file that only lacks its name.
pub(crate) struct Finished {
    /// Its place below the root.
    pub(crate) key: String,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    pub(crate) footer: Footer,
    pub(crate) content: Content,
}

/// What a bucket is the bucket of.
pub(crate) struct Address<'a> {
    pub(crate) shelf: &'a Shelf,
    pub(crate) identity: &'a Identity,
    pub(crate) directory: &'a str,
}

impl Bucket {
    /// Takes a row. Whether there are enough to be encoded.
    pub(crate) fn push(&mut self, rows: &EventRows, row: usize) -> bool {
        self.gathered.push(rows, row);
        self.sequences.insert(rows.sequence(row));
        self.gathered.len() >= GATHERED_ROWS || self.gathered.bytes() >= GATHERED_BYTES
    }

    /// Encodes what was gathered. The file is opened if it was not.
    pub(crate) fn encode(&mut self, address: &Address<'_>) -> Result<()> {
        if self.gathered.len() == 0 {
            return Ok(());
        }
        let draft = match &mut self.draft {
            Some(draft) => draft,
            None => self.draft.insert(Draft::new(address.shelf.medium(address.directory, address.identity)?)?),
        };
        draft.write(&self.gathered.finish()?)
    }

    pub(crate) fn holds_file(&self) -> bool {
        self.draft.is_some()
    }

    /// How many bytes its file has.
    pub(crate) fn bytes(&self) -> usize {
        self.draft.as_ref().map_or(0, Draft::bytes)
    }

    /// Ends the file, if there are rows. The bucket is empty afterwards.
    pub(crate) fn finish(&mut self, address: &Address<'_>) -> Result<Option<Finished>> {
        self.encode(address)?;
        let (Some(draft), Some(last)) = (self.draft.take(), self.sequences.max()) else { return Ok(None) };
        let mut sequences = std::mem::take(&mut self.sequences);
        sequences.optimize();
        let footer = Footer { identity: address.identity.clone(), sequences };
        let key = format!("{}/{}", address.directory, file_name(last, &address.identity.tag()));
        let rows = footer.sequences.len();
        let (content, bytes) = draft.finish(&footer)?.finish()?;
        Ok(Some(Finished { key, rows, bytes, footer, content }))
    }
}
