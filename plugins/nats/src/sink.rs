//! `nats_sink`: rows as messages.

use std::sync::Arc;

use arrow_array::RecordBatch;
use pype_plugin::prelude::*;
use pype_plugin::stream::{BytesColumn, HeadersColumn, no_column, wrong_type};

use crate::connection::{Connection, Servers};
use crate::send::{self, Message};
use crate::subject;

/// What to publish, and where. The column `value` is the message; `headers`, if there is one with lists of names and values as
/// records have it, its headers.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(flatten)]
    servers: Servers,
    /// The subject of all messages.
    #[serde(default)]
    subject: Option<String>,
    /// The column with the subject of each message; without either it is `topic`.
    #[serde(default)]
    subject_column: Option<String>,
    /// The column with what tells one message from another: with the same, a stream takes one within its window for duplicates.
    #[serde(default)]
    message_id: Option<String>,
    /// Whether streams must take the messages and confirm each. Otherwise they go to whoever listens.
    #[serde(default = "yes")]
    jetstream: bool,
}

fn yes() -> bool {
    true
}

/// Publishes rows. What `write` was given leaves at `commit`, which returns when all of it was confirmed.
pub(crate) struct NatsSink {
    connection: Arc<Connection>,
    subjects: Subjects,
    message_id: Option<String>,
    jetstream: bool,
    written: Vec<Rows>,
}

/// Where messages go.
enum Subjects {
    All(String),
    Column(String),
}

/// The columns of a batch that matter.
struct Rows {
    count: usize,
    subjects: Option<BytesColumn>,
    values: BytesColumn,
    headers: Option<HeadersColumn>,
    ids: Option<BytesColumn>,
}

impl Sink for NatsSink {
    const NAME: &str = "nats_sink";
    const DESCRIPTION: &str = "Publishes rows as messages of NATS, and waits until they are confirmed";
    const CATEGORY: &str = "NATS";
    const PACKAGES: &[&str] = &["async-nats"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        let subjects = match (config.subject, config.subject_column) {
            (Some(subject), None) => {
                subject::check_target(&subject)?;
                Subjects::All(subject)
            }
            (None, column) => Subjects::Column(column.unwrap_or_else(|| "topic".to_owned())),
            (Some(_), Some(_)) => {
                let message = "`subject` and `subject_column` both say where messages go";
                return Err(Error::new(ErrorKind::Config, "two-subjects", message).hint("leave one of them out"));
            }
        };
        let connection = Connection::open(&config.servers).await?;
        let Config { message_id, jetstream, .. } = config;
        Ok(Self { connection, subjects, message_id, jetstream, written: Vec::new() })
    }

    async fn write(&mut self, mut inputs: Inputs, _: &Context) -> Result<()> {
        let frame = inputs.take("input")?;
        let schema = frame.arrow_schema().await?;
        while let Some(batch) = frame.next_record_batch(&schema).await? {
            self.written.push(self.rows(&batch)?);
        }
        Ok(())
    }

    async fn commit(&mut self, _: &Context) -> Result<Vec<Commit>> {
        let mut messages = Vec::with_capacity(self.written.iter().map(|rows| rows.count).sum());
        for rows in &self.written {
            for row in 0..rows.count {
                messages.push(self.message(rows, row)?);
            }
        }
        let rows = messages.len() as u64;
        let bytes = match self.jetstream {
            true => self.connection.store_all(messages).await?,
            false => self.connection.publish_all(messages).await?,
        };
        self.written.clear();
        let uri = match &self.subjects {
            Subjects::All(subject) => Some(format!("nats:{subject}")),
            Subjects::Column(_) => None,
        };
        Ok(vec![Commit { rows: Some(rows), bytes: Some(bytes), uri }])
    }
}

impl NatsSink {
    fn rows(&self, batch: &RecordBatch) -> Result<Rows> {
        let subjects = match &self.subjects {
            Subjects::All(_) => None,
            Subjects::Column(name) => Some(bytes(batch, name)?),
        };
        let headers = batch.column_by_name("headers").map(|column| {
            HeadersColumn::of(column).ok_or_else(|| wrong_type("headers", column, "lists of names and values"))
        });
        Ok(Rows {
            count: batch.num_rows(),
            subjects,
            values: bytes(batch, "value")?,
            headers: headers.transpose()?,
            ids: self.message_id.as_deref().map(|name| bytes(batch, name)).transpose()?,
        })
    }

    fn message(&self, rows: &Rows, row: usize) -> Result<Message> {
        let subject = match (&self.subjects, &rows.subjects) {
            (Subjects::All(subject), _) => subject.clone(),
            (Subjects::Column(name), subjects) => {
                let subject = subjects.as_ref().and_then(|subjects| subjects.text(row)).ok_or_else(|| {
                    Error::new(ErrorKind::Data, "no-subject", format!("the row {row} has no subject in `{name}`"))
                })?;
                subject::check_target(subject)?;
                subject.to_owned()
            }
        };
        let headers = match &rows.headers {
            Some(headers) => send::headers(headers.get(row))?,
            None => async_nats::HeaderMap::new(),
        };
        let payload = bytes::Bytes::copy_from_slice(rows.values.get(row).unwrap_or_default());
        let mut message = Message { subject, headers, payload };
        if let Some(id) = rows.ids.as_ref().and_then(|ids| ids.text(row)) {
            message.identify(id);
        }
        Ok(message)
    }
}

fn bytes(batch: &RecordBatch, name: &str) -> Result<BytesColumn> {
    let column = batch.column_by_name(name).ok_or_else(|| no_column(batch, name))?;
    BytesColumn::of(column).ok_or_else(|| wrong_type(name, column, "text or bytes"))
}
