//! The streams that events have come from so far.

use std::collections::HashMap;

use pype_plugin::Result;
use roaring::RoaringTreemap;

use crate::identity::Identity;
use crate::rows::EventRows;
use crate::shelf::{Hold, Shelf};
use crate::written::Written;

/// A stream, and what is known of it.
pub(crate) struct Stream {
    pub(crate) identity: Identity,
    /// What is in files.
    pub(crate) written: Written,
    /// What waits for the commit.
    pub(crate) pending: RoaringTreemap,
    tag: String,
}

impl Stream {
    fn new(identity: Identity) -> Self {
        let tag = identity.stream_tag();
        Self { identity, written: Written::default(), pending: RoaringTreemap::new(), tag }
    }

    /// Whether the stream is its writer's between commits too. A partition of Kafka may move to another writer at any time,
    /// and a stream of JetStream has one consumer.
    fn is_kept(&self) -> bool {
        !self.identity.created.is_empty()
    }
}

/// All of them, by their place in the order of their coming.
#[derive(Default)]
pub(crate) struct Streams {
    all: Vec<Stream>,
    /// The right to write each, by its tag: a stream that is made anew is under the same.
    holds: HashMap<String, Hold>,
}

impl Streams {
    /// The streams of the rows, each one ready. For each row, which.
    pub(crate) fn of(&mut self, rows: &EventRows, created: &str, shelf: &Shelf) -> Result<Vec<usize>> {
        let mut places = Vec::with_capacity(rows.len());
        let mut firsts: HashMap<usize, u64> = HashMap::new();
        for row in 0..rows.len() {
            let last = places.last().copied();
            let place = self.place(rows.topic(row), rows.partition(row), created, last);
            let sequence = rows.sequence(row);
            firsts.entry(place).and_modify(|first| *first = sequence.min(*first)).or_insert(sequence);
            places.push(place);
        }
        for (place, first) in firsts {
            self.hold(place, shelf)?;
            let Stream { identity, written, .. } = &mut self.all[place];
            written.reach(first, identity, shelf)?;
        }
        Ok(places)
    }

    pub(crate) fn at(&mut self, place: usize) -> &mut Stream {
        &mut self.all[place]
    }

    /// Ends what waits for a commit. After a failure nothing is believed that was known before.
    pub(crate) fn settle(&mut self, succeeded: bool) {
        for stream in &mut self.all {
            stream.pending.clear();
            if !succeeded {
                stream.written.forget();
            }
        }
        let all = &self.all;
        self.holds.retain(|tag, _| all.iter().any(|stream| stream.is_kept() && stream.tag == *tag));
    }

    /// Lets other writers in.
    pub(crate) fn release(&mut self) {
        self.all.clear();
        self.holds.clear();
    }

    /// Makes sure that this is the stream's one writer.
    fn hold(&mut self, place: usize, shelf: &Shelf) -> Result<()> {
        let Stream { tag, identity, .. } = &self.all[place];
        if self.holds.contains_key(tag) {
            return Ok(());
        }
        let (tag, (hold, is_new)) = (tag.clone(), shelf.hold(identity)?);
        if is_new {
            let identity = identity.clone();
            self.all.iter_mut().filter(|stream| stream.tag == tag).for_each(|stream| stream.written.forget());
            shelf.sweep(&identity)?;
        }
        self.holds.insert(tag, hold);
        Ok(())
    }

    fn place(&mut self, topic: &str, partition: i32, created: &str, guess: Option<usize>) -> usize {
        let is = |stream: &Stream| {
            let Identity { stream, partition: number, created: made } = &stream.identity;
            *number == partition && stream == topic && made == created
        };
        if let Some(guess) = guess.filter(|guess| is(&self.all[*guess])) {
            return guess;
        }
        self.all.iter().position(is).unwrap_or_else(|| {
            self.all.push(Stream::new(Identity { stream: topic.to_owned(), partition, created: created.to_owned() }));
            self.all.len() - 1
        })
    }
}
