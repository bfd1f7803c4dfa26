//! What every engine that handles records one by one must do, and each of them does it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pype_core::retry::{Retry, RetryOn};
use pype_core::stream::admission::Limits;
use pype_core::stream::control::{Acknowledge, Control, Options, Outcome, Partition, Settled, Start, Work};
use pype_core::stream::lanes;
use pype_plugin::stream::{NewRecord, Records, RecordsBuilder};
use pype_plugin::{Error, ErrorKind, Result};
use tokio::sync::mpsc;

use super::engine::{Engine, Handle, Tasks, Told};
use super::process::{Bounds, Processes, handle_all};
use super::records::{Batch, Place};
use crate::worker::records::in_thread;

const TIMEOUT: Duration = Duration::from_millis(200);
const AT_ONCE: NonZeroUsize = NonZeroUsize::new(1000).expect("it is not zero");

/// Records of a topic, as an engine is given them.
struct Source {
    control: Control<Place>,
}

impl Source {
    /// In no order.
    fn new(count: u64) -> Self {
        Self::of_lanes(count, |_| None)
    }

    /// `lane` says which one the record of an offset is in, if in any.
    fn of_lanes(count: u64, lane: fn(u64) -> Option<u8>) -> Self {
        let options = Options {
            ordering: lanes::Ordering::Key,
            acknowledge: Acknowledge::Position,
            limits: Limits::of(AT_ONCE),
            retry: Retry { delay_ms: 1, jitter: 0.0, on: RetryOn::Any, ..Retry::default() },
            dead_letters: true,
            seed: 1,
        };
        let mut builder = RecordsBuilder::default();
        for offset in 0..i64::try_from(count).expect("few") {
            let value = offset.to_string();
            let record = NewRecord { topic: "t", offset, value: Some(value.as_bytes()), ..NewRecord::default() };
            builder.push(record, [("n", Some(value.as_bytes()))]);
        }
        let batch = Batch::new(Records::try_from(&builder.finish()).expect("records"));
        let mut control = Control::new(options);
        let epoch = control.assign(Partition(0), Start::default());
        for offset in 0..count {
            let place = Place::new(batch.clone(), u32::try_from(offset).expect("few"));
            let lane = lane(offset).map(|lane| [lane]);
            let key = lane.as_ref().map(<[u8; 1]>::as_slice);
            control.deliver(Partition(0), epoch, offset, key, place, Duration::ZERO);
        }
        Self { control }
    }

    fn works(&mut self) -> Vec<Work<Place>> {
        self.works_at(Duration::ZERO)
    }

    /// All that begins then, with what follows it.
    fn works_at(&mut self, now: Duration) -> Vec<Work<Place>> {
        let mut works = Vec::new();
        while let Some(work) = self.control.next(now) {
            let id = work.id;
            works.push(work);
            works.extend(self.control.followers(id, 30));
        }
        works
    }
}

