//! Lines: ordered jobs of a shard, of which the first may be lent.

use pype_plugin::prelude::*;

use super::JetStream;
use super::keys::{job_key, line, place_key};
use crate::bucket::Entry;
use crate::record::Record;

/// Whether an ordered job may be lent.
pub(super) enum Place {
    /// It is: at the head of its line, which is this revision, or in none.
    Head(Option<u64>),
    /// It has others before it.
    Behind,
}

impl JetStream {
    /// Whether a job has no other before it in its line, from which those are taken that are over.
    pub(super) async fn place(&self, record: &Record) -> Result<Place> {
        if !record.ordered {
            return Ok(Place::Head(None));
        }
        loop {
            let Some(first) = self.bucket.first(&format!("{}.*", line(&record.job)?)).await? else {
                self.queue_up(record).await?;
                continue;
            };
            let head = text(&first)?;
            if head == record.job.id {
                return Ok(Place::Head(Some(first.revision)));
            }
            match self.read(&job_key(&head)?).await? {
                Some((head, revision)) if head.is_over() => {
                    // Who is about to retry it by hand fails now, and queues it up anew.
                    if self.replace(&head, revision).await?.is_some() {
                        self.bucket.remove(first.revision).await?;
                    }
                }
                Some(_) => {
                    self.queue_up(record).await?;
                    return Ok(Place::Behind);
                }
                None => drop(self.bucket.remove(first.revision).await?),
            }
        }
    }

    /// Gives an ordered job a place in its line, if it has none.
    pub(super) async fn queue_up(&self, record: &Record) -> Result<()> {
        if record.ordered {
            self.bucket.create(&place_key(&record.job)?, record.job.id.clone().into()).await?;
        }
        Ok(())
    }

    /// Gives an ordered job the last place in its line.
    pub(super) async fn queue_up_again(&self, record: &Record) -> Result<Option<u64>> {
        match record.ordered {
            true => Ok(Some(self.bucket.put(&place_key(&record.job)?, record.job.id.clone().into()).await?)),
            false => Ok(None),
        }
    }

    /// The place of an ordered job in its line.
    pub(super) async fn place_of(&self, record: &Record) -> Result<Option<u64>> {
        match record.ordered {
            true => Ok(self.bucket.get(&place_key(&record.job)?).await?.map(|place| place.revision)),
            false => Ok(None),
        }
    }

    /// Takes a job that is over from its line, and wakes the next.
    pub(super) async fn leave(&self, record: &Record) -> Result<()> {
        if let Some(place) = record.place {
            self.bucket.remove(place).await?;
        }
        match self.bucket.first(&format!("{}.*", line(&record.job)?)).await? {
            Some(next) => self.hints.give(&record.job.pipeline, &text(&next)?, 0).await,
            None => Ok(()),
        }
    }
}

fn text(entry: &Entry) -> Result<String> {
    String::from_utf8(entry.value.to_vec()).map_err(|_| {
        Error::new(ErrorKind::Data, "queue-damaged", "a line of ordered jobs holds what is no name of a job")
    })
}
