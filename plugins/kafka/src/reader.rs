//! The thread that owns a consumer.
//!
//! Each partition has a queue of its own ([`BaseConsumer::split_partition_queue`]), so that one that is held keeps what it has
//! prefetched: pausing it in librdkafka would throw that away. The thread sleeps until a queue has something, or somebody asks.
//!
//! [`BaseConsumer::split_partition_queue`]: rdkafka::consumer::BaseConsumer::split_partition_queue

use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::thread;
use std::time::Duration;

use pype_plugin::stream::{NewRecord, Partition, Progressed, RecordsBuilder, StreamEvent};
use rdkafka::Message as _;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers as _};
use rdkafka::topic_partition_list::Offset;

use crate::config::failed;
use crate::rebalance::{Command, Consumer, Queue};

/// A batch has so many records at most.
const BATCH_RECORDS: usize = 1000;
/// Or so many bytes, and one record more.
const BATCH_BYTES: usize = 4 << 20;
/// So many of one partition, before another has its turn.
const TURN: usize = 250;
/// The thread looks after so long even if nobody wakes it.
const NAP: Duration = Duration::from_millis(100);

pub(crate) struct Reader {
    consumer: Arc<Consumer>,
    batch: RecordsBuilder,
    /// Where the next batch begins, so that every partition has its turn.
    turn: usize,
}

impl Reader {
    pub(crate) fn new(consumer: Arc<Consumer>) -> Self {
        Self { consumer, batch: RecordsBuilder::default(), turn: 0 }
    }

    /// Reads until it is told to close.
    pub(crate) fn run(mut self) {
        let woken = self.consumer.context().thread.set(thread::current());
        woken.expect("a consumer has one reader");
        while self.obey() {
            let room = self.consumer.context().state().deliver();
            let read = room && self.read();
            // The batch is empty here, so that what a rebalance announces comes after all that was read before it.
            let served = self.serve();
            if !read && !served {
                thread::park_timeout(NAP);
            }
        }
        // The queues hold the consumer, which holds its context, which holds the queues.
        self.consumer.context().state().partitions.clear();
    }

    /// Does what is asked; whether to go on.
    fn obey(&self) -> bool {
        let mut state = self.consumer.context().state();
        loop {
            match state.commands.try_recv() {
                Ok(Command::Commit { positions, answer }) => {
                    // Whoever asked may be gone by now.
                    drop(answer.send(state.commit(&self.consumer, positions)));
                }
                Ok(Command::Hold { partitions, held }) => state.hold(&partitions, held),
                // The revocation has not waited so long.
                Ok(Command::Release { .. }) => {}
                Err(TryRecvError::Empty) => return !state.closing,
                Ok(Command::Close) | Err(TryRecvError::Disconnected) => {
                    state.closing = true;
                    return false;
                }
            }
        }
    }

    /// Takes a batch from the partitions' queues; whether there was anything.
    fn read(&mut self) -> bool {
        let mut queues: Vec<Arc<Queue>> = {
            let state = self.consumer.context().state();
            state.partitions.values().filter(|one| !one.held).map(|one| one.queue.clone()).collect()
        };
        if queues.is_empty() {
            return false;
        }
        self.turn = (self.turn + 1) % queues.len();
        queues.rotate_left(self.turn);
        let mut read = false;
        while !queues.is_empty() && !self.is_full() {
            queues.retain(|queue| {
                let full = self.drain(queue);
                read |= full > 0;
                full == TURN
            });
        }
        let drained = !self.is_full();
        self.flush();
        if drained {
            self.tell_progress();
        }
        read
    }

    fn is_full(&self) -> bool {
        self.batch.len() >= BATCH_RECORDS || self.batch.bytes() >= BATCH_BYTES
    }

    /// Takes a turn's records from a queue; how many there were.
    fn drain(&mut self, queue: &Queue) -> usize {
        for taken in 0..TURN {
            if self.is_full() {
                // Not known to be empty.
                return TURN;
            }
            match queue.inner.poll(Duration::ZERO) {
                Some(Err(KafkaError::PartitionEOF(_))) => queue.reach.at_end(),
                Some(message) => {
                    if let Ok(message) = &message {
                        queue.reach.read(message.offset());
                    }
                    self.take(message);
                }
                None => return taken,
            }
        }
        TURN
    }

    fn take(&mut self, message: KafkaResult<BorrowedMessage<'_>>) {
        match message {
            Ok(message) => push(&mut self.batch, &message),
            Err(cause) => {
                self.consumer.context().state().outbox.push_back(Err(failed("read", &cause)));
            }
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            let records = StreamEvent::Records(self.batch.finish_frame());
            self.consumer.context().state().outbox.push_back(Ok(records));
        }
    }

    /// Passes on how far partitions were read, and what the statistics said. The batch is in the outbox by then.
    fn tell_progress(&self) {
        let mut state = self.consumer.context().state();
        let mut told = Vec::new();
        for (partition, assigned) in &mut state.partitions {
            let Some(news) = assigned.news.take() else { continue };
            let position = assigned.queue.reach.next();
            told.push(Progressed { partition: partition.clone(), epoch: assigned.epoch, position, end: news.end });
            let again = news.read_to.filter(|_| !assigned.held).and_then(|end| assigned.queue.reach.fetch_again(end));
            if let Some(next) = again {
                let (topic, offset) = (&partition.topic, Offset::Offset(next));
                // It does not wait. While partitions change hands it may be refused: then it seems so again.
                if self.consumer.seek(topic, partition.partition, offset, Duration::ZERO).is_err() {
                    assigned.queue.reach.not_asked();
                }
            }
        }
        if !told.is_empty() {
            state.outbox.push_back(Ok(StreamEvent::Progress(told)));
        }
    }

    /// Lets librdkafka call back; whether there was a record too, from before its partition had a queue.
    fn serve(&mut self) -> bool {
        let Some(message) = self.consumer.poll(Duration::ZERO) else { return false };
        if let Ok(message) = &message {
            let partition = Partition { topic: message.topic().to_owned(), partition: message.partition() };
            if !self.consumer.context().state().partitions.contains_key(&partition) {
                return true;
            }
        }
        match message {
            Ok(message) => push(&mut self.batch, &message),
            Err(KafkaError::PartitionEOF(_)) => return true,
            Err(cause) => {
                self.consumer.context().state().outbox.push_back(Err(failed("read", &cause)));
                return true;
            }
        }
        self.flush();
        true
    }
}

fn push(batch: &mut RecordsBuilder, message: &BorrowedMessage<'_>) {
    let record = NewRecord {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key(),
        value: message.payload(),
    };
    let headers = message.headers();
    let headers = headers.iter().flat_map(|headers| headers.iter()).map(|header| (header.key, header.value));
    batch.push(record, headers);
}
