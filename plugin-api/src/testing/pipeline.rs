//! Stages, queues and sources of streams in process.

use std::collections::BTreeMap;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value};

use super::{FakeHost, block_on, install_panic_hook};
use crate::abi::{self, OpenRequest, Task};
use crate::error::Result;
use crate::glue::stage::{AsDispatch, AsExecute, AsStream, open};
use crate::host::{Chain, Going, Instance, NodeFacts, Returned};
use crate::logging;
use crate::pipeline::queue::NewJob;
use crate::pipeline::{Bytes, ContextStore, Dispatch, Execute, Field, Next, PipelineContext, RunFacts};
use crate::stream::StreamSource;

/// A test of a stage with these configs.
pub fn stage<M: Execute>(config: Value) -> StageTest {
    StageTest {
        open: open::<AsExecute<M>>,
        config,
        fields: Fields::default(),
        rest: at_once(|fields| Ok(Value::Object(fields.json()))),
    }
}

fn at_once(rest: impl Fn(&Fields) -> Result<Value> + Send + Sync + 'static) -> Rest {
    Arc::new(move |fields| Box::pin(ready(rest(fields))))
}

/// An opened queue with these configs.
///
/// # Errors
/// It does not open.
pub async fn queue<M: Dispatch>(config: Value) -> Result<Instance> {
    install_panic_hook();
    let host = Arc::new(FakeHost::new(&[], false));
    Instance::open_with(open::<AsDispatch<M>>, &config, &facts(), host).await
}

/// An opened source without an end, with these configs.
///
/// # Errors
/// It does not open.
pub async fn stream<M: StreamSource>(config: Value) -> Result<Instance> {
    install_panic_hook();
    let host = Arc::new(FakeHost::new(&[], false));
    Instance::open_with(open::<AsStream<M>>, &config, &facts(), host).await
}

/// A job of the pipeline `upload`, without an order, a key or a delay.
#[must_use]
pub fn job(id: &str) -> NewJob {
    NewJob {
        id: id.to_owned(),
        pipeline: "upload".to_owned(),
        version: "1.0.0".to_owned(),
        shard: None,
        ordered: false,
        idempotency_key: None,
        asked: None,
        delay_ms: 0,
        max_attempts: 3,
        payload: vec![1, 2, 3].into(),
    }
}

fn facts() -> NodeFacts {
    NodeFacts { node_id: "test".to_owned(), threads: 2, temp_dir: std::env::temp_dir(), ..NodeFacts::default() }
}

type Rest = Arc<dyn Fn(&Fields) -> Pin<Box<dyn Future<Output = Result<Value>> + Send>> + Send + Sync>;

/// A stage about to be run.
pub struct StageTest {
    open: fn(OpenRequest) -> Task<abi::Instance>,
    config: Value,
    fields: Fields,
    rest: Rest,
}

/// What a stage did.
#[derive(Debug)]
pub struct StageDone {
    /// The result of the chain, or of opening and closing the stage.
    pub result: Result<Value>,
    /// The context of each time that it went on.
    pub went_on_with: Vec<Fields>,
    /// Its log: `WARN the message`.
    pub log: Vec<String>,
}

/// The fields of a context in a test. They may have any type.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    /// By name.
    pub fields: BTreeMap<String, Field>,
    facts: RunFacts,
}

impl Fields {
    /// Those that are JSON.
    pub fn json(&self) -> Map<String, Value> {
        let json = self.fields.iter().filter_map(|(name, field)| match field {
            Field::Json(value) => Some((name.clone(), value.clone())),
            Field::Bytes(_) => None,
        });
        json.collect()
    }
}

impl ContextStore for Fields {
    fn facts(&self) -> RunFacts {
        self.facts.clone()
    }

    fn names(&self) -> Vec<String> {
        self.fields.keys().cloned().collect()
    }

    fn get(&self, name: &str) -> Option<Field> {
        self.fields.get(name).cloned()
    }

    fn set(&mut self, name: &str, field: Field) -> Result<()> {
        self.fields.insert(name.to_owned(), field);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> bool {
        self.fields.remove(name).is_some()
    }
}

impl StageTest {
    /// Gives the context a field.
    #[must_use]
    pub fn field(mut self, name: &str, value: Value) -> Self {
        self.fields.fields.insert(name.to_owned(), Field::Json(value));
        self
    }

    /// Gives the context a field of bytes.
    #[must_use]
    pub fn bytes(mut self, name: &str, bytes: impl Into<Bytes>) -> Self {
        self.fields.fields.insert(name.to_owned(), Field::Bytes(bytes.into()));
        self
    }

    /// Changes what the stage is told about the run.
    #[must_use]
    pub fn facts(mut self, change: impl FnOnce(&mut RunFacts)) -> Self {
        change(&mut self.fields.facts);
        self
    }

    /// What the rest of the chain does; otherwise it gives the context as an object.
    #[must_use]
    pub fn rest(mut self, rest: impl Fn(&Fields) -> Result<Value> + Send + Sync + 'static) -> Self {
        self.rest = at_once(rest);
        self
    }

