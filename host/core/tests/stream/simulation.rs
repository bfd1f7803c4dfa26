//! Groups of consumers over logs with holes, through rebalances, crashes and commits that fail, against a naive model of
//! what a broker keeps and what has been done. A seed says everything that happens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use pype_core::retry::{Retry, RetryOn};
use pype_core::stream::Step;
use pype_core::stream::admission::Limits;
use pype_core::stream::control::{
    Acknowledge, Commit, Control, Delivery, Epoch, Flow, Options, Outcome, Partition, Settled, Start, Work,
};
use pype_core::stream::lanes::Ordering;
use pype_core::stream::metadata;

use super::stage::{attempts, size};

const SEEDS: u64 = 2500;

#[test]
fn nothing_is_lost_nothing_is_out_of_order_whatever_happens() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        let mut group = Group::new(seed);
        for _ in 0..200 {
            group.step();
        }
        group.come_to_rest();
        seen.add(&group.seen);
    }
    // A simulation in which something never happens proves nothing about it.
    let Seen { done, before, again, stale, dead, left, crashes, held_back, followed, taken_back, given_back } = seen;
    let all = [done, before, again, stale, dead, left, crashes, held_back, followed, taken_back, given_back];
    assert!(all.iter().all(|count| *count > SEEDS / 10), "{seen:?}");
}

/// How often what has happened.
#[derive(Debug, Default)]
struct Seen {
    done: u64,
    before: u64,
    again: u64,
    stale: u64,
    dead: u64,
    left: u64,
    crashes: u64,
    held_back: u64,
    /// Begun by those who had the one before.
    followed: u64,
    taken_back: u64,
    given_back: u64,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        self.done += other.done;
        self.before += other.before;
        self.again += other.again;
        self.stale += other.stale;
        self.dead += other.dead;
        self.left += other.left;
        self.crashes += other.crashes;
        self.held_back += other.held_back;
        self.followed += other.followed;
        self.taken_back += other.taken_back;
        self.given_back += other.given_back;
    }
}

type Key = Option<u8>;

/// What the broker has of a partition, and what became of its records.
#[derive(Default)]
struct Log {
    /// Offsets without an entry hold no record.
    records: BTreeMap<u64, Key>,
    end: u64,
    position: u64,
    metadata: String,
    /// Handled, or their dead letter published: by whomever, whether that counted or not.
    done: BTreeSet<u64>,
}

/// What a consumer knows of a partition it owns, as a naive person would write it down.
struct Owned {
    epoch: Epoch,
    read_to: u64,
    paused: bool,
    /// Complete according to the commit that this epoch began with.
    covered: BTreeSet<u64>,
    /// Delivered, to be run, not complete.
    open: BTreeSet<u64>,
    /// Complete beyond the position it began at, in this epoch or by that commit.
    complete: BTreeSet<u64>,
    draining: bool,
}

struct Consumer {
    control: Control<u64>,
    owned: BTreeMap<u32, Owned>,
    /// The first of each is being worked on; the others follow it.
    in_hand: Vec<VecDeque<Work<u64>>>,
    /// Commits that the broker has taken, and the consumer does not know it yet.
    unanswered: Vec<Commit>,
}

struct Group {
    numbers: Numbers,
    options: Options,
    logs: Vec<Log>,
    consumers: Vec<Consumer>,
    now: Duration,
    seen: Seen,
}

