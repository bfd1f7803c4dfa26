//! The log: records of the host and of every plugin library, through one bounded queue to one writer.
//!
//! Lines never interleave, and each producer's stay in order. When the queue is full, debug and trace records are
//! dropped and counted, and the count is written; others wait for room. Secrets are masked by the writer, whoever wrote
//! them.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::secret::Redactor;

/// Records that wait for the writer, at most.
const QUEUE: usize = 8192;
/// How much of the log is written at once, in bytes, or one line more.
const CHUNK: usize = 64 * 1024;

/// How bad or how detailed a record is; the numbers are those of the plugin boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Level {
    /// Nothing is kept.
    Off = 0,
    /// Something failed.
    Error = 1,
    /// Something is odd.
    Warn = 2,
    /// Something happened.
    Info = 3,
    /// For whoever looks into it.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

impl Level {
    /// The level that crosses the boundary as `number`.
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Off,
            1 => Self::Error,
            2 => Self::Warn,
            3 => Self::Info,
            4 => Self::Debug,
            _ => Self::Trace,
        }
    }

    fn of(level: &tracing::Level) -> Self {
        match *level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::TRACE => Self::Trace,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

impl std::str::FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let levels = [Self::Off, Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];
        let found = levels.into_iter().find(|level| level.name().eq_ignore_ascii_case(text));
        found.ok_or_else(|| format!("`{text}` is not a level: use off, error, warn, info, debug or trace"))
    }
}

/// Which records are kept: a level for all, and others for targets that start with a prefix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Filter {
    default: Level,
    // Longest first, so that the first that fits is the nearest.
    targets: Vec<(String, Level)>,
}

impl Default for Filter {
    fn default() -> Self {
        Self { default: Level::Info, targets: Vec::new() }
    }
}

impl Filter {
    /// Whether a record of this level and target is kept.
    pub fn keeps(&self, level: Level, target: &str) -> bool {
        let nearest = self.targets.iter().find(|(prefix, _)| target.starts_with(prefix.as_str()));
        level <= nearest.map_or(self.default, |(_, level)| *level)
    }
}

/// `info`, or `warn,my_plugin=debug`.
impl std::str::FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut filter = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((target, level)) => filter.targets.push((target.trim().to_owned(), level.trim().parse()?)),
                None => filter.default = part.parse()?,
            }
        }
        filter.targets.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Ok(filter)
    }
}

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// One line of the log.
#[derive(Clone, Debug)]
pub struct Record {
    /// When it was made.
    pub at: jiff::Timestamp,
    /// Its level.
    pub level: Level,
    /// The library or module path it comes from.
    pub target: String,
    /// What it says.
    pub message: String,
    /// What else it carries; `node` and `module` first.
    pub fields: Map<String, Value>,
}

impl Record {
    /// A record made now.
    pub fn now(level: Level, target: &str, message: &str, fields: Map<String, Value>) -> Self {
        let at = jiff::Timestamp::now();
        Self { at, level, target: target.to_owned(), message: message.to_owned(), fields }
    }

    /// The record of a JSON line, which another writer has written; none if it is no such line.
    pub(crate) fn from_line(line: &str) -> Option<Self> {
        let mut fields: Map<String, Value> = serde_json::from_str(line).ok()?;
        let mut text = |name: &str| match fields.shift_remove(name)? {
            Value::String(text) => Some(text),
            _ => None,
        };
        let (at, level) = (text("time")?.parse().ok()?, text("level")?.parse().ok()?);
        Some(Self { at, level, target: text("target")?, message: text("message")?, fields })
    }

    /// Without secrets. It is masked before it is a line, so that the line stays what it is.
    fn masked(mut self, secrets: &Redactor) -> Self {
        secrets.string(&mut self.target);
        secrets.string(&mut self.message);
        secrets.object(&mut self.fields);
        self
    }

    fn line(&self, format: Format, run: &Map<String, Value>) -> String {
        match format {
            Format::Text => self.to_string(),
            Format::Json => self.json(run).to_string(),
        }
    }

    fn json(&self, run: &Map<String, Value>) -> Value {
        let mut line = Map::new();
        line.insert("time".into(), format!("{:.6}", self.at).into());
        line.insert("level".into(), self.level.name().into());
        line.insert("target".into(), self.target.as_str().into());
        line.insert("message".into(), self.message.as_str().into());
        line.extend(run.clone());
        line.extend(self.fields.clone());
        Value::Object(line)
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A line is a line, whatever a record says.
        let message = self.message.replace('\n', "\\n");
        write!(f, "{:.3} {:<5} {}: {message}", self.at, self.level.name(), self.target)?;
        self.fields.iter().try_for_each(|(name, value)| match value {
            Value::String(text) => write!(f, " {name}={text:?}"),
            other => write!(f, " {name}={other}"),
        })
    }
}

