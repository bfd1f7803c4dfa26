//! What every engine that handles records one by one must do, and each of them does it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pype_core::retry::Retry;
use pype_core::stream::admission::Limits;
use pype_core::stream::control::{Acknowledge, Control, Options, Outcome, Partition, Start, Work};
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
    fn new(count: u64) -> Self {
        let options = Options {
            ordering: lanes::Ordering::Unordered,
            acknowledge: Acknowledge::Position,
            limits: Limits::of(AT_ONCE),
            retry: Retry::default(),
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
            control.deliver(Partition(0), epoch, offset, None, place, Duration::ZERO);
        }
        Self { control }
    }

    fn works(&mut self) -> Vec<Work<Place>> {
        std::iter::from_fn(|| self.control.next(Duration::ZERO)).collect()
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
