//! What the benchmarks of the boundary and of pipelines measure through a real library.

use std::hint::black_box;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use pype_plugin::prelude::*;
use pype_plugin::{Producer, SharedBatches};

#[derive(Deserialize, JsonSchema)]
struct Config {
    /// Calls, batches.
    #[serde(default)]
    count: u64,
    /// Columns.
    #[serde(default)]
    columns: usize,
}

macro_rules! opened_with_config {
    () => {
        type Config = Config;

        async fn open(config: Config, _: &Context) -> Result<Self> {
            Ok(Self(config))
        }
    };
}

/// Asks the host `count` times whether the run was cancelled: the cheapest call that crosses.
struct Calls(Config);

impl Solo for Calls {
    const NAME: &str = "calls_solo";
    opened_with_config!();

    async fn run(&mut self, ctx: &Context) -> Result<()> {
        for _ in 0..self.0.count {
            black_box(ctx.is_cancelled());
        }
        Ok(())
    }
}

/// Does nothing.
struct Noop(Config);

impl Solo for Noop {
    const NAME: &str = "noop_solo";
    opened_with_config!();

    async fn run(&mut self, _: &Context) -> Result<()> {
        let _ = &self.0;
        Ok(())
    }
}

/// Gives the same batch `count` times.
struct Batches(Config);

impl Source for Batches {
    const NAME: &str = "batches_source";
    opened_with_config!();

    async fn run(&mut self, _: &Context) -> Result<Outputs> {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1_000_000));
        let fields = (0..self.0.columns).map(|n| Field::new(format!("c{n}"), DataType::Int64, false));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let batch = RecordBatch::try_new(schema.clone(), vec![column; self.0.columns])?;
        let count = usize::try_from(self.0.count).unwrap_or(usize::MAX);
        Ok(Outputs::one("data", Frame::from_record_batches(schema, std::iter::repeat_n(batch, count))))
    }
}

/// Makes a frame of this library's own, for the fusion measurement.
struct Own(Config);

impl Source for Own {
    const NAME: &str = "own_source";
    opened_with_config!();

    async fn run(&mut self, ctx: &Context) -> Result<Outputs> {
        let columns = Config { count: 1, columns: self.0.columns };
        let frame = Batches(columns).run(ctx).await?.into_iter().next().expect("one frame").1;
        Ok(Outputs::one("data", Frame::new(SharedBatches::read(&frame).await?)))
    }
}

/// Takes the inner value of a frame of this library out and passes it on: what a fused mod costs.
struct Fused(Config);

impl Mod for Fused {
    const NAME: &str = "fused_mod";
    opened_with_config!();

    async fn run(&mut self, mut inputs: Inputs, _: &Context) -> Result<Outputs> {
        let _ = &self.0;
        let inner = inputs.take("input")?.take::<SharedBatches>();
        let inner =
            inner.map_err(|_| Error::new(ErrorKind::Internal, "not-fused", "the frame is of another library"))?;
        let copy = inner.try_clone().expect("batches in memory can be shared");
        Ok(Outputs::one("output", Frame::new(copy)))
    }
}

/// Goes on, and does nothing else.
struct PassOn;

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

impl Execute for PassOn {
    const NAME: &str = "pass_on";
    type Config = Nothing;

    async fn open(_: Nothing, _: &Context) -> Result<Self> {
        Ok(Self)
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        next.run(ctx).await
    }
}

export_plugin! { sources: [Batches, Own], mods: [Fused], solos: [Calls, Noop], executes: [PassOn] }
