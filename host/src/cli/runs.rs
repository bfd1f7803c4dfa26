//! `pype runs` and `pype peek`: what is kept of runs.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use pype_core::human;
use pype_core::run::event::{RunEvent, StoredFor};
use pype_core::run::history::{History, SubFlowState};
use pype_core::run::log::LogError;
use pype_core::run::scheduler::Verdict;
use serde_json::json;

use super::Exit;
use super::progress::{state_word, verdict_word};
use super::render::{Failure, columns, printable, shown};
use super::run::RunsFolder;
use crate::artifact::{ParquetRows, read_items};
use crate::clock::now_ms;
use crate::runs::{self, PastRun, RunsError};

/// Lists, shows and removes past runs.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype runs list
  pype runs show flights-20250115T093000 --html
  pype runs prune --keep 10             keeps the last ten of each flow
  pype runs prune --older-than 30       removes those that ended more than 30 days ago")]
pub(crate) struct RunsArgs {
    #[command(subcommand)]
    command: RunsCommand,
    #[command(flatten)]
    runs: RunsFolder,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum RunsCommand {
    /// All runs, the oldest first.
    List,
    /// What became of one.
    Show {
        /// Its id.
        id: String,
        /// Make its report again, and say where it is.
        #[arg(long)]
        html: bool,
    },
    /// Removes runs that are over.
    Prune(PruneArgs),
}

#[derive(Args)]
#[group(required = true, multiple = true)]
struct PruneArgs {
    /// Keep so many of each flow, the latest.
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Remove those that ended more than so many days ago.
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u64>,
}

pub(crate) fn runs(args: &RunsArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let folder = args.runs.of(Path::new("."));
    match &args.command {
        RunsCommand::List => list(args, &folder, out),
        RunsCommand::Show { id, html: true } => {
            let past = runs::open(&folder, id)?;
            let report = runs::write_report(&past.path, &runs::plan_of(&past.path)?)?;
            writeln!(out, "{}", shown(&report))?;
            Ok(Exit::Ok)
        }
        RunsCommand::Show { id, html: false } => show(args, &runs::open(&folder, id)?, out),
        RunsCommand::Prune(which) => prune(which, &folder, out),
    }
}

fn list(args: &RunsArgs, folder: &Path, out: &mut dyn Write) -> Result<Exit, Failure> {
    let mut rows = Vec::new();
    for id in runs::ids(folder)? {
        let past = match runs::open(folder, &id) {
            Ok(past) => past,
            // One damaged run hides no others.
            Err(error) => {
                rows.push(vec![id, "damaged".to_owned(), printable(&error.to_string())]);
                continue;
            }
        };
        let history = History::of(&past.records);
        if args.json {
            let (flow, seconds) = (&history.flow, history.seconds());
            let state = state_of(&past, &history);
            writeln!(out, "{}", json!({"run_id": id, "flow": flow, "state": state, "seconds": seconds}))?;
        } else {
            let sessions = history.sessions.len();
            let sessions = if sessions > 1 { format!("{sessions} sessions") } else { String::new() };
            rows.push(vec![id, state_of(&past, &history).to_owned(), human::seconds(history.seconds()), sessions]);
        }
    }
    if !args.json && rows.is_empty() {
        writeln!(out, "there are no runs in {}", shown(folder))?;
    }
    write!(out, "{}", columns(&rows))?;
    Ok(Exit::Ok)
}

fn state_of(past: &PastRun, history: &History) -> &'static str {
    match history.verdict() {
        Some(verdict) => verdict_word(verdict),
        None if past.alive => "is running",
        None => "was interrupted",
    }
}

fn show(args: &RunsArgs, past: &PastRun, out: &mut dyn Write) -> Result<Exit, Failure> {
    if args.json {
        for record in &past.records {
            writeln!(out, "{}", serde_json::to_string(record).expect("a record is plain data"))?;
        }
        return Ok(Exit::Ok);
    }
    let history = History::of(&past.records);
    let flow = history.flow.as_ref().map_or("a run", |flow| flow.as_str());
    writeln!(out, "{flow} {} in {} (run {})", state_of(past, &history), human::seconds(history.seconds()), past.id)?;
    let mut rows = Vec::new();
    for one in &history.sub_flows {
        let state = match one.state {
            SubFlowState::Waiting => "waiting",
            SubFlowState::Running => "running",
            SubFlowState::Ended(_) if one.reused => "used again",
            SubFlowState::Ended(state) => state_word(state),
        };
        rows.push(vec![
            format!("  {}", one.name),
            state.to_owned(),
            printable(one.reason.as_deref().unwrap_or_default()),
        ]);
        for node in &one.nodes {
            let counted = node.rows.map(human::rows).unwrap_or_default();
            rows.push(vec![format!("    {}", node.id), node.module.clone(), counted]);
            rows.extend(node.failures.iter().map(|failure| {
                vec![
                    format!("    {}", failure.item.name(node.id.as_str())),
                    "failed".into(),
                    printable(&failure.message()),
                ]
            }));
        }
    }
    write!(out, "{}", columns(&rows))?;
    if history.verdict().is_none_or(|verdict| verdict != Verdict::Succeeded) && !past.alive {
        writeln!(out, "go on with it: pype run FLOW --resume {}", past.id)?;
    }
    Ok(Exit::Ok)
}

