//! A pipeline of stages in this process, its two parts opened apart, as two machines would.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use opentelemetry_proto::tonic::trace::v1::Span as Sent;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind as Kind;
use pype_core::catalog::{ModuleKind, parse_registry};
use pype_core::document::Source;
use pype_core::pipeline::context::Context as Fields;
use pype_core::pipeline::load_and_plan;
use pype_plugin::__private::{LibHeader, Library as Exported, ModuleExport, Preamble, header};
use pype_plugin::abi::root;
use pype_plugin::host::{Library, NodeFacts};
use pype_plugin::prelude::*;
use pype_plugin::queue::{Accepted, Job, JobAction, JobFilter, Lease, LeaseRequest, NewJob, Verdict};
use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::observe::log::{self, Log};
use crate::observe::spans::tests::{Collector, attributes};
use crate::pipeline::instances::{Home, Instances, Opener};
use crate::pipeline::open::StageServices;
use crate::pipeline::stage::OpenStage;
use crate::pipeline::{Answer, Metrics, Opened, worker};
use crate::secret::Redactor;

const DOCUMENT: &str = "\
pipeline: {name: upload, version: 1.2.0}
context: {version: '1', fields: {seen: str?}}
stages:
  - {execute: work, id: first}
  - {dispatch: keep, retry: {attempts: 2}}
  - {execute: work, id: store, configs: {fails: 1}, retry: {attempts: 2, delay_ms: 1}}
";

const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Notes the span that it runs in.
struct Work {
    /// So often, at first.
    fails: u64,
    calls: AtomicU64,
}

impl Execute for Work {
    const NAME: &'static str = "work";
    type Config = Map<String, Value>;

    async fn open(config: Self::Config, _: &Context) -> Result<Self> {
        let fails = config.get("fails").and_then(Value::as_u64).unwrap_or_default();
        Ok(Self { fails, calls: AtomicU64::new(0) })
    }

    async fn execute(&self, mut ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        if self.calls.fetch_add(1, Ordering::Relaxed) < self.fails {
            return Err(Error::new(ErrorKind::Unavailable, "no-login", "no login with hunter2").retryable(true));
        }
        let trace = ctx.facts().trace;
        ctx.set("seen", trace)?;
        next.run(ctx).await
    }
}

/// A queue that lends what it has, once.
#[derive(Default)]
struct Keep(Mutex<VecDeque<NewJob>>);

impl Dispatch for Keep {
    const NAME: &'static str = "keep";
    type Config = Map<String, Value>;

    async fn open(_: Self::Config, _: &Context) -> Result<Self> {
        Ok(Self::default())
    }

    async fn enqueue(&self, job: NewJob, _: &Context) -> Result<Accepted> {
        let accepted = Accepted { id: job.id.clone(), duplicate: false };
        self.0.lock().expect("no test panics with it").push_back(job);
        Ok(accepted)
    }

    async fn lease(&self, _: LeaseRequest, _: &Context) -> Result<Vec<LeasedJob>> {
        let lend = |NewJob { id, pipeline, version, max_attempts, payload, .. }| LeasedJob {
            lease: Lease { job: id, token: 1 },
            pipeline,
            version,
            attempt: 1,
            max_attempts,
            payload,
        };
        Ok(self.0.lock().expect("no test panics with it").drain(..).map(lend).collect())
    }

    async fn extend(&self, _: Lease, _: u64, _: &Context) -> Result<()> {
        Ok(())
    }

    async fn conclude(&self, _: Lease, _: Verdict, _: &Context) -> Result<()> {
        Ok(())
    }

    async fn job(&self, _: &str, _: &Context) -> Result<Option<Job>> {
        Ok(None)
    }

    async fn jobs(&self, _: JobFilter, _: &Context) -> Result<Vec<Job>> {
        Ok(Vec::new())
    }

    async fn act(&self, _: &str, _: JobAction, _: &Context) -> Result<()> {
        Ok(())
    }

    async fn purge(&self, _: JobFilter, _: &Context) -> Result<u64> {
        Ok(0)
    }
}

struct InProcess;

impl Exported for InProcess {
    const NAME: &'static str = "in_process";
    const VERSION: &'static str = "1.0.0";

    fn modules() -> Vec<ModuleExport> {
        vec![ModuleExport::execute::<Work>(), ModuleExport::dispatch::<Keep>()]
    }
}

static HEADER: LibHeader = header::<InProcess>();
static PREAMBLE: Preamble = Preamble::new(&HEADER);
static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    // SAFETY: it is what a library exports, and this one is the process itself.
    Library::new(unsafe { root(&PREAMBLE, false) }.unwrap_or_else(|problem| panic!("{problem:?}")))
});

fn plan() -> Arc<Plan> {
    let module = |kind: &str, configs: Value| {
        json!({
            "module_path": "in_process", "type": kind, "version": "1.0.0", "description": "", "category": "Other",
            "input_ports": [], "output_ports": [], "globals": [], "packages": [],
            "config_schema": {"required": {}, "optional": configs}, "api_version": "1.0",
        })
    };
    let fails = json!({"fails": {"type": "int", "description": "", "schema": {"type": "integer"}}});
    let registry = json!({"work": module("execute", fails), "keep": module("dispatch", json!({}))}).to_string();
    let (catalog, wrong) = parse_registry(Path::new("modules.json"), &registry);
    assert!(wrong.is_empty(), "{wrong:?}");
    let planned = load_and_plan(&Source::new("upload.yaml", DOCUMENT), &catalog, &Default::default());
    Arc::new(planned.unwrap_or_else(|found| panic!("{found}")).0)
}

