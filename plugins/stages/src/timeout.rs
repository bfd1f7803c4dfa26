//! `timeout`: bounds how long the rest of a chain may take.

use std::time::Duration;

use pype_plugin::prelude::*;

pub(crate) struct Timeout(Duration);

/// How long.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// So many seconds, with a fraction if need be.
    seconds: f64,
}

impl Execute for Timeout {
    const NAME: &'static str = "timeout";
    const DESCRIPTION: &'static str = "Ends the rest of the chain with an error when it takes too long";
    const CATEGORY: &'static str = "Control";
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        let time = Duration::try_from_secs_f64(config.seconds).ok().filter(|time| !time.is_zero());
        time.map(Self).ok_or_else(|| {
            let message = format!("`seconds` must be more than 0, not {}", config.seconds);
            Error::new(ErrorKind::Config, "bad-time", message)
        })
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        tokio::time::timeout(self.0, next.run(ctx)).await.unwrap_or_else(|_| {
            let message = format!("the stages after it took longer than {} s", self.0.as_secs_f64());
            Err(Error::new(ErrorKind::TimedOut, "timed-out", message).retryable(true))
        })
    }
}

#[cfg(test)]
mod tests {
    use pype_plugin::testing::stage;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_in_time_goes_through_and_a_time_of_nothing_is_refused() {
        assert_eq!(stage::<Timeout>(json!({"seconds": 30})).run().result, Ok(json!({})));
        for seconds in [0.0, -1.0] {
            let error = stage::<Timeout>(json!({ "seconds": seconds })).run().result.expect_err("refused");
            assert_eq!(error.code, "bad-time");
        }
    }
}
