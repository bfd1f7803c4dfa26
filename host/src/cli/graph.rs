//! `pype graph`: draws a flow, with what became of a run laid over it; a pipeline; a stream.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use pype_core::graph::Graph;
use pype_core::run::history::History;

use super::Exit;
use super::flow::FlowArgs;
use super::render::{Failure, shown};
use super::run::RunsFolder;
use crate::prepare::DocumentKind;
use crate::runs::{self, Which};

/// Draws a flow, a pipeline or a stream.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype graph flow.yaml                               mermaid, for Markdown
  pype graph flow.yaml --format svg --out flow.svg
  pype graph flow.yaml --format dot | dot -Tpng > flow.png
  pype graph flow.yaml --run --format html --out run.html    with what became of the last run")]
pub(crate) struct GraphArgs {
    #[command(flatten)]
    flow: FlowArgs,
    /// How it is drawn.
    #[arg(long, value_name = "FORMAT", default_value = "mermaid")]
    format: Format,
    /// Lay the states and rows of this run over it; without an id, of the last run of the flow.
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    run: Option<Which>,
    /// Write to this file instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    runs: RunsFolder,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Mermaid,
    Dot,
    Svg,
    Html,
}

pub(crate) fn graph(args: &GraphArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    match args.flow.kind() {
        DocumentKind::Flow => {}
        DocumentKind::Pipeline => {
            let Some(prepared) = args.flow.prepare_pipeline(out)? else { return Ok(Exit::Invalid) };
            draw(args, &Graph::of_pipeline(&prepared.plan), out)?;
            return Ok(args.flow.exit_with(&prepared.warnings));
        }
        DocumentKind::Stream => {
            let Some(prepared) = args.flow.prepare_stream(out)? else { return Ok(Exit::Invalid) };
            let pipeline = prepared.pipeline.as_ref().map(|pipeline| &pipeline.plan);
            draw(args, &Graph::of_stream(&prepared.plan, pipeline.map(|plan| &**plan)), out)?;
            return Ok(args.flow.exit_with(&prepared.warnings));
        }
    }
    let Some(prepared) = args.flow.prepare(out)? else { return Ok(Exit::Invalid) };
    let plan = &prepared.plan;
    let mut graph = Graph::of(plan);
    if let Some(which) = &args.run {
        let past = runs::past(&args.runs.of(&args.flow.flow), which, plan.name.as_str())?;
        graph = graph.with(plan, &History::of(&past.records));
    }
    draw(args, &graph, out)?;
    Ok(args.flow.exit(&prepared))
}

fn draw(args: &GraphArgs, graph: &Graph, out: &mut dyn Write) -> Result<(), Failure> {
    let text = match args.format {
        Format::Mermaid => graph.mermaid(),
        Format::Dot => graph.dot(),
        Format::Svg => graph.svg(),
        Format::Html => graph.html(),
    };
    match &args.out {
        None => write!(out, "{text}")?,
        Some(path) => {
            let failed = |cause| Failure::invalid("io", format!("cannot write `{}`: {cause}", shown(path)));
            fs::write(path, text).map_err(failed)?;
        }
    }
    Ok(())
}
