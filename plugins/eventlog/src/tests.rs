//! The sink against folders and a store in memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, Int32Builder, Int64Builder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, RecordBatch, StringViewArray};
use arrow_schema::{DataType, Field, Schema};
use object_store::memory::InMemory;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use pype_plugin::testing::{Done, block_on, sink};
use pype_plugin::{Error, Frame, Result};
use serde_json::json;
use tempfile::TempDir;

use crate::footer::Footer;
use crate::identity::Identity;
use crate::log::{Committed, EventLog};
use crate::place::{file_name, part};
use crate::shelf::Shelf;
use crate::shelf::folder::Folder;
use crate::shelf::objects::Objects;
use crate::sink::EventLogSink;

const HOUR_NS: i64 = 3_600_000_000_000;
/// 2025-05-10T10:00:00Z.
const TEN_NS: i64 = 1_746_871_200_000_000_000;
const CREATED: &str = "2025-05-01T00:00:00Z";

/// An event of a stream: sequence, simulation, time.
#[derive(Clone, Debug)]
struct Event {
    sequence: i64,
    simulation: String,
    timestamp_ns: i64,
    partition: i32,
}

fn event(sequence: i64, simulation: &str, timestamp_ns: i64) -> Event {
    Event { sequence, simulation: simulation.to_owned(), timestamp_ns, partition: 0 }
}

/// Events of three simulations in three hours, which change from one event to the next.
fn events(sequences: impl IntoIterator<Item = i64>) -> Vec<Event> {
    let one = |n: i64| event(n, ["a", "b", "c"][(n % 3) as usize], TEN_NS + n % 2 * HOUR_NS + n);
    sequences.into_iter().map(one).collect()
}

/// As `event_decode` gives them.
fn batch(events: &[Event]) -> RecordBatch {
    let (mut timestamp, mut offset, mut partition) = (Int64Builder::new(), Int64Builder::new(), Int32Builder::new());
    let (mut simulation, mut id, mut topic) = (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
    let (mut kind, mut payload) = (StringBuilder::new(), BinaryBuilder::new());
    for event in events {
        timestamp.append_value(event.timestamp_ns);
        offset.append_value(event.sequence);
        partition.append_value(event.partition);
        simulation.append_value(&event.simulation);
        id.append_value(event.sequence.to_string());
        topic.append_value("EVENTS");
        kind.append_value("fish.moved");
        payload.append_value(event.sequence.to_le_bytes());
    }
    let kind: ArrayRef = Arc::new(kind.finish());
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("timestamp_ns", Arc::new(timestamp.finish())),
        ("event_type_key", kind.clone()),
        ("worker_id", kind.clone()),
        ("simulation_id", Arc::new(simulation.finish())),
        ("payload_format_hint", kind.clone()),
        ("event_payload", Arc::new(payload.finish())),
        ("event_id", Arc::new(id.finish())),
        ("correlation_id", kind),
        ("topic", Arc::new(topic.finish())),
        ("partition", Arc::new(partition.finish())),
        ("offset", Arc::new(offset.finish())),
    ];
    RecordBatch::try_from_iter(columns).expect("columns of one length")
}

fn frame(batches: Vec<RecordBatch>, created: &str) -> Frame {
    let fields = batches.first().expect("a batch").schema().fields().clone();
    let mut metadata = vec![("nats.stream".to_owned(), "EVENTS".to_owned())];
    if !created.is_empty() {
        metadata.push(("nats.created".to_owned(), created.to_owned()));
    }
    let schema = Arc::new(Schema::new(fields).with_metadata(metadata.into_iter().collect::<HashMap<_, _>>()));
    let same = schema.clone();
    let batches = batches.into_iter().map(move |batch| batch.with_schema(same.clone()).expect("the same columns"));
    Frame::from_record_batches(schema, batches.collect::<Vec<_>>())
}