    /// The same, for what takes its time.
    #[must_use]
    pub fn rest_later<R>(mut self, rest: impl Fn(&Fields) -> R + Send + Sync + 'static) -> Self
    where
        R: Future<Output = Result<Value>> + Send + 'static,
    {
        self.rest = Arc::new(move |fields| Box::pin(rest(fields)));
        self
    }

    /// Opens the stage, runs it once, and closes it.
    pub fn run(self) -> StageDone {
        block_on(self.go())
    }

    async fn go(self) -> StageDone {
        install_panic_hook();
        let host = Arc::new(FakeHost::new(&[], false));
        logging::install(crate::Context::new(NodeFacts::default(), crate::host::services_of(host.clone())));
        let went_on_with: Arc<Mutex<Vec<Fields>>> = Arc::default();
        let result = match Instance::open_with(self.open, &self.config, &facts(), host.clone()).await {
            Err(error) => Err(error),
            Ok(instance) => {
                let rest = Recorded { rest: self.rest, seen: went_on_with.clone() };
                let next = Next::new(Arc::new(rest));
                let returned = instance.execute(PipelineContext::new(self.fields), next).end().await;
                let result = returned.and_then(|returned| returned.read());
                let closed = instance.close().await;
                result.and_then(|value| closed.map(|()| value))
            }
        };
        let went_on_with = went_on_with.lock().unwrap_or_else(PoisonError::into_inner).clone();
        StageDone { result, went_on_with, log: host.log_lines() }
    }
}

/// The rest of the chain, and what it saw.
struct Recorded {
    rest: Rest,
    seen: Arc<Mutex<Vec<Fields>>>,
}

impl Chain for Recorded {
    fn run(self: &Arc<Self>, ctx: PipelineContext) -> Going {
        let recorded = self.clone();
        Going::later(async move {
            let fields = ctx.into_store::<Fields>()?;
            recorded.seen.lock().unwrap_or_else(PoisonError::into_inner).push(fields.clone());
            (recorded.rest)(&fields).await.map(Returned::from)
        })
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::context::Context;
    use crate::error::{Error, ErrorKind};

    #[derive(Deserialize, JsonSchema)]
    struct Config {
        times: u32,
    }

    /// Runs the rest until it succeeds, so often at most.
    struct Stubborn(Config);

    #[derive(Deserialize, PartialEq, Debug)]
    struct Upload {
        file_path: String,
        file_content: Bytes,
        size: Option<u64>,
    }

    impl Execute for Stubborn {
        const NAME: &'static str = "stubborn";
        type Config = Config;

        async fn open(config: Config, _: &Context) -> Result<Self> {
            Ok(Self(config))
        }

        async fn execute(&self, mut ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
            let upload: Upload = ctx.bind()?;
            assert_ne!(upload.file_path, "panic", "told to panic");
            ctx.set("size", upload.file_content.len())?;
            ctx.set_bytes("file_content", upload.file_content)?;
            let (rest, mut last) = (next.repeatable(), Ok(Value::Null));
            for _ in 0..self.0.times {
                last = rest.run(ctx.clone()).await;
                if last.is_ok() {
                    break;
                }
            }
            last
        }
    }

    fn stubborn(times: u32) -> StageTest {
        let content = vec![7; 5];
        stage::<Stubborn>(json!({ "times": times })).field("file_path", json!("a/b")).bytes("file_content", content)
    }

    #[test]
    fn a_stage_changes_the_context_and_goes_on_as_often_as_it_likes() {
        let failing = |_: &Fields| Err(Error::new(ErrorKind::Unavailable, "away", "nobody is there"));
        let done = stubborn(3).rest(failing).run();
        assert_eq!(done.result.expect_err("it failed each time").code, "away");
        assert_eq!(done.went_on_with.len(), 3);
        assert_eq!(done.went_on_with[2].fields["size"], Field::Json(json!(5)));
        let done = stubborn(3).run();
        assert_eq!((done.result, done.went_on_with.len()), (Ok(json!({"file_path": "a/b", "size": 5})), 1));
    }

    #[test]
    fn a_stage_that_does_not_go_on_ends_the_chain() {
        let done = stubborn(0).run();
        assert_eq!((done.result, done.went_on_with.len()), (Ok(Value::Null), 0));
    }

    #[test]
    fn what_does_not_fit_and_what_panics_is_an_error() {
        let error = |test: StageTest| test.run().result.expect_err("refused");
        let missing = stage::<Stubborn>(json!({ "times": 1 })).field("file_path", json!("x"));
        let missing = error(missing);
        assert_eq!((missing.code.as_str(), missing.message.contains("file_content")), ("unfit-context", true));
        let wrong = error(stubborn(1).field("file_path", json!(7)));
        assert!(wrong.message.contains("expected a string"), "{wrong}");
        assert_eq!(error(stubborn(1).field("file_path", json!("panic"))).kind, ErrorKind::Panicked);
    }

    #[test]
    fn bytes_reach_a_stage_and_go_on_without_being_copied() {
        let content = Bytes::from(vec![1; 1000]);
        let at = content.as_ptr();
        let done = stubborn(1).bytes("file_content", content).run();
        let Field::Bytes(went_on) = &done.went_on_with[0].fields["file_content"] else { panic!("bytes stay bytes") };
        assert_eq!(went_on.as_ptr(), at);
    }
}
