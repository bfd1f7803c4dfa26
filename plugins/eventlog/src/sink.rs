//! `event_log_sink`: the module.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use pype_plugin::Inputs;
use pype_plugin::prelude::*;
use tokio::runtime::Handle;

use crate::log::{Committed, EventLog};
use crate::shelf::Shelf;
use crate::shelf::folder::Folder;
use crate::shelf::objects::Objects;

/// The metadata with the time at which a stream of JetStream was made.
const CREATED: &str = "nats.created";

/// Configs of `event_log_sink`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the log is: a folder (`./sim_logs`), which only one pype may write a stream into at a time, and which it locks
    /// for that; or `s3://bucket/prefix` with the usual `AWS_…` variables, where that is for you to see to.
    #[schemars(extend("format" = "path"))]
    root: String,
    /// How many files are encoded at a time. When a batch has more large files than that, the largest is ended, and what
    /// belongs to it after that goes to another.
    #[serde(default = "open_files")]
    open_files: usize,
}

fn open_files() -> usize {
    64
}

/// Writes events into Parquet files, by simulation and hour, each exactly once however often its record comes.
pub(crate) struct EventLogSink {
    /// Behind a lock, because work on another thread goes on when its caller is cancelled: whoever comes next waits for it.
    log: Arc<Mutex<EventLog>>,
    writing: Duration,
}

impl Sink for EventLogSink {
    const NAME: &str = "event_log_sink";
    const DESCRIPTION: &str = "Writes events into Parquet files by simulation and hour, each event exactly once.";
    const CATEGORY: &str = "Event log";
    const PACKAGES: &[&str] = &["parquet", "roaring", "object_store"];
    type Config = Config;

    async fn open(config: Config, ctx: &Context) -> Result<Self> {
        let (folder, runtime) = (ctx.folder().to_owned(), Handle::current());
        let shelf = ctx.run_blocking(move || shelf(&config.root, &folder, runtime)).await?;
        let log = EventLog::new(shelf, config.open_files);
        Ok(Self { log: Arc::new(Mutex::new(log)), writing: Duration::ZERO })
    }

    async fn write(&mut self, mut inputs: Inputs, ctx: &Context) -> Result<()> {
        let frame = inputs.take("input")?;
        self.with_log(ctx, EventLog::write_begins).await?;
        let written = self.write_all(&frame, ctx).await;
        let succeeded = written.is_ok();
        let ended = self.with_log(ctx, move |log| log.write_ends(succeeded)).await;
        written.and(ended)
    }

    async fn commit(&mut self, ctx: &Context) -> Result<Vec<Commit>> {
        let committed = self.with_log(ctx, EventLog::commit).await.flatten()?;
        let writing = std::mem::take(&mut self.writing);
        tell(&committed, writing, ctx);
        Ok(committed.files)
    }

    async fn close(&mut self, ctx: &Context) -> Result<()> {
        self.with_log(ctx, EventLog::close).await
    }
}

impl EventLogSink {
    async fn write_all(&mut self, frame: &Frame, ctx: &Context) -> Result<()> {
        let schema = frame.arrow_schema().await?;
        let created = schema.metadata().get(CREATED).cloned().unwrap_or_default();
        while let Some(batch) = frame.next_record_batch(&schema).await? {
            let created = created.clone();
            self.with_log(ctx, move |log| log.write(&batch, &created)).await.flatten()?;
        }
        Ok(())
    }

    /// Has the log do something on a thread where it may block.
    async fn with_log<T: Send + 'static>(
        &mut self,
        ctx: &Context,
        work: impl FnOnce(&mut EventLog) -> T + Send + 'static,
    ) -> Result<T> {
        let (log, begun) = (self.log.clone(), Instant::now());
        let done = ctx.run_blocking(move || Ok(work(&mut whole(&log)))).await;
        self.writing += begun.elapsed();
        done
    }
}

/// The log. If work on it panicked, nobody knows which rows are in: none is.
fn whole(log: &Mutex<EventLog>) -> MutexGuard<'_, EventLog> {
    log.lock().unwrap_or_else(|poisoned| {
        log.clear_poison();
        let mut log = poisoned.into_inner();
        log.write_ends(false);
        log
    })
}

#[expect(clippy::cast_precision_loss, reason = "measurements")]
fn tell(committed: &Committed, writing: Duration, ctx: &Context) {
    let sum = |count: fn(&Commit) -> Option<u64>| committed.files.iter().filter_map(count).sum::<u64>() as f64;
    ctx.metric("event_log_files", committed.files.len() as f64);
    ctx.metric("event_log_rows", sum(|file| file.rows));
    ctx.metric("event_log_bytes", sum(|file| file.bytes));
    ctx.metric("event_log_rows_skipped", committed.skipped as f64);
    ctx.metric("event_log_write_seconds", writing.as_secs_f64());
    if committed.skipped > 0 {
        tracing::info!("skipped {} events that were in files already", committed.skipped);
    }
}

fn shelf(root: &str, folder: &Path, runtime: Handle) -> Result<Shelf> {
    let path = root.strip_prefix("file:").map(|path| path.strip_prefix("//").unwrap_or(path));
    match path {
        None if root.contains("://") => Ok(Shelf::Objects(Objects::open(root, runtime)?)),
        path => Ok(Shelf::Folder(Folder::open(&folder.join(path.unwrap_or(root)))?)),
    }
}