enum Message {
    Record(Record),
    Run { tags: Map<String, Value>, file: File },
    Flush(SyncSender<()>),
    End,
}

/// Hands records to the writer. Cheap to clone.
#[derive(Clone)]
pub struct Log {
    filter: Arc<Filter>,
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    // The writer looks at it for each record; who starts a run adds to it.
    secrets: Arc<Mutex<Redactor>>,
}

/// The writer's thread; ends, with everything written, when it is dropped.
pub struct Writer {
    queue: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

/// Starts the writer. `sink` gets whole lines, each with its end: as many at a time as wait for it.
pub fn start(filter: Filter, format: Format, sink: impl FnMut(&str) + Send + 'static) -> (Log, Writer) {
    let (queue, messages) = sync_channel(QUEUE);
    let dropped = Arc::new(AtomicU64::new(0));
    let secrets = Arc::new(Mutex::new(Redactor::default()));
    let lines = Lines {
        format,
        run: Map::new(),
        copy: None,
        waiting: String::new(),
        to_copy: String::new(),
        dropped: dropped.clone(),
        secrets: secrets.clone(),
        sink,
    };
    let thread = std::thread::Builder::new()
        .name("pype-log".to_owned())
        .spawn(move || write_all(&messages, lines))
        .expect("the operating system lets the host start a thread");
    (Log { filter: Arc::new(filter), queue: queue.clone(), dropped, secrets }, Writer { queue, thread: Some(thread) })
}

fn write_all(messages: &Receiver<Message>, mut lines: Lines<impl FnMut(&str)>) {
    while let Ok(first) = messages.recv() {
        for message in std::iter::once(first).chain(messages.try_iter()) {
            match message {
                Message::Record(record) => lines.push(record),
                Message::Run { tags, file } => lines.belong_to(tags, file),
                Message::Flush(done) => {
                    lines.write();
                    done.send(()).unwrap_or(()); // Who asked may have gone.
                }
                Message::End => return lines.write(),
            }
        }
        lines.write();
    }
}

/// What the writer writes: lines that wait for a moment, so that many are written at once.
struct Lines<S> {
    format: Format,
    /// What lines of JSON say of the run.
    run: Map<String, Value>,
    /// Where they go besides.
    copy: Option<File>,
    waiting: String,
    /// What waits for the copy, where that is not the same.
    to_copy: String,
    dropped: Arc<AtomicU64>,
    secrets: Arc<Mutex<Redactor>>,
    sink: S,
}

impl<S: FnMut(&str)> Lines<S> {
    fn push(&mut self, record: Record) {
        let secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.tell(&record.masked(&secrets));
        if self.waiting.len() >= CHUNK {
            self.write();
        }
    }

    fn tell(&mut self, record: &Record) {
        if self.format == Format::Text && self.copy.is_some() {
            self.to_copy.push_str(&record.line(Format::Json, &self.run));
            self.to_copy.push('\n');
        }
        self.waiting.push_str(&record.line(self.format, &self.run));
        self.waiting.push('\n');
    }

    fn belong_to(&mut self, tags: Map<String, Value>, file: File) {
        self.write();
        (self.run, self.copy) = (tags, Some(file));
    }

    /// Writes what waits.
    fn write(&mut self) {
        let lost = self.dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let text = format!("{lost} debug records were dropped: the log is written slower than they come");
            self.tell(&Record::now(Level::Warn, "pype", &text, Map::new()));
        }
        if let Some(file) = &mut self.copy {
            let text = if self.format == Format::Json { &self.waiting } else { &self.to_copy };
            if let Err(cause) = file.write_all(text.as_bytes()) {
                self.copy = None;
                self.tell(&Record::now(Level::Warn, "pype", &format!("the log's file is lost: {cause}"), Map::new()));
            }
            self.to_copy.clear();
        }
        if !self.waiting.is_empty() {
            (self.sink)(&self.waiting);
            self.waiting.clear();
        }
    }
}

impl Log {
    /// Whether a record of this level and target would be kept.
    pub fn keeps(&self, level: Level, target: &str) -> bool {
        self.filter.keeps(level, target)
    }

