//! What crossing the boundary costs, through a real library, beside what it is made of.
//!
//! `cargo bench --bench boundary`. Aims: a sync call ≤ 5 ns, a ready future ≤ 60 ns, a batch ≤ 1.5 × the bare Arrow export
//! and import of the same batch (`batch/…` against `bare/…`).

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::ffi::{FFI_ArrowArray, from_ffi_and_data_type};
use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch, StructArray};
use arrow_schema::{DataType, Field, Schema};
use criterion::{Criterion, criterion_group, criterion_main};
use pype::loader::Loader;
use pype::observe::log::{Filter, Format, start};
use pype::run::LibraryServices;
use pype_plugin::Frame;
use pype_plugin::host::{Instance, Library, LibraryFacts, NodeFacts, adopt_runtime};
use pype_tests::plugin;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

struct Bench {
    runtime: Runtime,
    library: Library,
    services: Arc<LibraryServices>,
}

impl Bench {
    fn new() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        adopt_runtime(runtime.handle().clone());
        let (log, _writer) = start(Filter::default(), Format::Text, |_| {});
        let services = Arc::new(LibraryServices::new(log));
        let loader = Loader::new(services.clone(), LibraryFacts::default()).expect("a cache");
        let library = loader.load(&plugin("bench"), None).expect("the library loads").library;
        Self { runtime, library, services }
    }

    fn open(&self, module: &str, configs: &Value) -> Instance {
        let facts = NodeFacts::default();
        let opening = self.library.open(module, configs, &facts, self.services.clone());
        self.runtime.block_on(opening).expect("the module opens")
    }

    fn frame(&self, module: &str, configs: &Value) -> Frame {
        let instance = self.open(module, configs);
        let mut outputs = self.runtime.block_on(instance.run(Vec::new())).expect("the source runs");
        outputs.remove(0).1
    }
}

fn calls(criterion: &mut Criterion) {
    let bench = Bench::new();
    // The plugin calls the host in a loop; what one open and run cost besides is lost in the count.
    criterion.bench_function("sync call", |bencher| {
        bencher.iter_custom(|count| {
            let instance = bench.open("calls_solo", &json!({ "count": count }));
            let start = Instant::now();
            bench.runtime.block_on(instance.run(Vec::new())).expect("it runs");
            start.elapsed()
        });
    });
    let instance = bench.open("noop_solo", &json!({}));
    bench.runtime.block_on(instance.close()).expect("it closes");
    criterion.bench_function("ready future", |bencher| {
        bencher.iter_custom(|count| {
            bench.runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..count {
                    instance.close().await.expect("closed already");
                }
                start.elapsed()
            })
        });
    });
    let instance = bench.open("noop_solo", &json!({}));
    criterion.bench_function("run of a no-op solo", |bencher| {
        bencher.iter_custom(|count| {
            bench.runtime.block_on(async {
                let start = Instant::now();
                for _ in 0..count {
                    black_box(instance.run(Vec::new()).await.expect("it runs"));
                }
                start.elapsed()
            })
        });
    });
}

fn batches(criterion: &mut Criterion) {
    let bench = Bench::new();
    for columns in [1_usize, 2, 10, 100] {
        let mut group = criterion.benchmark_group(format!("{columns} columns"));
        group.bench_function("batch", |bencher| {
            bencher.iter_custom(|count| {
                let frame = bench.frame("batches_source", &json!({ "count": count, "columns": columns }));
                bench.runtime.block_on(async {
                    let schema = frame.arrow_schema().await.expect("a schema");
                    let start = Instant::now();
                    while let Some(batch) = frame.next_record_batch(&schema).await.expect("a batch") {
                        black_box(batch);
                    }
                    start.elapsed()
                })
            });
        });
        let batch = record_batch(columns);
        let data_type = DataType::Struct(batch.schema().fields().clone());
        group.bench_function("bare", |bencher| {
            bencher.iter(|| {
                let array = FFI_ArrowArray::new(&StructArray::from(batch.clone()).to_data());
                // SAFETY: the array was exported from a batch of this very type.
                let data = unsafe { from_ffi_and_data_type(array, data_type.clone()) }.expect("imported");
                black_box(RecordBatch::from(StructArray::from(data)))
            });
        });
        group.finish();
    }
}

fn record_batch(columns: usize) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000_000));
    let fields = (0..columns).map(|n| Field::new(format!("c{n}"), DataType::Int64, false));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    RecordBatch::try_new(schema, vec![column; columns]).expect("columns of one length")
}

/// A mod that takes the inner value of its own library's frame out, however many rows there are.
fn fusion(criterion: &mut Criterion) {
    let bench = Bench::new();
    let mod_ = bench.open("fused_mod", &json!({}));
    criterion.bench_function("fused mod, a million rows of ten columns", |bencher| {
        bencher.iter_custom(|count| {
            let mut frame = bench.frame("own_source", &json!({ "columns": 10 }));
            bench.runtime.block_on(async {
                let mut spent = Duration::ZERO;
                for _ in 0..count {
                    let start = Instant::now();
                    let mut outputs = mod_.run(vec![("input".to_owned(), frame)]).await.expect("it runs");
                    spent += start.elapsed();
                    frame = outputs.remove(0).1;
                }
                spent
            })
        });
    });
}

criterion_group! {
    name = boundary;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = calls, batches, fusion
}
criterion_main!(boundary);
