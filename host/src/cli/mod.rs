//! The command line: what a user types, what they see, and the exit code.
//!
//! Exit codes: 0 ok, 10 ok with warnings under `--deny-warnings`, 20 invalid, 30 failed, 40 timed out, 50 cancelled.

mod events;
mod flow;
mod graph;
mod jobs;
mod pipeline;
mod plan;
mod progress;
mod registry;
mod render;
mod run;
mod runs;
mod scaffold;
mod schema;
mod select;
mod serve;
mod signals;
mod stream;
mod test;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::worker::{self, Child, What};
use crate::{loader, stream as streams};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All is well.
    Ok = 0,
    /// All is well but for warnings, under `--deny-warnings`.
    Warnings = 10,
    /// What was given is not valid.
    Invalid = 20,
    /// It was valid, and failed.
    Failed = 30,
    /// It took too long.
    TimedOut = 40,
    /// The user stopped it.
    Cancelled = 50,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[derive(Parser)]
#[command(name = "pype", version, about = "Runs data flows and pipelines that are declared in YAML, through plugins.", long_about = None)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
#[command(after_help = "\
First steps:
  pype init hello                       make a project with a small flow
  pype run hello/flows/hello/flow.yaml  run it
  pype new-module my_mod --kind mod     make a plugin of your own

Exit codes: 0 ok, 10 warnings (with --deny-warnings), 20 invalid, 30 failed, 40 timed out, 50 cancelled.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::RunArgs),
    Validate(flow::ValidateArgs),
    Plan(plan::PlanArgs),
    Graph(graph::GraphArgs),
    Build(flow::BuildArgs),
    Runs(runs::RunsArgs),
    Peek(runs::PeekArgs),
    Test(test::TestArgs),
    Serve(serve::ServeArgs),
    Worker(serve::WorkerArgs),
    Jobs(jobs::JobsArgs),
    ListModules(registry::ListArgs),
    Describe(registry::DescribeArgs),
    RegisterModule(registry::RegisterArgs),
    AutoRegister(registry::AutoRegisterArgs),
    ClearRegistry(registry::ClearArgs),
    Schema(schema::SchemaArgs),
    NewModule(scaffold::NewModuleArgs),
    Init(scaffold::InitArgs),
    /// Describes a library in this process; the host runs it as a child.
    #[command(name = loader::DESCRIBE, hide = true)]
    DescribeHere {
        path: PathBuf,
    },
    /// Does the work of the host that has started this process.
    #[command(name = worker::COMMAND, hide = true)]
    WorkHere,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Invalid } else { Exit::Ok };
            // The terminal may be gone: then nobody reads the exit code's reason either.
            drop(error.print());
            return exit.into();
        }
    };
    let out = &mut std::io::stdout();
    let exit = match cli.command {
        Command::Run(args) => run::run(&args, out),
        Command::Validate(args) => flow::validate(&args, out),
        Command::Plan(args) => plan::plan(&args, out),
        Command::Graph(args) => graph::graph(&args, out),
        Command::Build(args) => flow::build(&args, out),
        Command::Runs(args) => runs::runs(&args, out),
        Command::Peek(args) => runs::peek(&args, out),
        Command::Test(args) => test::test(&args, out),
        Command::Serve(args) => serve::serve(&args, out),
        Command::Worker(args) => serve::worker(&args, out),
        Command::Jobs(args) => jobs::jobs(&args, out),
        Command::ListModules(args) => registry::list_modules(&args, out),
        Command::Describe(args) => registry::describe(&args, out),
        Command::RegisterModule(args) => registry::register_module(&args, out),
        Command::AutoRegister(args) => registry::auto_register(&args, out),
        Command::ClearRegistry(args) => registry::clear_registry(&args, out),
        Command::Schema(args) => schema::schema(&args, out),
        Command::NewModule(args) => scaffold::new_module(&args, out),
        Command::Init(args) => scaffold::init(&args, out),
        Command::DescribeHere { path } => loader::describe_here(&path).map(|()| Exit::Ok).map_err(Into::into),
        Command::WorkHere => work_here().map(|()| Exit::Ok).map_err(|cause| run::failed("work for a host", cause)),
    };
    match exit {
        Ok(exit) => exit.into(),
        Err(failure) if failure.is_broken_pipe() => Exit::Ok.into(),
        Err(failure) => {
            let stderr = std::io::stderr();
            // If standard error is gone, the exit code still tells.
            drop(stderr.lock().write_all(failure.text(render::Style::of(&stderr)).as_bytes()));
            failure.exit.into()
        }
    }
}

/// What a child of the host does.
fn work_here() -> std::io::Result<()> {
    let child = Child::begin()?;
    match child.what() {
        What::Modules { .. } => worker::serve_modules(child),
        What::Pipeline(_) => streams::serve_records(child),
    }
}
