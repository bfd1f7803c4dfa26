//! From a module's inputs to its outputs: resolve the schema, apply one step, hand the query on.

use polars::prelude::*;
use pype_plugin::prelude::*;

use crate::failure;

/// The body of a mod with one input and one output: applies `step` to the input's plan and schema.
pub(crate) async fn one_to_one<F>(mut inputs: Inputs, ctx: &Context, step: F) -> Result<Outputs>
where
    F: FnOnce(LazyFrame, &Schema) -> Result<LazyFrame> + Send + 'static,
{
    let input = inputs.take("input")?.into_lazy().await?;
    let output = ctx
        .run_blocking(move || {
            let (input, schema) = resolve(input)?;
            settle(step(input, &schema)?)
        })
        .await?;
    Ok(Outputs::one("output", output))
}

/// The plan's schema, with the plan back: what does not fit is an error here, at its own node.
pub(crate) fn resolve(mut lazy: LazyFrame) -> Result<(LazyFrame, SchemaRef)> {
    let schema = lazy.collect_schema().map_err(|error| failure::of_plan(&error))?;
    Ok((lazy, schema))
}

/// Hands a step's plan on, checked. In eager mode the host runs it before its readers start, and keeps in memory or in a
/// file what comes: rows that do not fit are never here as a whole.
pub(crate) fn settle(lazy: LazyFrame) -> Result<Frame> {
    let (lazy, _) = resolve(lazy)?;
    Ok(frame(lazy))
}

/// A plan as a frame. Whoever runs it, a row that cannot be read is told with its file and line.
pub(crate) fn frame(lazy: LazyFrame) -> Frame {
    Frame::from_query(lazy, |plan, error| failure::of_query(plan, &error))
}

/// Runs the query on the streaming engine.
pub(crate) fn collect(lazy: LazyFrame) -> Result<DataFrame> {
    let plan = lazy.clone();
    let result = lazy.collect_with_engine(Engine::Streaming).map_err(|error| failure::of_query(&plan, &error))?;
    Ok(result.unwrap_single())
}

/// Counts the rows the query would give.
pub(crate) fn count(lazy: LazyFrame) -> Result<u64> {
    let counted = collect(lazy.select([len().cast(DataType::UInt64)]))?;
    let count = counted.columns().first().and_then(|column| column.u64().ok()?.get(0));
    count.ok_or_else(|| Error::new(ErrorKind::Internal, "no-count", "counting gave no number"))
}