/// Runs records of five lanes, the ones that fail again, until all are done.
async fn run_in_lanes(engine: &mut impl Engine, tells: &mut mpsc::Receiver<Told>, count: u64) {
    let mut source = Source::of_lanes(count, lane);
    let began = Instant::now();
    let mut done = 0;
    while done < count {
        let works = source.works_at(began.elapsed());
        if !works.is_empty() {
            engine.start(works);
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{done} are done");
        let Ok(told) = tokio::time::timeout(Duration::from_millis(1), tells.recv()).await else { continue };
        let (work, outcome) = match told.expect("it lives") {
            Told::Handled { work, result: Ok(()), .. } => (work, Outcome::Done),
            Told::Handled { work, result: Err(error), .. } => (work, Outcome::Failed { retryable: error.retryable }),
            Told::NotRun(work) => (work, Outcome::NotRun),
            Told::Struggles(_) => continue,
            Told::Broken(error) => panic!("{error}"),
        };
        let settled = source.control.completed(work.id, outcome, began.elapsed(), 0.0);
        assert_ne!(settled, Settled::Stale, "it was told of what it did not have: {} {outcome:?}", work.offset);
        done += u64::from(settled == Settled::Done);
    }
    engine.abort().await;
}

fn lane(offset: u64) -> Option<u8> {
    Some((offset % 5) as u8)
}

/// What begins and ends in which lane.
#[derive(Clone, Default)]
struct InLanes(Arc<Mutex<BTreeMap<u8, InLane>>>);

#[derive(Default)]
struct InLane {
    /// Whether one is under way.
    is_busy: bool,
    /// The offsets of those that are done, in the order they were.
    done: Vec<u64>,
}

impl InLanes {
    /// Handles a record, as `how` says. One that is begun while another of its lane is under way fails the test.
    async fn handle(self, place: Place, how: impl Future<Output = Result<()>>) -> Result<()> {
        let offset = u64::try_from(place.record().offset()).expect("it is not negative");
        let lane = lane(offset).expect("all are in one");
        let was_busy = std::mem::replace(&mut self.lanes().entry(lane).or_default().is_busy, true);
        assert!(!was_busy, "two of a lane at once");
        let result = how.await;
        let mut lanes = self.lanes();
        let in_lane = lanes.get_mut(&lane).expect("it was begun");
        in_lane.is_busy = false;
        if result.is_ok() {
            in_lane.done.push(offset);
        }
        result
    }

    fn lanes(&self) -> MutexGuard<'_, BTreeMap<u8, InLane>> {
        self.0.lock().expect("nobody panics who has it")
    }

    fn check(&self, count: u64) {
        for (lane, InLane { done, .. }) in self.lanes().iter() {
            let expect: Vec<u64> = (0..count).filter(|offset| *offset % 5 == u64::from(*lane)).collect();
            assert_eq!(*done, expect);
        }
    }
}

/// Gives the engine all records, and those again that have not been run, until so many are handled.
async fn run(engine: &mut impl Engine, tells: &mut mpsc::Receiver<Told>, count: u64) -> BTreeMap<u64, Result<()>> {
    let mut source = Source::new(count);
    engine.start(source.works());
    let mut handled = BTreeMap::new();
    while (handled.len() as u64) < count {
        let told = tokio::time::timeout(Duration::from_secs(20), tells.recv()).await;
        match told.expect("an engine tells of every record").expect("it lives") {
            Told::Handled { work, result, .. } => {
                assert!(handled.insert(work.offset, result).is_none(), "{} was told twice", work.offset);
            }
            Told::NotRun(work) => {
                source.control.completed(work.id, Outcome::NotRun, Duration::ZERO, 0.0);
                engine.start(source.works());
            }
            Told::Struggles(_) => {}
            Told::Broken(error) => panic!("{error}"),
        }
    }
    handled
}

/// An engine of tasks.
fn tasks(handler: impl Handle) -> (Tasks<impl Handle>, mpsc::Receiver<Told>) {
    Tasks::new(Arc::new(handler), Some(TIMEOUT), AT_ONCE)
}

/// An engine of children, which are threads of this process.
async fn children(handler: impl Handle, count: usize) -> (Processes, mpsc::Receiver<Told>) {
    children_that(handler, count, None).await
}

async fn children_that(
    handler: impl Handle,
    count: usize,
    recycle_after: Option<std::num::NonZeroU64>,
) -> (Processes, mpsc::Receiver<Told>) {
    let (handler, folder) = (Arc::new(handler), Arc::new(tempfile::tempdir().expect("a folder")));
    let start = Arc::new(move |_, hear| {
        let (handler, folder) = (handler.clone(), folder.clone());
        let work = move |runtime: &tokio::runtime::Runtime, mut handling, stop| {
            let ended = runtime.block_on(handle_all(handler.as_ref(), TIMEOUT, &mut handling, &stop));
            ended.expect("the host gives records");
        };
        let starting = async move { in_thread(folder.path(), hear, work) };
        Box::pin(starting) as super::process::Starting
    });
    let children = NonZeroUsize::new(count).expect("one at least");
    let bounds = Bounds { children, recycle_after, timeout: TIMEOUT, at_once: AT_ONCE };
    Processes::start(start, bounds).await.expect("threads start")
}

