//! `logging`: says in the log when a run comes by, and how it ended.

use std::time::Instant;

use pype_plugin::prelude::*;

pub(crate) struct Logging(Config);

/// What is said.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Fields of the context that are said with it. Bytes are told by their number.
    #[serde(default)]
    fields: Vec<String>,
}

impl Execute for Logging {
    const NAME: &'static str = "logging";
    const DESCRIPTION: &'static str = "Logs that a run goes on, and how the rest of it ended";
    const CATEGORY: &'static str = "Observing";
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        let (fields, facts) = (Value::Object(told(&ctx, &self.0.fields)?).to_string(), ctx.facts());
        let (job, attempt) = (facts.job_id.unwrap_or_default(), facts.attempt);
        tracing::info!(job, attempt, fields, "goes on");
        let began = Instant::now();
        let result = next.run(ctx).await;
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &result {
            Ok(_) => tracing::info!(job, attempt, ms, "succeeded"),
            Err(error) => tracing::warn!(job, attempt, ms, "failed: {error}"),
        }
        result
    }
}

/// Those of the fields that there are, as they may be told.
pub(crate) fn told(ctx: &PipelineContext, names: &[String]) -> Result<serde_json::Map<String, Value>> {
    let mut told = serde_json::Map::new();
    for name in names {
        told.extend(ctx.field(name)?.map(|field| (name.clone(), shown(field))));
    }
    Ok(told)
}

fn shown(field: pype_plugin::Field) -> Value {
    match field {
        pype_plugin::Field::Json(value) => value,
        pype_plugin::Field::Bytes(bytes) => format!("{} bytes", bytes.len()).into(),
    }
}

#[cfg(test)]
mod tests {
    use pype_plugin::testing::stage;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_comes_by_and_how_it_ends_is_said() {
        let test = || {
            let test = stage::<Logging>(json!({"fields": ["file_path", "file_content", "absent"]}));
            test.field("file_path", json!("a/b")).bytes("file_content", vec![1, 2])
        };
        let done = test().run();
        assert_eq!(done.result, Ok(json!({"file_path": "a/b"})));
        assert_eq!(done.log, ["INFO goes on", "INFO succeeded"]);
        let done = test().rest(|_| Err(Error::new(ErrorKind::Io, "x", "the disk is full"))).run();
        assert_eq!(done.log, ["INFO goes on", "WARN failed: the disk is full"]);
    }
}