fn prune(which: &PruneArgs, folder: &Path, out: &mut dyn Write) -> Result<Exit, Failure> {
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    let mut removed = 0;
    // The latest first, so that these are kept.
    for id in runs::ids(folder)?.into_iter().rev() {
        let past = match runs::open(folder, &id) {
            // A newer pype reads it.
            Err(RunsError::Log { problem: LogError::Newer { .. }, .. }) => continue,
            past => past.ok(),
        };
        let history = past.as_ref().map(|past| History::of(&past.records));
        let flow = history.as_ref().and_then(|history| history.flow.as_ref());
        let number = kept.entry(flow.map_or_else(|| id.clone(), ToString::to_string)).or_default();
        *number += 1;
        let too_many = which.keep.is_some_and(|keep| *number > keep);
        let age = history.as_ref().and_then(History::ended_ms).map_or_else(|| runs::age(folder, &id), age);
        let too_old = which.older_than.is_some_and(|days| age > Duration::from_secs(days.saturating_mul(86_400)));
        if too_many || too_old {
            match runs::remove(folder, &id) {
                Ok(()) => removed += 1,
                // It lives.
                Err(RunsError::Alive { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let plural = if removed == 1 { "" } else { "s" };
    writeln!(out, "removed {removed} run{plural} from {}", shown(folder))?;
    Ok(Exit::Ok)
}

fn age(ended_ms: u64) -> Duration {
    Duration::from_millis(now_ms().saturating_sub(ended_ms))
}

/// Shows the first rows that a run has kept of a module's output.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype peek flights-20250115T093000 departed.output
  pype peek flights-20250115T093000 months.data -n 3 --json
  pype peek flights-20250115T093000 by_day#4.output     of the fifth item of a loop

What is kept: the output of modules with `misc: {checkpoint: true}`, and the items of loops.")]
pub(crate) struct PeekArgs {
    /// The run.
    run: String,
    /// The module and its port.
    #[arg(value_name = "NODE.PORT")]
    port: String,
    /// How many rows.
    #[arg(short = 'n', value_name = "ROWS", default_value_t = 10)]
    rows: usize,
    #[command(flatten)]
    runs: RunsFolder,
    /// A JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
}

pub(crate) fn peek(args: &PeekArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let past = runs::open(&args.runs.of(Path::new(".")), &args.run)?;
    let stored = stored(&past);
    let found = stored.iter().rfind(|(name, ..)| *name == args.port);
    let Some((_, purpose, path)) = found else {
        let message = format!("the run `{}` has kept nothing of `{}`", args.run, args.port);
        let names: Vec<&str> = stored.iter().map(|(name, ..)| name.as_str()).take(20).collect();
        let hint = match names.is_empty() {
            true => "give the module `misc: {checkpoint: true}`, and its output is kept".to_owned(),
            false => format!("it has kept {}", names.join(", ")),
        };
        return Err(Failure::invalid("nothing-kept", message).hint(hint));
    };
    match purpose {
        StoredFor::Items => {
            for item in read_items(path).map_err(unreadable)?.into_iter().take(args.rows) {
                writeln!(out, "{item}")?;
            }
        }
        StoredFor::Checkpoint | StoredFor::Spill if args.json => {
            for row in ParquetRows::head_as_json(path, args.rows).map_err(unreadable)? {
                writeln!(out, "{row}")?;
            }
        }
        StoredFor::Checkpoint | StoredFor::Spill => {
            write!(out, "{}", table(&ParquetRows::head_as_json(path, args.rows).map_err(unreadable)?))?
        }
    }
    Ok(Exit::Ok)
}

fn unreadable(error: pype_plugin::Error) -> Failure {
    Failure::from(&error).hint("the checkpoint is gone or damaged: run the flow again with `--resume`")
}

/// `node.port`, what for, and the file.
fn stored(past: &PastRun) -> Vec<(String, StoredFor, PathBuf)> {
    let kept = past.records.iter().filter_map(|record| match &record.event {
        RunEvent::Stored { node, item, port, purpose, path, .. } if *purpose != StoredFor::Spill => {
            Some((format!("{}.{port}", item.name(node.as_str())), *purpose, past.path.join(path)))
        }
        _ => None,
    });
    kept.collect()
}

fn table(rows: &[serde_json::Value]) -> String {
    let Some(first) = rows.first().and_then(serde_json::Value::as_object) else { return "no rows\n".to_owned() };
    let names: Vec<&String> = first.keys().collect();
    let cell = |row: &serde_json::Value, name: &String| match &row[name.as_str()] {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => printable(text),
        other => other.to_string(),
    };
    let head: Vec<String> = names.iter().map(|name| printable(name)).collect();
    let lines = rows.iter().map(|row| names.iter().map(|name| cell(row, name)).collect());
    columns(&std::iter::once(head).chain(lines).collect::<Vec<_>>())
}