impl Group {
    fn new(seed: u64) -> Group {
        let mut numbers = Numbers(seed);
        let max_in_flight = numbers.below(12) + 1;
        let mut limits = Limits::of(size(max_in_flight as usize));
        limits.running = size(numbers.below(6) as usize + 1);
        limits.remembered = size(numbers.below(40) as usize + 5);
        let options = Options {
            ordering: [Ordering::Key, Ordering::Key, Ordering::Partition, Ordering::Unordered][(seed % 4) as usize],
            acknowledge: Acknowledge::Position,
            limits,
            retry: Retry {
                attempts: attempts(numbers.below(3) as u32 + 1),
                on: RetryOn::Retryable,
                ..Retry::default()
            },
            dead_letters: true,
            seed,
        };
        let logs = (0..=numbers.below(3)).map(|_| Log::starting_at(numbers.below(2) * 5000)).collect();
        let consumers = (0..=numbers.below(3)).map(|_| Consumer::new(options)).collect();
        let mut group = Group { numbers, options, logs, consumers, now: Duration::ZERO, seen: Seen::default() };
        for partition in 0..group.logs.len() {
            group.give_away(partition as u32);
        }
        group
    }

    fn step(&mut self) {
        let consumer = self.numbers.below(self.consumers.len() as u64) as usize;
        match self.numbers.below(100) {
            0..12 => self.append(),
            12..38 => drop(self.read(consumer)),
            38..58 => drop(self.start(consumer)),
            58..82 => drop(self.end_one(consumer, true)),
            82..90 => self.commit(consumer, true),
            90..92 => self.answer(consumer),
            92..95 => self.now += Duration::from_millis(self.numbers.below(2000)),
            95..97 => self.revoke_one(consumer),
            97..99 => self.lose_one(consumer),
            _ => self.crash(consumer),
        }
        self.consumers[consumer].check(self.now);
    }

