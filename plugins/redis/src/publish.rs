//! `redis_publish`: tells those who listen to a channel.

use pype_plugin::RetryPolicy;
use pype_plugin::prelude::*;

use crate::connection::{self, Server};

pub(crate) struct RedisPublish {
    server: Server,
    config: Config,
}

/// What is told, and where.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The server: `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]`, or `rediss://…` with TLS.
    #[serde(default = "connection::local")]
    url: String,
    /// The channel. Who does not listen at the moment never hears of it.
    channel: String,
    /// The fields that are sent, as one JSON object; all that are no bytes, if none is named.
    #[serde(default)]
    fields: Vec<String>,
    /// The field that is sent as it is instead: text or bytes.
    #[serde(default)]
    body: Option<String>,
}

impl Execute for RedisPublish {
    const NAME: &'static str = "redis_publish";
    const DESCRIPTION: &'static str = "Publishes fields of the context to a channel of Redis";
    const CATEGORY: &'static str = "Messages";
    const PACKAGES: &'static [&'static str] = &["redis"];
    type Config = Config;
    const RETRY: Option<RetryPolicy> = Some(RetryPolicy::attempts(3));

    async fn open(config: Config, _: &Context) -> Result<Self> {
        if config.body.is_some() && !config.fields.is_empty() {
            let message = "`fields` and `body` both say what is published";
            return Err(Error::new(ErrorKind::Config, "fields-and-body", message).hint("leave one of them out"));
        }
        Ok(Self { server: Server::connect(&config.url).await?, config })
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        let message = ctx.message(self.config.body.as_deref(), &self.config.fields)?;
        let heard: u64 = self.server.call(redis::cmd("PUBLISH").arg(&self.config.channel).arg(message)).await?;
        tracing::debug!(channel = self.config.channel, heard, "published");
        next.run(ctx).await
    }
}