/// The same for both engines.
macro_rules! for_each_engine {
    ($(async fn $name:ident($engine:ident, $tells:ident) handles $handler:expr, $checks:block)*) => {
        mod with_tasks {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    let (mut $engine, mut $tells) = tasks($handler);
                    $checks
                }
            )*
        }
        mod with_children {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $name() {
                    let (mut $engine, mut $tells) = children($handler, 3).await;
                    $checks
                }
            )*
        }
    };
}

async fn value_is_the_offset(place: Place) -> Result<()> {
    let record = place.record();
    let number = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).parse::<i64>().ok();
    let header = record.headers().find(|(name, _)| *name == "n").and_then(|(_, value)| value);
    if number(record.value()) == Some(record.offset()) && number(header) == Some(record.offset()) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Data, "mixed-up", format!("the record `{}` is another", place.name())))
}

for_each_engine! {
    async fn every_record_is_handled_once(engine, tells) handles |place: &Place, _: u32| value_is_the_offset(place.clone()), {
        let handled = run(&mut engine, &mut tells, 1000).await;
        assert!(handled.values().all(Result::is_ok), "{handled:?}");
        engine.abort().await;
        assert!(tells.try_recv().is_err(), "there is nothing more to tell");
    }

    async fn failures_are_told_as_they_are(engine, tells) handles |place: &Place, attempt: u32| {
        let offset = place.record().offset();
        async move {
            match offset % 10 {
                0 => Err(Error::new(ErrorKind::Data, "tenth", format!("attempt {attempt}")).retryable(offset % 20 == 0)),
                _ => Ok(()),
            }
        }
    }, {
        let handled = run(&mut engine, &mut tells, 200).await;
        for (offset, result) in handled {
            let expect = match offset % 10 {
                0 => Err(Error::new(ErrorKind::Data, "tenth", "attempt 1").retryable(offset % 20 == 0)),
                _ => Ok(()),
            };
            assert_eq!(result, expect, "{offset}");
        }
        engine.abort().await;
    }

    async fn an_attempt_has_its_bound(engine, tells) handles |place: &Place, _: u32| {
        let offset = place.record().offset();
        async move {
            if offset == 3 {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    }, {
        let handled = run(&mut engine, &mut tells, 10).await;
        let error = handled[&3].clone().expect_err("it never ends");
        assert_eq!((error.kind, error.retryable), (ErrorKind::TimedOut, true));
        assert_eq!(error.message, "the record `t/0/3` took longer than 200 ms");
        assert_eq!(handled.values().filter(|result| result.is_ok()).count(), 9);
        engine.abort().await;
    }

    async fn what_runs_when_it_is_ended_is_not_told(engine, tells) handles |place: &Place, _: u32| {
        let offset = place.record().offset();
        async move {
            if offset >= 3 {
                tokio::time::sleep(TIMEOUT / 2).await;
            }
            Ok(())
        }
    }, {
        let mut source = Source::new(1000);
        engine.start(source.works());
        tokio::time::sleep(TIMEOUT / 4).await;
        engine.abort().await;
        let mut told = Vec::new();
        while let Ok(Told::Handled { work, result, .. }) = tells.try_recv() {
            assert_eq!(result, Ok(()));
            told.push(work.offset);
        }
        told.sort_unstable();
        assert_eq!(told, [0, 1, 2]);
    }
}

/// What a stage wrote down, by offset: how often each was begun.
#[derive(Clone, Default)]
struct Begun(Arc<Mutex<BTreeMap<i64, usize>>>);

impl Begun {
    fn note(&self, place: &Place) -> usize {
        let mut begun = self.0.lock().expect("no handler panics here");
        let times = begun.entry(place.record().offset()).or_default();
        *times += 1;
        *times
    }
}

/// Runs 200 records in children that crash at four of them, and that fail at what `fails` says. What ran more than once.
async fn with_crashes(fails: fn(i64) -> bool) -> Vec<i64> {
    let begun = Begun::default();
    let seen = begun.clone();
    let handler = move |place: &Place, _: u32| {
        let times = seen.note(place);
        let offset = place.record().offset();
        async move {
            assert!(offset % 50 != 7 || times > 1, "told to crash");
            if fails(offset) {
                return Err(Error::new(ErrorKind::Data, "told", "told to fail"));
            }
            Ok(())
        }
    };
    let (mut engine, mut tells) = children(handler, 2).await;
    let handled = run(&mut engine, &mut tells, 200).await;
    engine.abort().await;
    for (&offset, result) in &handled {
        let code = result.as_ref().err().map(|error| error.code.as_str());
        let offset = i64::try_from(offset).expect("it is below 200");
        let expect = match offset % 50 {
            7 => Some("crashed"),
            _ => fails(offset).then_some("told"),
        };
        assert_eq!(code, expect, "{offset}");
    }
    let begun = begun.0.lock().expect("no handler panics here");
    begun.iter().filter(|(_, times)| **times > 1).map(|(offset, _)| *offset).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_dies_costs_the_record_that_was_running() {
    assert_eq!(with_crashes(|_| false).await, [0; 0]);
}

/// The child may not have come to say so. Then nobody knows which one it was, and all that it had not told of run again.
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_just_before_a_crash_has_failed() {
    let again = with_crashes(|offset| offset % 50 == 6).await;
    assert!(again.iter().all(|offset| offset % 50 != 7), "{again:?}");
}

/// Every tenth fails at first, and some take longer than what is in hand ahead of its time may.
async fn as_it_happens(place: Place, attempt: u32) -> Result<()> {
    let offset = place.record().offset();
    if offset % 97 == 0 {
        tokio::time::sleep(Duration::from_millis(12)).await;
    }
    if offset % 10 == 3 && attempt == 1 {
        return Err(Error::new(ErrorKind::Data, "told", "told to fail"));
    }
    Ok(())
}

fn in_lanes(seen: &InLanes) -> impl Handle {
    let seen = seen.clone();
    move |place: &Place, attempt: u32| seen.clone().handle(place.clone(), as_it_happens(place.clone(), attempt))
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_keep_the_order_of_lanes() {
    let seen = InLanes::default();
    let (mut engine, mut tells) = tasks(in_lanes(&seen));
    run_in_lanes(&mut engine, &mut tells, 900).await;
    seen.check(900);
}

#[tokio::test(flavor = "multi_thread")]
async fn children_keep_the_order_of_lanes() {
    let seen = InLanes::default();
    let (mut engine, mut tells) = children_that(in_lanes(&seen), 3, std::num::NonZeroU64::new(70)).await;
    run_in_lanes(&mut engine, &mut tells, 900).await;
    seen.check(900);
}

/// A record that crashes its child has those behind it go back, and those before it are done.
#[tokio::test(flavor = "multi_thread")]
async fn children_that_die_keep_the_order_of_lanes() {
    let seen = InLanes::default();
    let (lanes, begun) = (seen.clone(), Begun::default());
    let handler = move |place: &Place, attempt: u32| {
        let times = begun.note(place);
        let offset = place.record().offset();
        assert!(offset % 100 != 7 || times > 1, "told to crash");
        lanes.clone().handle(place.clone(), as_it_happens(place.clone(), attempt))
    };
    let (mut engine, mut tells) = children(handler, 3).await;
    run_in_lanes(&mut engine, &mut tells, 900).await;
    for (lane, InLane { done, .. }) in seen.lanes().iter() {
        // What ran just before a crash, and was not told of, runs again; from there on in its order.
        let mut first: Vec<u64> = Vec::new();
        for offset in done {
            if first.last().is_none_or(|last| last < offset) {
                first.push(*offset);
            }
        }
        let expect: Vec<u64> = (0..900).filter(|offset| *offset % 5 == u64::from(*lane)).collect();
        assert_eq!(first, expect);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn children_give_way_to_others() {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static IS_NEW: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
    }
    let handler = |_: &Place, _: u32| {
        if IS_NEW.replace(false) {
            STARTED.fetch_add(1, Ordering::Relaxed);
        }
        std::future::ready(Ok(()))
    };
    let (mut engine, mut tells) = children_that(handler, 1, std::num::NonZeroU64::new(40)).await;
    let handled = run(&mut engine, &mut tells, 200).await;
    engine.abort().await;
    assert!(handled.values().all(Result::is_ok));
    assert_eq!(STARTED.load(Ordering::Relaxed), 5);
}