    /// No more faults: all that is in the logs is worked off, and committed.
    fn come_to_rest(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "it does not come to rest");
            for consumer in 0..self.consumers.len() {
                self.finish_draining(consumer);
                self.answer(consumer);
                while self.read(consumer) {}
                while self.start(consumer) {}
                while self.end_one(consumer, false) {}
                self.commit(consumer, false);
            }
            let due = self.consumers.iter_mut().filter_map(|consumer| consumer.control.wake()).min();
            self.now = due.map_or(self.now, |due| due.max(self.now));
            if self.logs.iter().all(|log| log.position == log.end) {
                break;
            }
        }
        for consumer in &self.consumers {
            let state = consumer.control.state(self.now);
            for partition in state.partitions {
                assert_eq!((partition.lag, partition.blocking_offset), (Some(0), None));
            }
            assert!(consumer.control.is_idle());
            assert_eq!((state.running, state.lanes), (0, 0));
            assert_eq!(consumer.control.commits(), []);
        }
        for log in &self.logs {
            assert!(log.records.keys().all(|offset| log.done.contains(offset)));
            assert_eq!(log.metadata, "");
        }
    }

    /// A few records, with holes among them; sometimes nothing but holes, as an aborted transaction leaves them.
    fn append(&mut self) {
        let number = self.numbers.below(self.logs.len() as u64) as usize;
        let log = &mut self.logs[number];
        let aborted = self.numbers.below(5) == 0;
        for _ in 0..self.numbers.below(8) {
            if !aborted && self.numbers.below(6) > 0 {
                let key = Some(self.numbers.below(4) as u8).filter(|key| *key > 0);
                log.records.insert(log.end, key);
            }
            log.end += 1;
        }
    }

    /// False if there was nothing to read.
    fn read(&mut self, consumer: usize) -> bool {
        let Consumer { control, owned, .. } = &mut self.consumers[consumer];
        let mut any = false;
        for (number, one) in owned.iter_mut().filter(|(_, one)| !one.paused && !one.draining) {
            let (partition, log) = (Partition(*number), &self.logs[*number as usize]);
            assert!(control.log_end(partition, one.epoch, log.end));
            let next = log.records.range(one.read_to..).next();
            any |= one.read_to < log.end;
            let Some((offset, key)) = next else {
                assert!(control.advance(partition, one.epoch, log.end));
                one.read_to = log.end;
                continue;
            };
            one.read_to = offset + 1;
            let key = key.map(|key| [key]);
            let key = key.as_ref().map(<[u8; 1]>::as_slice);
            match control.deliver(partition, one.epoch, *offset, key, *offset, self.now) {
                Delivery::Queued => {
                    assert!(!one.covered.contains(offset), "it was done before");
                    one.open.insert(*offset);
                }
                Delivery::DoneBefore => {
                    assert!(one.covered.contains(offset), "nobody had done it");
                    self.seen.before += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        for (partition, flow) in control.flow() {
            owned.get_mut(&partition.0).expect("it is owned").paused = flow == Flow::Pause;
            self.seen.held_back += 1;
        }
        any
    }

    /// False if nothing could start.
    fn start(&mut self, consumer: usize) -> bool {
        let one = &mut self.consumers[consumer];
        let Some(work) = one.control.next(self.now) else { return false };
        let Work { id, partition, offset, step, .. } = work;
        let owned = &one.owned[&partition.0];
        let log = &self.logs[partition.0 as usize];
        assert!(owned.epoch == work.epoch && !owned.draining && owned.open.contains(&offset));
        let lane = |offset: &u64| match self.options.ordering {
            Ordering::Key => log.records[offset].map(u32::from),
            Ordering::Partition => Some(0),
            Ordering::Unordered => None,
        };
        let mut in_hand = one.in_hand.iter().flatten();
        assert!(in_hand.clone().all(|other| other.id != id));
        let mut run = VecDeque::from([work]);
        run.extend(one.control.followers(id, self.numbers.below(4) as usize));
        match lane(&offset) {
            Some(key) => {
                let of_lane = owned.open.iter().filter(|other| lane(other) == Some(key));
                assert!(of_lane.zip(&run).all(|(offset, work)| work.offset == *offset), "not in the order of its key");
                assert!(run.iter().zip(0..).all(|(work, at)| work.follows == (at > 0) && work.partition == partition));
                let is_it = |other: &Work<u64>| other.partition == partition && lane(&other.offset) == Some(key);
                assert!(!in_hand.any(is_it), "two of a key at once");
            }
            None => assert_eq!(run.len(), 1, "it is in no order"),
        }
        match step {
            Step::Handle => {
                assert!(one.running() < self.options.limits.running.get());
                self.seen.again += run.iter().filter(|work| log.done.contains(&work.offset)).count() as u64;
            }
            Step::DeadLetter => assert_eq!(run.len(), 1, "nothing begins when it is published"),
        }
        one.in_hand.push(run);
        true
    }

    /// False if nothing was in hand.
    fn end_one(&mut self, consumer: usize, faults: bool) -> bool {
        let one = &mut self.consumers[consumer];
        if one.in_hand.is_empty() {
            return false;
        }
        let chosen = self.numbers.below(one.in_hand.len() as u64) as usize;
        let chance = if faults { self.numbers.below(10) } else { 0 };
        let run = &mut one.in_hand[chosen];
        let is_stale = |work: &Work<u64>| one.owned.get(&work.partition.0).is_none_or(|own| own.epoch != work.epoch);
        if faults && run.len() > 1 && self.numbers.below(8) == 0 {
            let back = run.split_off(1 + self.numbers.below(run.len() as u64 - 1) as usize);
            let settled = one.control.completed(back[0].id, Outcome::NotRun, self.now, 0.5);
            assert_eq!(settled == Settled::Stale, is_stale(&back[0]), "{settled:?}");
            self.seen.given_back += 1;
            return true;
        }
        let work = &run[0];
        let (id, partition, offset) = (work.id, work.partition, work.offset);
        let log = &mut self.logs[partition.0 as usize];
        let random = 0.5;
        let settled = match (work.step, chance) {
            (Step::Handle, 0..6) => {
                log.done.insert(offset);
                one.control.completed(id, Outcome::Done, self.now, random)
            }
            (Step::Handle, 6) => one.control.completed(id, Outcome::NotRun, self.now, random),
            (Step::Handle, chance) => {
                one.control.completed(id, Outcome::Failed { retryable: chance < 9 }, self.now, random)
            }
            (Step::DeadLetter, 0..6) => {
                log.done.insert(offset);
                self.seen.dead += 1;
                one.control.dead_lettered(id, self.now)
            }
            (Step::DeadLetter, _) => one.control.dead_letter_failed(id, self.now, random),
        };
        assert_eq!(settled == Settled::Stale, is_stale(work), "{settled:?}");
        if chance < 6 {
            run.pop_front();
            self.seen.followed += u64::from(!run.is_empty());
        } else {
            self.seen.taken_back += u64::from(run.len() > 1);
            run.truncate(usize::from(settled == Settled::DeadLetter));
            run.iter_mut().for_each(|work| work.step = Step::DeadLetter);
        }
        if run.is_empty() {
            one.in_hand.swap_remove(chosen);
        }
        match settled {
            Settled::DeadLetter => {}
            Settled::Done => {
                let owned = one.owned.get_mut(&partition.0).expect("it is not stale");
                owned.open.remove(&offset);
                owned.complete.insert(offset);
                self.seen.done += 1;
            }
            Settled::Stale => self.seen.stale += 1,
            Settled::Left => {
                assert!(one.owned[&partition.0].draining);
                self.seen.left += 1;
            }
            Settled::Requeued | Settled::Retry { .. } => assert!(!one.owned[&partition.0].draining),
            Settled::GiveUp => unreachable!("{settled:?}"),
        }
        true
    }

    fn commit(&mut self, consumer: usize, faults: bool) {
        for commit in self.consumers[consumer].control.commits() {
            self.commit_one(consumer, commit, faults);
        }
    }

    /// The broker takes it, or does not; the consumer is told so, at once or later, or the opposite.
    fn commit_one(&mut self, consumer: usize, commit: Commit, faults: bool) {
        let one = &mut self.consumers[consumer];
        let (log, owned) = (&mut self.logs[commit.partition.0 as usize], &one.owned[&commit.partition.0]);
        owned.check_commit(&commit, log);
        let chance = if faults { self.numbers.below(10) } else { 0 };
        if chance < 8 {
            assert!(commit.position >= log.position, "it goes back");
            (log.position, log.metadata) = (commit.position, commit.metadata.clone());
        }
        match chance {
            0..6 => one.control.committed(&commit, true),
            6 => one.unanswered.push(commit),
            _ => one.control.committed(&commit, false),
        }
    }

    fn answer(&mut self, consumer: usize) {
        let Consumer { control, unanswered, .. } = &mut self.consumers[consumer];
        for commit in unanswered.drain(..) {
            control.committed(&commit, true);
        }
    }

    fn one_owned(&mut self, consumer: usize) -> Option<u32> {
        let count = self.consumers[consumer].owned.len() as u64;
        let chosen = self.numbers.below(count.max(1)) as usize;
        self.consumers[consumer].owned.keys().nth(chosen).copied()
    }

    /// Begins to give a partition away, or ends it, whether it is drained or not.
    fn revoke_one(&mut self, consumer: usize) {
        let Some(number) = self.one_owned(consumer) else { return };
        let one = &mut self.consumers[consumer];
        let owned = one.owned.get_mut(&number).expect("it is owned");
        if !owned.draining {
            owned.draining = true;
            one.control.revoke(Partition(number));
            let of_it = |work: &Work<u64>| work.partition.0 == number && work.epoch == owned.epoch;
            let in_hand: Vec<_> = one.in_hand.iter().flatten().filter(|work| of_it(work)).collect();
            owned.open.retain(|offset| in_hand.iter().any(|work| work.offset == *offset));
            return;
        }
        if let Some(commit) = one.control.commit(Partition(number)) {
            self.commit_one(consumer, commit, true);
        }
        self.take_away(consumer, number);
    }

    fn finish_draining(&mut self, consumer: usize) {
        let draining = |(number, one): (&u32, &Owned)| one.draining.then_some(*number);
        let numbers: Vec<u32> = self.consumers[consumer].owned.iter().filter_map(draining).collect();
        for number in numbers {
            self.take_away(consumer, number);
        }
    }

    fn take_away(&mut self, consumer: usize, number: u32) {
        let one = &mut self.consumers[consumer];
        one.control.release(Partition(number));
        one.owned.remove(&number);
        self.give_away(number);
    }

    fn lose_one(&mut self, consumer: usize) {
        let Some(number) = self.one_owned(consumer) else { return };
        let one = &mut self.consumers[consumer];
        one.control.lose(Partition(number));
        one.owned.remove(&number);
        assert_eq!(one.control.commit(Partition(number)), None);
        self.give_away(number);
    }

    fn crash(&mut self, consumer: usize) {
        self.seen.crashes += 1;
        let gone = std::mem::replace(&mut self.consumers[consumer], Consumer::new(self.options));
        for number in gone.owned.into_keys() {
            self.give_away(number);
        }
    }

    /// To anybody, who begins where the broker says.
    fn give_away(&mut self, number: u32) {
        let consumer = self.numbers.below(self.consumers.len() as u64) as usize;
        let Consumer { control, owned, .. } = &mut self.consumers[consumer];
        let log = &self.logs[number as usize];
        let start = Start { position: log.position, metadata: Some(&log.metadata), log_end: Some(log.end) };
        let (epoch, unreadable) = control.assign_checked(Partition(number), start);
        assert_eq!(unreadable, None);
        let covered = log.covered();
        let (read_to, complete) = (log.position, covered.clone());
        let known = Owned { epoch, read_to, paused: false, covered, open: BTreeSet::new(), complete, draining: false };
        owned.insert(number, known);
    }
}

impl Log {
    fn starting_at(offset: u64) -> Log {
        Log { end: offset, ..Log::default() }
    }

    /// What the commit says is complete beyond its position.
    fn covered(&self) -> BTreeSet<u64> {
        let marks = metadata::decode(&self.metadata, self.position, Some(self.end)).expect("it was written by us");
        marks.ranges().iter().cloned().flatten().collect()
    }
}

impl Owned {
    /// A commit says what is true: nothing below it is missing, and all that is complete beyond it is marked, no more.
    fn check_commit(&self, commit: &Commit, log: &Log) {
        let below = log.records.range(..commit.position).map(|(offset, _)| offset);
        assert!(below.clone().all(|offset| log.done.contains(offset)), "a record is lost");
        assert!(self.open.range(..commit.position).next().is_none(), "it passes one that is not complete");
        let marks = metadata::decode(&commit.metadata, commit.position, Some(log.end)).expect("it is read");
        let marked: Vec<u64> = marks.ranges().iter().cloned().flatten().collect();
        let beyond: Vec<u64> = self.complete.range(commit.position..).copied().collect();
        assert_eq!(marked, beyond);
    }
}

impl Consumer {
    fn new(options: Options) -> Consumer {
        Consumer { control: Control::new(options), owned: BTreeMap::new(), in_hand: Vec::new(), unanswered: Vec::new() }
    }

    fn running(&self) -> usize {
        self.in_hand.iter().filter(|run| run[0].step == Step::Handle).count()
    }

    /// The numbers it tells are those of the naive notes.
    fn check(&self, now: Duration) {
        let state = self.control.state(now);
        assert_eq!((state.running, state.partitions.len()), (self.running(), self.owned.len()));
        for partition in state.partitions {
            let owned = &self.owned[&partition.partition.0];
            assert_eq!((partition.epoch, partition.draining), (owned.epoch, owned.draining));
            assert_eq!(partition.delivered_end, Some(owned.read_to));
            if owned.draining {
                continue;
            }
            let under_way = partition.queued + partition.running + partition.publishing + partition.parked;
            assert_eq!(under_way, owned.open.len());
            assert_eq!(partition.blocking_offset, owned.open.first().copied());
            assert_eq!(partition.position, Some(owned.open.first().copied().unwrap_or(owned.read_to)));
        }
    }
}

/// Numbers from a seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
