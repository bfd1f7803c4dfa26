//! `pype plan`: what runs after what, and what a resume would use again.

use std::io::Write;

use clap::Args;
use pype_core::flow::plan::{Plan, SubFlow, SubFlowId, Trigger};
use pype_core::flow::spec::Join;
use serde_json::{Value, json};

use super::Exit;
use super::flow::FlowArgs;
use super::render::{Failure, columns, printable};
use super::run::{RunsFolder, SecretsArgs, planned_job};
use super::select::{Part, SelectArgs};
use crate::run::{self, Forecast};
use crate::runs::{self, Which};

/// Shows what runs after what, and what a resume would use again.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype plan flow.yaml
  pype plan flow.yaml --resume          what would be used again of the last run, and why the rest would not
  pype plan flow.yaml --json | jq .waves")]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    flow: FlowArgs,
    #[command(flatten)]
    part: SelectArgs,
    /// Compare with this run; without an id, with the last run of the flow.
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "")]
    resume: Option<Which>,
    #[command(flatten)]
    runs: RunsFolder,
    #[command(flatten)]
    secrets: SecretsArgs,
}

pub(crate) fn plan(args: &PlanArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Some(Part { prepared, .. }) = args.part.prepare(&args.flow, out)? else { return Ok(Exit::Invalid) };
    let exit = args.flow.exit(&prepared);
    let plan = prepared.plan.clone();
    let forecasts = match &args.resume {
        None => Vec::new(),
        Some(which) => {
            let past = runs::past(&args.runs.of(&args.flow.flow), which, plan.name.as_str())?;
            let (job, runtime) = planned_job(prepared, &past, args.secrets.origin())?;
            runtime.block_on(run::forecast(&job))
        }
    };
    match args.flow.json {
        true => writeln!(out, "{}", as_json(&plan, &forecasts))?,
        false => write!(out, "{}", as_text(&plan, &forecasts))?,
    }
    Ok(exit)
}

fn as_text(plan: &Plan, forecasts: &[Forecast]) -> String {
    let mut text = format!("{} {}, {}\n", plan.name, plan.version, settings(plan));
    for (number, wave) in plan.waves().iter().enumerate() {
        text.push_str(&format!("\nwave {}\n", number + 1));
        let rows: Vec<Vec<String>> = wave.iter().map(|id| row(plan, plan.sub_flow(*id), forecasts)).collect();
        text.push_str(&columns(&rows));
    }
    text
}

fn settings(plan: &Plan) -> String {
    let settings = &plan.settings;
    let mode = if plan.is_eager() { "eager" } else { "lazy" };
    let strategy = match settings.fail_strategy {
        pype_core::flow::spec::FailStrategy::Halt => "halts on failure",
        pype_core::flow::spec::FailStrategy::Continue => "continues after a failure",
    };
    let retries = match settings.retries {
        1 => "1 retry".to_owned(),
        count => format!("{count} retries"),
    };
    format!("{mode}, {strategy}, {retries}, at most {} s", settings.timeout_s)
}

fn row(plan: &Plan, sub_flow: &SubFlow, forecasts: &[Forecast]) -> Vec<String> {
    let depth = plan.loops_around(sub_flow.id).count();
    let name = format!("  {}{}", "  ".repeat(depth), label(sub_flow));
    let forecast = forecasts.iter().find(|one| one.sub_flow == sub_flow.id).map(|one| match &one.runs_because {
        None => "used again".to_owned(),
        Some(reason) => format!("runs: {reason}"),
    });
    vec![name, after(plan, sub_flow.id), printable(&forecast.unwrap_or_default())]
}

fn label(sub_flow: &SubFlow) -> String {
    match &sub_flow.iterate {
        Some(iterate) => format!("↻ each of {iterate}, {} at a time", iterate.parallel),
        None => sub_flow.nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" → "),
    }
}

/// What leads there, and how it joins.
fn after(plan: &Plan, id: SubFlowId) -> String {
    let edges: Vec<_> = plan.control_edges().iter().filter(|edge| edge.to_sub_flow == id).collect();
    let told = edges.iter().map(|edge| match &edge.trigger {
        Trigger::Data => format!("reads {}", edge.from),
        trigger => format!("{} ({}|{trigger})", edge.from, edge.order),
    });
    let told = told.collect::<Vec<_>>().join(", ");
    let join = match plan.sub_flow(id).join {
        Join::All if edges.len() > 1 => "; all of them",
        Join::Taken | Join::All => "",
    };
    if told.is_empty() { String::new() } else { format!("after {told}{join}") }
}

fn as_json(plan: &Plan, forecasts: &[Forecast]) -> Value {
    let one = |id: &SubFlowId| {
        let sub_flow = plan.sub_flow(*id);
        let forecast = forecasts.iter().find(|one| one.sub_flow == *id);
        json!({
            "name": sub_flow.name(),
            "nodes": sub_flow.nodes,
            "iterate": sub_flow.iterate.as_ref().map(ToString::to_string),
            "within": sub_flow.within.map(|around| plan.sub_flow(around).name()),
            "after": sub_flow.after.iter().map(|before| plan.sub_flow(*before).name()).collect::<Vec<_>>(),
            "join": sub_flow.join,
            "reused": forecast.map(|one| one.runs_because.is_none()),
            "reason": forecast.and_then(|one| one.runs_because.clone()),
        })
    };
    let waves: Vec<Vec<Value>> = plan.waves().iter().map(|wave| wave.iter().map(one).collect()).collect();
    json!({ "flow": plan.name, "version": plan.version, "waves": waves })
}
