//! What librdkafka calls back: which partitions come and go, and how far logs go.
//!
//! All of it runs on the reader's thread, inside `BaseConsumer::poll`.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

use pype_plugin::stream::{Assignment, Committed, Partition, Position, StreamEvent};
use pype_plugin::{Error, ErrorKind, Result};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList, TopicPartitionListElem};
use tokio::sync::{mpsc, oneshot};

use crate::config::failed;
use crate::reach::Reach;

pub(crate) type Consumer = BaseConsumer<Watch>;
pub(crate) type Event = Result<StreamEvent>;

/// How long the offsets of a group may take to come.
const OFFSETS: Duration = Duration::from_secs(30);
/// How often a revocation that waits looks whether the host takes its event.
const LOOK: Duration = Duration::from_millis(10);

/// What is asked of the reader.
pub(crate) enum Command {
    Commit { positions: Vec<Position>, answer: oneshot::Sender<Vec<Committed>> },
    Hold { partitions: Vec<Partition>, held: bool },
    Release { partitions: Vec<Partition> },
    Close,
}

/// The context of the consumer.
pub(crate) struct Watch {
    // The callbacks and the loop that polls are on one thread, and never hold it across a poll. It is a lock only because the
    // callbacks get a shared reference.
    state: Mutex<State>,
    /// How long a revocation waits for the host at most.
    pub(crate) patience: Duration,
    /// The consumer that this is the context of.
    pub(crate) consumer: OnceLock<Weak<Consumer>>,
    /// Who is to look when something comes.
    pub(crate) thread: OnceLock<Thread>,
    /// Whether offsets up to the last stable one count, and not those of open transactions.
    pub(crate) committed_only: bool,
    /// Why the brokers do not let the consumer in, or it does not trust them, if that was ever so.
    pub(crate) locked_out: OnceLock<(KafkaError, String)>,
}

pub(crate) struct State {
    pub(crate) partitions: BTreeMap<Partition, Assigned>,
    /// What the host has not been told yet.
    pub(crate) outbox: VecDeque<Event>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) commands: Receiver<Command>,
    last_epoch: u64,
    pub(crate) closing: bool,
}

/// A partition that is ours.
pub(crate) struct Assigned {
    pub(crate) epoch: u64,
    pub(crate) queue: Arc<Queue>,
    pub(crate) held: bool,
    /// What the statistics said last, until the host has been told.
    pub(crate) news: Option<Extent>,
}

/// What was fetched of a partition, and how far it was read.
pub(crate) struct Queue {
    pub(crate) inner: PartitionQueue<Watch>,
    pub(crate) reach: Reach,
}

/// How far a log goes.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// All records before it had been fetched, at that time.
    pub(crate) read_to: Option<i64>,
    /// One more than the last offset.
    pub(crate) end: Option<i64>,
}

impl Watch {
    pub(crate) fn new(
        events: mpsc::Sender<Event>,
        commands: Receiver<Command>,
        patience: Duration,
        committed_only: bool,
    ) -> Self {
        let state = State {
            partitions: BTreeMap::new(),
            outbox: VecDeque::new(),
            events,
            commands,
            last_epoch: 0,
            closing: false,
        };
        let (state, consumer, thread) = (Mutex::new(state), OnceLock::new(), OnceLock::new());
        Self { state, patience, consumer, thread, committed_only, locked_out: OnceLock::new() }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn assigned(&self, consumer: &Consumer, list: &TopicPartitionList) {
        // What was committed comes with the metadata that librdkafka itself has no use for.
        let asked = consumer.committed_offsets(list.clone(), OFFSETS);
        let committed = asked.unwrap_or_else(|cause| {
            self.state().outbox.push_back(Err(failed("read what the group has committed", &cause).retryable(true)));
            TopicPartitionList::new()
        });
        let consumer = self.consumer.get().and_then(Weak::upgrade).expect("it is polled, so it is there");
        let mut assignments = Vec::with_capacity(list.count());
        for element in list.elements() {
            let partition = named(&element);
            let Some(mut queue) = consumer.split_partition_queue(&partition.topic, partition.partition) else {
                let error = Error::new(ErrorKind::Internal, "no-queue", format!("`{}` has no queue", partition.topic));
                self.state().outbox.push_back(Err(error));
                continue;
            };
            let thread = self.thread.get().cloned();
            queue.set_nonempty_callback(move || thread.iter().for_each(Thread::unpark));
            let found = committed.find_partition(&partition.topic, partition.partition);
            let position = found.as_ref().and_then(|found| match found.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            });
            let mut state = self.state();
            state.last_epoch += 1;
            let epoch = state.last_epoch;
            let queue = Queue { inner: queue, reach: Reach::new(position) };
            let assigned = Assigned { epoch, queue: Arc::new(queue), held: false, news: None };
            state.partitions.insert(partition.clone(), assigned);
            let metadata = found.as_ref().filter(|_| position.is_some()).and_then(metadata_of);
            assignments.push(Assignment { partition, epoch, position, metadata, end: None });
        }
        self.state().outbox.push_back(Ok(StreamEvent::Assigned(assignments)));
    }

    /// Tells the host, and waits until it has committed what it wants to.
    fn revoked(&self, consumer: &Consumer, list: &TopicPartitionList) {
        let partitions: Vec<Partition> = list.elements().iter().map(named).collect();
        let lost = consumer.assignment_lost();
        let mut state = self.state();
        let event = if lost { StreamEvent::Lost(partitions.clone()) } else { StreamEvent::Revoked(partitions.clone()) };
        state.outbox.push_back(Ok(event));
        if !lost && !state.closing {
            state.wait_for_release(consumer, &partitions, Instant::now() + self.patience);
        }
        for partition in &partitions {
            state.partitions.remove(partition);
        }
    }
}