/// Opens the sink, gives it one batch, commits and closes.
fn run(root: &Path, events: &[Event]) -> Done {
    sink::<EventLogSink>(json!({"root": root})).input("input", frame(vec![batch(events)], CREATED)).run()
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn log(root: &Path) -> EventLog {
    EventLog::new(Shelf::Folder(Folder::open(root).expect("a folder")), 64)
}

/// Writes a batch as the sink does, without a commit.
fn write(log: &mut EventLog, events: &[Event], created: &str) -> Result<()> {
    log.write_begins();
    let written = log.write(&batch(events), created);
    log.write_ends(written.is_ok());
    written
}

fn deliver(log: &mut EventLog, events: &[Event]) -> Result<Committed> {
    write(log, events, CREATED)?;
    log.commit()
}

fn identity(created: &str) -> Identity {
    Identity { stream: "EVENTS".to_owned(), partition: 0, created: created.to_owned() }
}

/// All files below a folder, hidden ones included, but for the locks.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).expect("a folder") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true if path.ends_with(".pype-eventlog") => {}
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

/// A file: its rows, and what it says of itself.
struct Read {
    rows: Vec<RecordBatch>,
    footer: Footer,
}

fn read(path: &Path) -> Read {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).expect("it is there")).expect("a file");
    let footer = Footer::of(reader.metadata()).expect("a footer");
    let rows = reader.build().expect("readable").map(|batch| batch.expect("readable")).collect();
    Read { rows, footer }
}

/// The sequences in all files, by the rows themselves. Each file's set says the same, and its name the last.
fn sequences(root: &Path) -> Vec<i64> {
    let mut all = Vec::new();
    for path in files(root) {
        let Read { rows, footer } = read(&path);
        let ids = rows.iter().flat_map(|batch| {
            let ids = batch.column_by_name("event_id").expect("ids").as_string::<i32>();
            ids.iter().map(|id| id.expect("an id").parse::<i64>().expect("a number")).collect::<Vec<_>>()
        });
        let mut ids: Vec<_> = ids.collect();
        ids.sort_unstable();
        let set: Vec<_> = footer.sequences.iter().map(u64::cast_signed).collect();
        assert_eq!(ids, set, "{}", path.display());
        let name = path.file_name().expect("a name").to_string_lossy();
        assert!(name.starts_with(&format!("{:020}-", ids[ids.len() - 1])), "{name}");
        all.extend(ids);
    }
    all.sort_unstable();
    all
}

fn numbers(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

#[test]
fn rows_go_by_simulation_and_hour_and_a_commit_tells_each_file() {
    let root = folder();
    let done = run(root.path(), &events(1..601));
    assert_eq!(done.result, Ok(()));
    let paths: Vec<_> = files(root.path());
    let tag = identity(CREATED).tag();
    let expect: BTreeMap<_, _> =
        [("a", 10, 600), ("a", 11, 597), ("b", 10, 598), ("b", 11, 595), ("c", 10, 596), ("c", 11, 599)]
            .into_iter()
            .map(|(simulation, hour, last)| {
                (root.path().join(format!("{simulation}/2025-05-10/{hour}/{}", file_name(last, &tag))), 100)
            })
            .collect();
    assert_eq!(paths, expect.keys().cloned().collect::<Vec<_>>());
    let told: Vec<_> =
        done.commits.iter().map(|commit| (commit.uri.clone().expect("a place").into(), commit.rows)).collect();
    assert_eq!(told, expect.iter().map(|(path, rows)| (path.clone(), Some(*rows))).collect::<Vec<(PathBuf, _)>>());
    for (path, commit) in paths.iter().zip(&done.commits) {
        assert_eq!(fs::metadata(path).expect("a file").len(), commit.bytes.expect("bytes"));
    }
    assert_eq!(sequences(root.path()), numbers(1..601));
}

#[test]
fn files_have_the_columns_of_the_log() {
    let root = folder();
    assert_eq!(run(root.path(), &[event(7, "sim", TEN_NS + 5)]).result, Ok(()));
    let paths = files(root.path());
    let Read { rows, footer } = read(&paths[0]);
    let columns: Vec<_> = rows[0].schema().fields().iter().map(|f| format!("{} {}", f.name(), f.data_type())).collect();
    let expect = [
        "timestamp_ns Int64",
        "event_type_key Utf8",
        "worker_id Utf8",
        "simulation_id Utf8",
        "payload_format_hint Utf8",
        "event_payload Binary",
        "event_id Utf8",
        "correlation_id Utf8",
    ];
    assert_eq!(columns, expect);
    assert_eq!(rows[0].column(0).as_primitive::<Int64Type>().value(0), TEN_NS + 5);
    assert_eq!(rows[0].column(5).as_binary::<i32>().value(0), 7_i64.to_le_bytes());
    assert_eq!(footer.identity, identity(CREATED));
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&paths[0]).expect("a file")).expect("readable");
    assert!(matches!(reader.metadata().row_group(0).column(3).compression(), Compression::ZSTD(_)));
}