    /// Which records are kept.
    pub(crate) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// Hands a record to the writer.
    pub fn write(&self, record: Record) {
        let waits = record.level <= Level::Info;
        match self.queue.try_send(Message::Record(record)) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            // The writer ends only with the process, so a failed send has nobody left to tell.
            Err(TrySendError::Full(record)) if waits => drop(self.queue.send(record)),
            Err(TrySendError::Full(_)) => drop(self.dropped.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// From now on records belong to a run: JSON lines say so by `tags`, and go to `file` too.
    pub fn belong_to(&self, tags: Map<String, Value>, file: File) {
        // A writer that has ended writes nothing any more.
        drop(self.queue.send(Message::Run { tags, file }));
    }

    /// Masks what `secrets` masks, from now on and in what waits to be written.
    pub fn hide(&self, secrets: &Redactor) {
        let mut hidden = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        *hidden = hidden.and(secrets);
    }

    /// Waits until everything so far is written.
    pub fn flush(&self) {
        let (done, written) = sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() {
            written.recv().unwrap_or(()); // Gone means written: the writer ends last.
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.queue.send(Message::End));
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            drop(writeln!(std::io::stderr(), "pype: the log's writer panicked"));
        }
    }
}

/// The host's own `tracing` records go the same way.
impl<S: Subscriber> Layer<S> for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>, _: Context<'_, S>) -> bool {
        self.keeps(Level::of(metadata.level()), metadata.target())
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        self.write(Record::now(Level::of(metadata.level()), metadata.target(), &fields.message, fields.others));
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => drop(self.others.insert(name.to_owned(), text.into())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn the_nearest_target_decides() {
        let filter: Filter = "warn,my_plugin=debug,my_plugin::noisy=off".parse().expect("a filter");
        assert!(filter.keeps(Level::Debug, "my_plugin::fetch"));
        assert!(!filter.keeps(Level::Error, "my_plugin::noisy"));
        assert!(!filter.keeps(Level::Info, "other"));
        assert_eq!(
            "loud".parse::<Filter>().expect_err("no level"),
            "`loud` is not a level: use off, error, warn, info, debug or trace"
        );
    }

    #[test]
    fn a_secret_is_masked_wherever_it_stands_in_a_record() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = lines.clone();
        let (log, writer) = start(Filter::default(), Format::Json, move |text| {
            written.lock().expect("no writer panics").extend(text.lines().map(str::to_owned));
        });
        log.hide(&Redactor::of(["\",\"x\":\""]));
        log.hide(&Redactor::of(["hunter2"]));
        let fields = Map::from_iter([
            ("url".to_owned(), "ftp://u:hunter2@h".into()),
            ("quotes".to_owned(), "a\",\"x\":\"b".into()),
        ]);
        log.write(Record::now(Level::Info, "lib_hunter2", "with hunter2\nor not", fields));
        drop(writer);
        let lines = lines.lock().expect("no writer panics");
        let line: Value = serde_json::from_str(&lines[0]).expect("a whole line");
        assert_eq!(line["target"], "lib_***");
        assert_eq!(line["message"], "with ***\nor not");
        assert_eq!((&line["url"], &line["quotes"]), (&Value::from("ftp://u:***@h"), &Value::from("a***b")));
    }

    #[test]
    fn every_line_is_whole_and_in_order_for_its_producer_however_slow_the_writer() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = lines.clone();
        let (log, writer) = start(Filter::default(), Format::Json, move |text| {
            assert!(text.ends_with('\n'), "{text}");
            written.lock().expect("no writer panics").extend(text.lines().map(str::to_owned));
            std::thread::sleep(std::time::Duration::from_millis(1));
        });
        std::thread::scope(|scope| {
            for producer in 0..4 {
                let log = log.clone();
                scope.spawn(move || {
                    for n in 0..10_000_u64 {
                        let fields = Map::from_iter([("n".to_owned(), n.into())]);
                        log.write(Record::now(Level::Info, &format!("p{producer}"), "two\nlines", fields));
                    }
                });
            }
        });
        drop(writer);
        let lines = lines.lock().expect("no writer panics");
        let mut next = std::collections::BTreeMap::<String, u64>::new();
        for line in lines.iter() {
            let line: Value = serde_json::from_str(line).expect("a whole line");
            let next = next.entry(line["target"].as_str().expect("a target").to_owned()).or_default();
            assert_eq!(line["n"], *next);
            *next += 1;
        }
        assert_eq!(next.into_values().collect::<Vec<_>>(), [10_000; 4]);
    }
}
