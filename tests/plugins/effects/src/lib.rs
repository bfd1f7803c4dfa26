//! A stage whose effects a test can look at: it writes down when it begins with a record and when it has done it. And a decoder
//! that some records crash.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use pype_plugin::prelude::*;
use pype_plugin::{Frame, Inputs, Outputs};
use tokio::sync::oneshot;

#[derive(Deserialize, JsonSchema)]
struct Config {
    /// Where it is written down; processes may share it.
    file: Option<String>,
    /// How long its work takes, in microseconds.
    #[serde(default)]
    work_us: u64,
    /// Whether it holds its thread meanwhile, as what computes does.
    #[serde(default)]
    computes: bool,
    /// Offsets at which it fails, whatever it is tried.
    #[serde(default)]
    fails_at: Vec<i64>,
    /// Of so many attempts one fails, whichever it is; 0 of none.
    #[serde(default)]
    fails_one_in: u64,
    /// Offsets at which it takes its process down.
    #[serde(default)]
    crashes_at: Vec<i64>,
    /// Offsets at which it never ends, and holds its thread.
    #[serde(default)]
    hangs_at: Vec<i64>,
}

struct Effect {
    file: Option<File>,
    config: Config,
    alarms: mpsc::Sender<Alarm>,
}

#[derive(Deserialize)]
struct Fields {
    key: String,
    partition: i64,
    offset: i64,
}

impl Effect {
    /// One write of a short line to a file that is appended to: lines of several processes stay whole, and in order.
    fn note(&self, what: char, fields: &Fields) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let line = format!("{what} {} {} {}\n", fields.key, fields.partition, fields.offset);
        Ok((&*file).write_all(line.as_bytes())?)
    }
}

impl Execute for Effect {
    const NAME: &str = "effect";
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        let open = |path| OpenOptions::new().create(true).append(true).open(path);
        let (alarms, set) = mpsc::channel();
        std::thread::spawn(move || ring(&set));
        Ok(Self { file: config.file.as_ref().map(open).transpose()?, config, alarms })
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        if self.file.is_some() || !self.config.fails_at.is_empty() {
            let fields: Fields = ctx.bind()?;
            self.note('B', &fields)?;
            if self.config.crashes_at.contains(&fields.offset) {
                // SAFETY: there is none; that is what the config is for.
                unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
            }
            while self.config.hangs_at.contains(&fields.offset) {
                std::thread::park();
            }
            if self.config.fails_at.contains(&fields.offset) {
                return Err(Error::new(ErrorKind::Unavailable, "told-to", "it was told to fail").retryable(true));
            }
            self.work().await;
            if self.is_unlucky() {
                return Err(Error::new(ErrorKind::Unavailable, "unlucky", "this attempt was to fail").retryable(true));
            }
            self.note('E', &fields)?;
        } else {
            self.work().await;
        }
        next.run(ctx).await
    }
}

impl Effect {
    /// Whether an attempt is one of those that fail.
    fn is_unlucky(&self) -> bool {
        use std::hash::{BuildHasher, RandomState};
        self.config.fails_one_in > 0 && RandomState::new().hash_one(()).is_multiple_of(self.config.fails_one_in)
    }

    /// Takes at least its time. What is short the system would make longer: it yields until it is over.
    async fn work(&self) {
        let until = Instant::now() + Duration::from_micros(self.config.work_us);
        match self.config.work_us {
            0 => {}
            _ if self.config.computes => {
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            }
            SHORT_US.. => {
                let (ring, rung) = oneshot::channel();
                self.alarms.send((until, ring)).expect("who rings ends after this stage");
                rung.await.expect("each is rung");
            }
            _ => {
                while Instant::now() < until {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// From so long on, in microseconds, work is waiting.
const SHORT_US: u64 = 1_000;

/// When somebody is to be woken, and who. A timer of tokio's has milliseconds, and is late by up to two; the answer of a
/// server, for which this stands, wakes whoever waits for it at once.
type Alarm = (Instant, oneshot::Sender<()>);

/// Wakes all, in the order of their times, which is the one they come in: each waits equally long.
fn ring(alarms: &mpsc::Receiver<Alarm>) {
    for (until, ring) in alarms {
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        ring.send(()).unwrap_or(()); // Who waited may have gone.
    }
}

#[derive(Deserialize, JsonSchema)]
struct PickyConfig {
    /// It takes its process down when there is one of these in the column `offset`.
    crashes_at: Vec<i64>,
}

/// Gives its rows on, all or none.
struct Picky(PickyConfig);

impl Mod for Picky {
    const NAME: &'static str = "picky";
    const INPUTS: &'static [&'static str] = &["input"];
    const OUTPUTS: &'static [&'static str] = &["output"];
    type Config = PickyConfig;

    async fn open(config: PickyConfig, _: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn run(&mut self, mut inputs: Inputs, _: &Context) -> Result<Outputs> {
        let frame = inputs.take("input")?;
        let schema = frame.arrow_schema().await?;
        let mut batches = Vec::new();
        while let Some(batch) = frame.next_record_batch(&schema).await? {
            let offsets = batch["offset"].as_primitive::<Int64Type>().clone();
            if offsets.values().iter().any(|offset| self.0.crashes_at.contains(offset)) {
                // SAFETY: there is none; that is what the config is for.
                unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
            }
            batches.push(batch);
        }
        Ok(Outputs::one("output", Frame::from_record_batches(schema, batches)))
    }
}

export_plugin! { executes: [Effect], mods: [Picky] }
