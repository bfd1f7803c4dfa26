//! What a running write has done, for the progress display, and whether it should go on.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use polars::io::utils::file::WritableTrait;
use pype_plugin::prelude::*;
use pype_plugin::{CancelToken, Progress};

use crate::failure::CANCELLED;

/// Rows and bytes so far. Shared by the row counter and, where there is one, the writer.
#[derive(Clone)]
pub(crate) struct Tally {
    rows: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
    progress: Progress,
    cancel: CancelToken,
}

impl Tally {
    pub(crate) fn new(ctx: &Context) -> Self {
        Self {
            rows: Arc::default(),
            bytes: Arc::default(),
            progress: ctx.progress_handle(),
            cancel: ctx.cancellation(),
        }
    }

    /// Adds rows that are on their way to the file. An error once the run is cancelled.
    pub(crate) fn add_rows(&self, rows: u64) -> io::Result<()> {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.report();
        self.go_on()
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    fn add_bytes(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.report();
    }

    fn report(&self) {
        self.progress.report(self.rows.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
    }

    fn go_on(&self) -> io::Result<()> {
        if self.cancel.is_cancelled() { Err(io::Error::other(CANCELLED)) } else { Ok(()) }
    }
}

/// A file that counts what is written to it.
pub(crate) struct TallyingWriter {
    file: File,
    tally: Tally,
}

impl TallyingWriter {
    pub(crate) fn new(file: File, tally: Tally) -> Self {
        Self { file, tally }
    }
}

impl Write for TallyingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tally.go_on()?;
        let written = self.file.write(bytes)?;
        self.tally.add_bytes(written);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl WritableTrait for TallyingWriter {
    fn close(&mut self) -> io::Result<()> {
        self.tally.go_on()?;
        self.file.flush()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