async fn opened(plan: &Arc<Plan>, spans: &Spans, log: &Log) -> Arc<Opened> {
    let cancel = CancellationToken::new();
    let mut stages = Vec::new();
    for stage in plan.stages() {
        let services = Arc::new(StageServices {
            log: log.clone(),
            spans: spans.clone(),
            pipeline: plan.name().to_string(),
            stage: stage.id.to_string(),
            cancel: cancel.clone(),
        });
        let opener = Opener {
            home: Home::Here(*LIBRARY),
            module: stage.module.to_string(),
            configs: stage.configs.clone(),
            facts: NodeFacts { node_id: stage.id.to_string(), threads: 1, ..NodeFacts::default() },
            services,
            exclusive: false,
        };
        let instances = Instances::open(opener).await.expect("it opens");
        let (stage, redactor) = (stage.clone(), Redactor::of(["hunter2"]));
        stages.push(Arc::new(OpenStage { stage, instances, redactor, spans: spans.clone() }));
    }
    Arc::new(Opened {
        plan: plan.clone(),
        stages,
        dead_letter: None,
        large: None,
        observer: Arc::new(|_| {}),
        metrics: Metrics::default(),
        runs: Metrics::default().runs(plan.name().as_str()),
        spans: spans.clone(),
        cancel,
        queue_key: None,
        _scratch: tempfile::tempdir().expect("a temporary folder"),
    })
}

/// Runs both parts; the result of the job.
async fn both_parts(caller: &Spans, background: &Spans) -> Value {
    let (log, _writer) = log::start(Default::default(), Default::default(), |_| {});
    let plan = plan();
    assert_eq!(plan.dispatch().map(Stage::kind), Some(ModuleKind::Dispatch));
    let (server, machine) = (opened(&plan, caller, &log).await, opened(&plan, background, &log).await);
    let context = Fields::from_json(plan.context(), json!({})).expect("it fits");
    let asked = Asked { trace: Some(CALLER.to_owned()), over_http: true, ..Asked::default() };
    let answer = server.run(context, asked).await;
    assert!(matches!(answer, Ok(Answer::Accepted(_))), "{answer:?}");
    let request = LeaseRequest {
        worker: String::new(),
        pipelines: vec!["upload".to_owned()],
        count: 1,
        visibility_ms: 1_000,
        wait_ms: 0,
        job: None,
    };
    let mut jobs = server.queue().expect("there is one").lease(request).await.expect("it lends");
    let (verdict, _) = worker::verdict(&machine, jobs.pop().expect("one was accepted")).await;
    verdict.result().cloned().unwrap_or_else(|| panic!("{verdict:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_covers_the_caller_and_whoever_does_the_job() {
    let collector = Collector::start().await;
    let ((caller, first), (background, second)) = (collector.exporter(), collector.exporter());
    let result = both_parts(&caller, &background).await;

    let sent = collector.sent([first, second]).await;
    let told = |span: &Sent| (span.name.clone(), span.kind());
    let names = ["run upload", "first", "send upload", "process upload", "store", "store"];
    let kinds = [Kind::Server, Kind::Internal, Kind::Producer, Kind::Consumer, Kind::Internal, Kind::Internal];
    let expected: Vec<_> = names.into_iter().map(str::to_owned).zip(kinds).collect();
    assert_eq!(sent.iter().map(told).collect::<Vec<_>>(), expected);
    let [run, first, send, process, failed, again] = sent.as_slice() else { panic!("{sent:?}") };

    assert!(sent.iter().all(|span| hex::encode(&span.trace_id) == CALLER[3..35]));
    assert_eq!(hex::encode(&run.parent_span_id), CALLER[36..52]);
    for (child, parent) in [(first, run), (send, first), (process, send), (failed, process), (again, process)] {
        assert_eq!(child.parent_span_id, parent.span_id, "{}", child.name);
    }
    assert_eq!(process.links.iter().map(|link| &link.span_id).collect::<Vec<_>>(), [&send.span_id]);

    let status = |span: &Sent| span.status.as_ref().map(|status| (status.code, status.message.clone()));
    assert_eq!(status(failed), Some((2, "no login with ***".to_owned())));
    assert!(sent.iter().filter(|span| span.status.as_ref().is_some_and(|status| status.code == 2)).count() == 1);
    let attempt = |span: &Sent| attributes(span).get("pype.attempt").cloned();
    assert_eq!((attempt(failed), attempt(again)), (Some("1".to_owned()), Some("2".to_owned())));
    let expected = [
        ("error.type", "no-login"),
        ("pype.attempt", "1"),
        ("pype.error.kind", "unavailable"),
        ("pype.module", "work"),
        ("pype.pipeline", "upload"),
        ("pype.pipeline.version", "1.2.0"),
        ("pype.stage", "store"),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    assert_eq!(attributes(failed), expected);
    let (sent_as, done_as) = (attributes(send), attributes(process));
    assert_eq!(sent_as["messaging.message.id"], done_as["messaging.message.id"]);
    assert_eq!((sent_as["messaging.system"].as_str(), done_as["pype.verdict"].as_str()), ("keep", "succeeded"));
    // A stage can go on from the span that it runs in.
    let own = format!("00-{}-{}-01", hex::encode(&again.trace_id), hex::encode(&again.span_id));
    assert_eq!(result["seen"], own);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_traced_stages_see_what_the_caller_sent() {
    assert_eq!(both_parts(&Spans::default(), &Spans::default()).await["seen"], CALLER);
}
