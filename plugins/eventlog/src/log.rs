//! The event log itself: rows in, files out, without async.

use std::collections::HashMap;

use arrow_array::RecordBatch;
use pype_plugin::{Commit, Error, ErrorKind, Result};

use crate::bucket::{Address, Bucket, Finished};
use crate::place::{Hour, directory};
use crate::rows::EventRows;
use crate::shelf::{Published, Shelf};
use crate::standing::Standing;
use crate::streams::Streams;

/// One writer of an event log.
pub(crate) struct EventLog {
    // Files before the locks: what is left of a batch goes while nobody else may write.
    buckets: HashMap<(usize, Hour), HashMap<String, Bucket>>,
    /// With the place of their streams.
    finished: Vec<(usize, Finished)>,
    streams: Streams,
    shelf: Shelf,
    standing: Standing,
    open_files: usize,
    skipped: u64,
}

/// What a commit made visible, and the rows that were there already.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    pub(crate) files: Vec<Commit>,
    pub(crate) skipped: u64,
}

impl EventLog {
    /// A writer that encodes into so many files at a time, at most.
    pub(crate) fn new(shelf: Shelf, open_files: usize) -> Self {
        Self {
            buckets: HashMap::new(),
            finished: Vec::new(),
            streams: Streams::default(),
            shelf,
            standing: Standing::default(),
            open_files: open_files.max(1),
            skipped: 0,
        }
    }

    /// A batch begins, or goes on.
    pub(crate) fn write_begins(&mut self) {
        self.standing.write_begins();
    }

    /// A batch is over, for now.
    pub(crate) fn write_ends(&mut self, succeeded: bool) {
        self.standing.write_ends(succeeded);
        if !succeeded {
            self.abandon(false);
        }
    }

    /// Takes rows of a stream that was made then.
    pub(crate) fn write(&mut self, batch: &RecordBatch, created: &str) -> Result<()> {
        let rows = EventRows::try_from(batch)?;
        let places = self.streams.of(&rows, created, &self.shelf)?;
        for (row, place) in places.into_iter().enumerate() {
            let stream = self.streams.at(place);
            let sequence = rows.sequence(row);
            if stream.written.contains(sequence) || !stream.pending.insert(sequence) {
                self.skipped += 1;
                continue;
            }
            self.put(&rows, row, place)?;
        }
        Ok(())
    }

    /// Gives all that was written a name.
    pub(crate) fn commit(&mut self) -> Result<Committed> {
        let committed = match self.standing.may_commit() {
            true => self.publish(),
            false => {
                Err(Error::new(ErrorKind::Io, "rows-lost", "a write or a commit has failed, and its rows are gone")
                    .retryable(true)
                    .hint("the records are not acknowledged, so they come again"))
            }
        };
        self.standing.commit_ends(committed.is_ok());
        self.abandon(committed.is_ok());
        committed
    }

    /// Ends it: what is not committed goes, and others may write.
    pub(crate) fn close(&mut self) {
        self.abandon(false);
        self.streams.release();
    }

    /// Throws away what is not committed.
    pub(crate) fn abandon(&mut self, succeeded: bool) {
        self.buckets.clear();
        self.finished.clear();
        self.streams.settle(succeeded);
        self.skipped = 0;
    }

    fn put(&mut self, rows: &EventRows, row: usize, place: usize) -> Result<()> {
        let (simulation, hour) = (rows.simulation_id(row), Hour::of(rows.timestamp_ns(row)));
        let simulations = self.buckets.entry((place, hour)).or_default();
        let bucket = match simulations.get_mut(simulation) {
            Some(bucket) => bucket,
            None => simulations.entry(simulation.to_owned()).or_default(),
        };
        if bucket.push(rows, row) {
            let (identity, directory) = (&self.streams.at(place).identity, &directory(simulation, hour));
            bucket.encode(&Address { shelf: &self.shelf, identity, directory })?;
            self.bound_open_files()?;
        }
        Ok(())
    }

    /// Ends the largest file if there are too many.
    fn bound_open_files(&mut self) -> Result<()> {
        let open = || self.buckets.iter().flat_map(|(at, all)| all.iter().map(move |(id, bucket)| (*at, id, bucket)));
        if open().filter(|(_, _, bucket)| bucket.holds_file()).count() <= self.open_files {
            return Ok(());
        }
        let largest = open().max_by_key(|(_, _, bucket)| bucket.bytes());
        let Some((at, simulation)) = largest.map(|(at, id, _)| (at, id.clone())) else { return Ok(()) };
        self.finish(at, &simulation)
    }

    fn finish(&mut self, at: (usize, Hour), simulation: &str) -> Result<()> {
        let Some(bucket) = self.buckets.get_mut(&at).and_then(|all| all.get_mut(simulation)) else { return Ok(()) };
        let (identity, directory) = (&self.streams.at(at.0).identity, &directory(simulation, at.1));
        let finished = bucket.finish(&Address { shelf: &self.shelf, identity, directory })?;
        self.finished.extend(finished.map(|finished| (at.0, finished)));
        Ok(())
    }

    fn publish(&mut self) -> Result<Committed> {
        let left = self.buckets.iter().flat_map(|(at, all)| all.keys().map(|simulation| (*at, simulation.clone())));
        for (at, simulation) in left.collect::<Vec<_>>() {
            self.finish(at, &simulation)?;
        }
        self.finished.sort_by(|(_, one), (_, other)| one.key.cmp(&other.key));
        let mut committed = Committed { files: Vec::new(), skipped: self.skipped };
        let published = self.shelf.publish(self.finished.iter().map(|(_, file)| file));
        for ((_, file), published) in self.finished.iter().zip(published) {
            match published? {
                Published::New => committed.files.push(self.told(file)),
                Published::There => committed.skipped += file.rows,
            }
        }
        self.shelf.settle(self.finished.iter().map(|(_, file)| file.key.as_str()))?;
        for (place, file) in &self.finished {
            self.streams.at(*place).written.add(&file.footer.sequences);
        }
        Ok(committed)
    }

    fn told(&self, file: &Finished) -> Commit {
        Commit { rows: Some(file.rows), bytes: Some(file.bytes), uri: Some(self.shelf.uri(&file.key)) }
    }
}