impl State {
    /// Gives the host what it takes. Whether there is room for more.
    pub(crate) fn deliver(&mut self) -> bool {
        while let Some(event) = self.outbox.pop_front() {
            if let Err(refused) = self.events.try_send(event) {
                let event = match refused {
                    mpsc::error::TrySendError::Full(event) | mpsc::error::TrySendError::Closed(event) => event,
                };
                self.outbox.push_front(event);
                return false;
            }
        }
        true
    }

    fn wait_for_release(&mut self, consumer: &Consumer, partitions: &[Partition], until: Instant) {
        let mut waiting: Vec<&Partition> = partitions.iter().collect();
        while !waiting.is_empty() && Instant::now() < until {
            self.deliver();
            match self.commands.recv_timeout(LOOK) {
                Ok(Command::Release { partitions }) => waiting.retain(|one| !partitions.contains(one)),
                // Whoever asked may be gone by now.
                Ok(Command::Commit { positions, answer }) => drop(answer.send(self.commit(consumer, positions))),
                Ok(Command::Hold { partitions, held }) => self.hold(&partitions, held),
                Ok(Command::Close) => {
                    self.closing = true;
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        if !waiting.is_empty() {
            tracing::warn!("{} partitions are given away before what was under way has ended", waiting.len());
        }
    }

    pub(crate) fn hold(&mut self, partitions: &[Partition], held: bool) {
        for partition in partitions {
            if let Some(assigned) = self.partitions.get_mut(partition) {
                assigned.held = held;
            }
        }
    }

    /// Commits those positions whose assignment is still the current one. It waits for the broker: as long as it does, no
    /// rebalance can come in between, with whose generation librdkafka would stamp what the partition's next owner must not find.
    pub(crate) fn commit(&self, consumer: &Consumer, positions: Vec<Position>) -> Vec<Committed> {
        let mut list = TopicPartitionList::with_capacity(positions.len());
        let (mut answers, mut asked) = (Vec::with_capacity(positions.len()), Vec::with_capacity(positions.len()));
        for Position { partition, epoch, offset, metadata } in positions {
            let current = self.partitions.get(&partition).is_some_and(|assigned| assigned.epoch == epoch);
            let added = if current { add(&mut list, &partition, offset, &metadata) } else { Err(stale()) };
            match added {
                Ok(()) => asked.push(partition),
                Err(error) => answers.push(Committed { partition, error: Some(error) }),
            }
        }
        if !asked.is_empty() {
            let outcome = consumer.commit(&list, CommitMode::Sync).map_err(|cause| failed("commit", &cause));
            answers.extend(asked.into_iter().map(|partition| Committed { partition, error: outcome.clone().err() }));
        }
        answers
    }
}

fn add(list: &mut TopicPartitionList, partition: &Partition, offset: i64, metadata: &str) -> Result<()> {
    let mut element = list.add_partition(&partition.topic, partition.partition);
    element.set_metadata(metadata);
    element.set_offset(Offset::Offset(offset)).map_err(|cause| failed(&format!("commit the offset {offset}"), &cause))
}

fn stale() -> Error {
    Error::new(ErrorKind::Unavailable, "stale-epoch", "the partition has been assigned anew, or is no longer assigned")
}

fn named(element: &TopicPartitionListElem<'_>) -> Partition {
    Partition { topic: element.topic().to_owned(), partition: element.partition() }
}

/// The metadata, if it is text. The crate panics at any other, which some other member of the group may well have written.
fn metadata_of(element: &TopicPartitionListElem<'_>) -> Option<String> {
    let metadata = catch_unwind(AssertUnwindSafe(|| element.metadata().to_owned())).ok()?;
    (!metadata.is_empty()).then_some(metadata)
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        // That a partition is read to its end is no error.
        if code != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!("{error}: {reason}");
        }
        if matches!(code, Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)) {
            self.locked_out.get_or_init(|| (error, reason.to_owned()));
        }
    }

    fn stats(&self, statistics: Statistics) {
        let mut state = self.state();
        for (partition, assigned) in &mut state.partitions {
            let topic = statistics.topics.get(&partition.topic);
            let Some(told) = topic.and_then(|topic| topic.partitions.get(&partition.partition)) else { continue };
            let end = if self.committed_only { told.ls_offset } else { told.hi_offset };
            // What is not known yet is negative.
            let known = |offset: i64| (offset >= 0).then_some(offset);
            assigned.news = Some(Extent { read_to: known(told.eof_offset), end: known(end) });
        }
    }
}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, consumer: &Consumer, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.assigned(consumer, list),
            Rebalance::Revoke(list) => self.revoked(consumer, list),
            Rebalance::Error(cause) => self.state().outbox.push_back(Err(failed("rebalance", cause).retryable(true))),
        }
        self.wake();
    }
}

/// A line of librdkafka's log.
pub(crate) fn log_line(level: RDKafkaLogLevel, facility: &str, line: &str) {
    use RDKafkaLogLevel as Level;
    match level {
        Level::Emerg | Level::Alert | Level::Critical | Level::Error => tracing::error!("{facility}: {line}"),
        Level::Warning => tracing::warn!("{facility}: {line}"),
        Level::Notice | Level::Info => tracing::info!("{facility}: {line}"),
        Level::Debug => tracing::debug!("{facility}: {line}"),
    }
}
