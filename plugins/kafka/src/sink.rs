//! `kafka_sink`: rows as records of a topic.

use pype_plugin::prelude::*;
use pype_plugin::stream::Records;

use crate::config::Connection;
use crate::producer::Producer;

/// Where to send rows. The column `value` is the record, of text or bytes; `key` and `headers` (lists of names and values) count if they
/// are there.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Config {
    #[serde(flatten)]
    connection: Connection,
    /// The topic; without it, each row goes to the one in its column `topic`.
    #[serde(default)]
    topic: Option<String>,
}

/// Sends records. What `write` was given leaves at `commit`, which returns when the brokers have confirmed all of it.
pub(crate) struct KafkaSink {
    producer: Option<Producer>,
    topic: Option<String>,
    written: Vec<Records>,
}

impl Sink for KafkaSink {
    const NAME: &str = "kafka_sink";
    const DESCRIPTION: &str = "Sends records to a Kafka topic, and waits until the brokers have confirmed them.";
    const CATEGORY: &str = "Kafka";
    const PACKAGES: &[&str] = &["rdkafka"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        Ok(Self { producer: Some(Producer::new(&config.connection)?), topic: config.topic, written: Vec::new() })
    }

    async fn write(&mut self, mut inputs: Inputs, _: &Context) -> Result<()> {
        let frame = inputs.take("input")?;
        let schema = frame.arrow_schema().await?;
        while let Some(batch) = frame.next_record_batch(&schema).await? {
            self.written.extend(Records::of_rows(&batch, self.topic.as_deref())?);
        }
        Ok(())
    }

    async fn commit(&mut self, _: &Context) -> Result<Vec<Commit>> {
        let producer = self.producer.as_ref().expect("it is there until it is closed");
        producer.send(&self.written).await?;
        let rows = self.written.drain(..).map(|records| records.len() as u64).sum();
        let uri = self.topic.as_ref().map(|topic| format!("kafka:{topic}"));
        Ok(vec![Commit { rows: Some(rows), uri, ..Commit::default() }])
    }

    async fn close(&mut self, ctx: &Context) -> Result<()> {
        match self.producer.take() {
            Some(producer) => {
                ctx.run_blocking(move || {
                    producer.close();
                    Ok(())
                })
                .await
            }
            None => Ok(()),
        }
    }
}