#[test]
fn redelivery_in_other_batches_writes_each_sequence_once() {
    let root = folder();
    let batches = [(1..50), (20..80), (5..6), (70..71), (60..200), (1..300)];
    // One writer for some, a new one for the next.
    for two in batches.chunks(2) {
        let mut log = log(root.path());
        for range in two {
            let mut given = events(range.clone());
            given.reverse();
            given.push(given[0].clone());
            deliver(&mut log, &given).expect("written");
        }
    }
    assert_eq!(sequences(root.path()), numbers(1..300));
}

#[test]
fn rows_that_are_in_files_are_skipped_and_counted() {
    let root = folder();
    assert_eq!(run(root.path(), &events(1..10)).result, Ok(()));
    let done = run(root.path(), &events(1..12));
    assert_eq!(done.commits.iter().filter_map(|commit| commit.rows).sum::<u64>(), 2);
    assert!(done.log.iter().any(|line| line == "INFO skipped 9 events that were in files already"), "{:?}", done.log);
    let done = run(root.path(), &events(1..12));
    assert_eq!((done.result, done.commits), (Ok(()), vec![]));
}

#[test]
fn nothing_is_visible_before_the_commit_and_nothing_stays_without_one() {
    let root = folder();
    let mut log = log(root.path());
    // So many that files are open.
    write(&mut log, &events(0..60_000), CREATED).expect("written");
    let names: Vec<_> = files(root.path()).iter().map(|path| path.file_name().expect("a name").to_owned()).collect();
    assert!(!names.is_empty() && names.iter().all(|name| name.as_encoded_bytes().starts_with(b".pype-")), "{names:?}");
    log.close();
    assert_eq!(files(root.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_commit_that_ends_between_two_names_is_completed_by_redelivery() {
    // The files of a commit in their order, with their last sequences: before each of them it may end.
    let last = [("a/2025-05-10/10", 60), ("a/2025-05-10/11", 57), ("b/2025-05-10/10", 58), ("b/2025-05-10/11", 55)];
    for (named, (directory, last)) in last.into_iter().enumerate() {
        let (root, given) = (folder(), events(1..61));
        let mut killed = log(root.path());
        write(&mut killed, &given, CREATED).expect("written");
        // A folder has the name that the file is to get.
        let obstacle = root.path().join(directory).join(file_name(last, &identity(CREATED).tag()));
        fs::create_dir_all(&obstacle).expect("made");
        killed.commit().expect_err("one of its files gets no name");
        let error = killed.commit().expect_err("there is nothing to commit");
        assert_eq!((error.code.as_str(), error.retryable), ("rows-lost", true));
        drop(killed);
        fs::remove_dir(&obstacle).expect("it is empty");
        assert_eq!(files(root.path()).len(), named);
        let mut again = log(root.path());
        let mut rows = 0;
        for part in [&given[30..], &given[..]] {
            let committed = deliver(&mut again, part).expect("written");
            rows += committed.files.iter().filter_map(|file| file.rows).sum::<u64>();
        }
        assert_eq!(rows, 60 - 10 * named as u64);
        assert_eq!(sequences(root.path()), numbers(1..61));
    }
}

#[test]
fn a_writer_goes_on_after_a_failed_commit() {
    let root = folder();
    let mut log = log(root.path());
    deliver(&mut log, &events(1..7)).expect("written");
    let obstacle = root.path().join(format!("a/2025-05-10/11/{}", file_name(15, &identity(CREATED).tag())));
    fs::create_dir_all(&obstacle).expect("made");
    deliver(&mut log, &events(7..19)).expect_err("one of its files gets no name");
    fs::remove_dir(&obstacle).expect("it is empty");
    deliver(&mut log, &events(1..20)).expect("written");
    assert_eq!(sequences(root.path()), numbers(1..20));
}

#[test]
fn a_stream_that_was_made_anew_is_another() {
    let root = folder();
    let mut log = log(root.path());
    for created in [CREATED, "2025-06-01T00:00:00Z", CREATED] {
        write(&mut log, &events(1..7), created).expect("written");
        log.commit().expect("committed");
    }
    let twice: Vec<_> = numbers(1..7).into_iter().flat_map(|n| [n, n]).collect();
    assert_eq!(sequences(root.path()), twice);
}

#[test]
fn partitions_of_a_topic_are_told_apart_and_may_move() {
    let root = folder();
    let mut given = events(0..30);
    given.iter_mut().for_each(|event| event.partition = i32::from(event.sequence % 4 == 0));
    let other: Vec<_> = given.iter().map(|event| Event { partition: 1 - event.partition, ..event.clone() }).collect();
    // Neither is closed: without a time of the stream's making, a writer holds a partition only until it commits.
    let (mut one, mut two) = (log(root.path()), log(root.path()));
    write(&mut one, &given[..20], "").expect("written");
    let error = write(&mut two, &given, "").expect_err("it is being written");
    assert_eq!((error.code.as_str(), error.retryable), ("second-writer", true));
    one.commit().expect("committed");
    write(&mut two, &given, "").expect("written");
    two.commit().expect("committed");
    write(&mut one, &given, "").expect("written");
    assert_eq!(one.commit().expect("committed").files, vec![]);
    write(&mut one, &other, "").expect("written");
    one.commit().expect("committed");
    let twice: Vec<_> = numbers(0..30).into_iter().flat_map(|n| [n, n]).collect();
    assert_eq!(sequences(root.path()), twice);
}

#[test]
fn ids_cannot_break_out() {
    let root = folder();
    let inside = root.path().join("log");
    let long = "é".repeat(300);
    let ids =
        ["../../x", "", "/etc/passwd", "a\0b", "añ/ü", ".", "..", &long, "%2E%2E", "_x", "@none", "a\nb", "C:\\x"];
    let given: Vec<_> = (0..).zip(ids).map(|(n, id)| event(n, id, TEN_NS)).collect();
    assert_eq!(run(&inside, &given).result, Ok(()));
    let outside: Vec<_> = fs::read_dir(root.path()).expect("a folder").collect();
    assert_eq!(outside.len(), 1);
    assert_eq!(files(root.path()).len(), ids.len());
    for (sequence, id) in (0..).zip(ids) {
        let path = inside.join(part(id)).join("2025-05-10/10").join(file_name(sequence, &identity(CREATED).tag()));
        let rows = read(&path).rows;
        assert_eq!(rows[0].column(3).as_string::<i32>().value(0), id);
    }
}

#[test]
fn a_second_writer_is_refused_until_the_first_ends() {
    let root = folder();
    let mut first = log(root.path());
    deliver(&mut first, &events(1..3)).expect("written");
    let error = run(root.path(), &events(3..5)).result.expect_err("there is a writer");
    assert_eq!((error.code.as_str(), error.retryable), ("second-writer", false));
    let expect = format!("another writer (process {}) writes the stream `EVENTS` into", std::process::id());
    assert!(error.message.starts_with(&expect), "{error}");
    first.close();
    assert_eq!(run(root.path(), &events(3..5)).result, Ok(()));
    assert_eq!(sequences(root.path()), numbers(1..5));
}

#[test]
fn what_dead_writers_left_is_swept_and_what_others_write_is_not() {
    let root = folder();
    let hour = root.path().join("sim/2025-05-10/10");
    fs::create_dir_all(&hour).expect("made");
    let dead = hour.join(format!(".pype-{}-1-0000-0.tmp", identity("another time").stream_tag()));
    let others = hour.join(".pype-0123456789abcdef-1-0000-0.tmp");
    for path in [&dead, &others] {
        fs::write(path, "PAR1").expect("written");
    }
    assert_eq!(run(root.path(), &[event(1, "sim", TEN_NS)]).result, Ok(()));
    let own = hour.join(file_name(1, &identity(CREATED).tag()));
    assert_eq!(files(root.path()), [others, own]);
}

#[test]
fn only_files_that_may_matter_are_read() {
    let root = folder();
    let mut writer = log(root.path());
    for range in [1..3, 3..5, 5..7] {
        let one: Vec<_> = range.map(|n| event(n, "s", TEN_NS)).collect();
        deliver(&mut writer, &one).expect("written");
    }
    writer.close();
    let first = root.path().join(format!("s/2025-05-10/10/{}", file_name(2, &identity(CREATED).tag())));
    fs::write(&first, "damaged").expect("written");
    let mut log = log(root.path());
    let again = |range: std::ops::Range<i64>| range.map(|n| event(n, "s", TEN_NS)).collect::<Vec<_>>();
    assert_eq!(deliver(&mut log, &again(5..8)).expect("the first is not read").skipped, 2);
    assert_eq!(deliver(&mut log, &again(3..8)).expect("nor now").skipped, 5);
    let error = deliver(&mut log, &again(2..8)).expect_err("now it is");
    assert_eq!(error.code, "unreadable-file", "{error}");
    assert!(error.message.contains(&first.display().to_string()), "{error}");
}

#[test]
fn a_bound_on_open_files_makes_more_files_and_no_other_rows() {
    let root = folder();
    let mut log = EventLog::new(Shelf::Folder(Folder::open(root.path()).expect("a folder")), 1);
    deliver(&mut log, &events(0..60_000)).expect("written");
    assert!(files(root.path()).len() > 6, "{:?}", files(root.path()));
    assert_eq!(sequences(root.path()), numbers(0..60_000));
}

#[test]
fn a_file_of_the_same_name_is_a_duplicate_or_an_error() {
    let root = folder();
    let one = |n| event(n, "s", TEN_NS);
    let mut log = log(root.path());
    deliver(&mut log, &[one(1)]).expect("written");
    let put_behind_its_back = |events: &[Event]| {
        let aside = folder();
        assert_eq!(run(aside.path(), events).result, Ok(()));
        for path in files(aside.path()) {
            let key = path.strip_prefix(aside.path()).expect("below it");
            fs::copy(&path, root.path().join(key)).expect("copied");
        }
    };
    put_behind_its_back(&[one(2), one(3), one(4)]);
    let committed = deliver(&mut log, &[one(3), one(4)]).expect("all of it is there");
    assert_eq!((committed.files, committed.skipped), (vec![], 2));
    put_behind_its_back(&[one(6)]);
    let error = deliver(&mut log, &[one(5), one(6)]).expect_err("one of them is not there");
    assert_eq!((error.code.as_str(), error.retryable), ("other-file", true));
    deliver(&mut log, &[one(5), one(6)]).expect("now it knows");
    assert_eq!(sequences(root.path()), numbers(1..7));
}

#[test]
fn objects_are_put_once() {
    let store: Arc<InMemory> = Arc::default();
    let given = events(1..61);
    let open = || {
        let runtime = block_on(async { tokio::runtime::Handle::current() });
        let objects = Objects::new(store.clone(), "logs/sim".into(), "s3://bucket/logs/sim/", runtime);
        EventLog::new(Shelf::Objects(objects), 64)
    };
    let committed = deliver(&mut open(), &given[..30]).expect("written");
    let tag = identity(CREATED).tag();
    let first = format!("s3://bucket/logs/sim/a/2025-05-10/10/{}", file_name(30, &tag));
    assert_eq!((committed.files.len(), committed.files[0].uri.as_deref()), (6, Some(first.as_str())));
    let mut log = open();
    let committed = deliver(&mut log, &given[10..]).expect("written");
    assert_eq!((committed.files.iter().filter_map(|file| file.rows).sum::<u64>(), committed.skipped), (30, 20));
    assert_eq!(deliver(&mut log, &given).expect("written").skipped, 60);
    let odd = [event(100, "..", TEN_NS), event(101, "%", TEN_NS)];
    deliver(&mut log, &odd).expect("written");
    assert_eq!(deliver(&mut open(), &odd).expect("written").skipped, 2);
}

#[test]
fn other_forms_of_text_do_and_what_lacks_a_column_is_refused() {
    let root = folder();
    let check = |batch: RecordBatch, code: &str, part: &str| {
        let done = sink::<EventLogSink>(json!({"root": root.path()})).input("input", frame(vec![batch], CREATED)).run();
        let error: Error = done.result.expect_err("refused");
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(part), "{error}");
    };
    let whole = batch(&[event(1, "s", TEN_NS)]);
    let replace = |at: usize, column: ArrayRef| {
        let mut columns = whole.columns().to_vec();
        let mut fields: Vec<Field> = whole.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
        fields[at] = Field::new(fields[at].name(), column.data_type().clone(), true);
        columns[at] = column;
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length")
    };
    check(whole.project(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).expect("columns"), "missing-column", "`offset`");
    let none: ArrayRef = arrow_array::new_null_array(&DataType::Int64, 1);
    check(replace(0, none), "null-value", "`timestamp_ns` is null in 1 events");
    let other: ArrayRef = arrow_array::new_null_array(&DataType::Float64, 1);
    check(replace(3, other), "wrong-type", "`simulation_id` should be text, but is Float64");
    assert_eq!(files(root.path()), Vec::<PathBuf>::new());
    let view = replace(3, Arc::new(StringViewArray::from(vec!["a simulation with a long name"])));
    let done = sink::<EventLogSink>(json!({"root": root.path()})).input("input", frame(vec![view], CREATED)).run();
    assert_eq!(done.result, Ok(()));
    assert!(files(root.path())[0].starts_with(root.path().join("a%20simulation%20with%20a%20long%20name")));
}
