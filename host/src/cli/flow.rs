//! `pype validate` and `pype build`: what can be said of a flow without running it.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use pype_core::diagnostic::Diagnostics;
use pype_core::graph::chain;

use super::Exit;
use super::registry::RegistryChoice;
use super::render::{Failure, Style, diagnostics, diagnostics_json, shown};
use super::select::{Part, SelectArgs};
use crate::prepare::{
    DocumentKind, Given, PrepareError, Prepared, PreparedPipeline, PreparedStream, kind_of, prepare, prepare_pipeline,
    prepare_stream,
};

/// What the commands that read a flow have in common.
#[derive(Args)]
pub(crate) struct FlowArgs {
    /// The YAML file of a flow, pipeline or stream, or a job folder that `pype build` made.
    pub(crate) flow: PathBuf,
    #[command(flatten)]
    pub(crate) given: GivenArgs,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// End with exit code 10 if all is well but for warnings.
    #[arg(long)]
    pub(crate) deny_warnings: bool,
}

/// What is given besides a document.
#[derive(Args)]
pub(crate) struct GivenArgs {
    /// Take `{{context.…}}` from context/<name>_<ENV>.json beside the document.
    #[arg(long, value_name = "ENV")]
    context: Option<String>,
    /// Set one value of the context; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    registry: RegistryChoice,
}

impl GivenArgs {
    pub(crate) fn given(&self) -> Given {
        Given { registry: self.registry.registry.clone(), environment: self.context.clone(), set: self.set.clone() }
    }
}

impl FlowArgs {
    /// Loads and plans it; problems of the document are printed, and no plan comes of it.
    pub(crate) fn prepare(&self, out: &mut dyn Write) -> Result<Option<Prepared>, Failure> {
        self.valid(prepare(&self.flow, &self.given.given()), out)
    }

    /// Loads and plans it as a pipeline, as [`FlowArgs::prepare`] does as a flow.
    pub(crate) fn prepare_pipeline(&self, out: &mut dyn Write) -> Result<Option<PreparedPipeline>, Failure> {
        self.valid(prepare_pipeline(&self.flow, &self.given.given()), out)
    }

    /// Loads and plans it as a stream.
    pub(crate) fn prepare_stream(&self, out: &mut dyn Write) -> Result<Option<PreparedStream>, Failure> {
        self.valid(prepare_stream(&self.flow, &self.given.given()), out)
    }

    /// What it declares.
    pub(crate) fn kind(&self) -> DocumentKind {
        // What cannot be read is told by whoever reads it next. A flow of many modules takes a while to parse.
        let may_be = |text: String| text.contains("pipeline") || text.contains("stream");
        match fs::read_to_string(&self.flow).is_ok_and(may_be) {
            true => kind_of(&self.flow).unwrap_or(DocumentKind::Flow),
            false => DocumentKind::Flow,
        }
    }

    fn valid<T>(&self, prepared: Result<T, PrepareError>, out: &mut dyn Write) -> Result<Option<T>, Failure> {
        match prepared {
            Ok(prepared) => Ok(Some(prepared)),
            Err(PrepareError::Invalid(found)) => {
                self.print(&found, out)?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) fn print(&self, found: &Diagnostics, out: &mut dyn Write) -> Result<(), Failure> {
        let printed = match self.json {
            true => write!(out, "{}", diagnostics_json(found)).map_err(Failure::from),
            false => print_text(found),
        };
        // What is wrong decides the exit code, whoever reads the output.
        printed.or_else(|failure| if failure.is_broken_pipe() { Ok(()) } else { Err(failure) })
    }

    /// The exit code of a flow that is valid.
    pub(crate) fn exit(&self, prepared: &Prepared) -> Exit {
        self.exit_with(&prepared.warnings)
    }

    /// The exit code of what is valid but for these.
    pub(crate) fn exit_with(&self, warnings: &Diagnostics) -> Exit {
        if self.deny_warnings && !warnings.is_empty() { Exit::Warnings } else { Exit::Ok }
    }
}

/// For people, on standard error.
pub(crate) fn print_text(found: &Diagnostics) -> Result<(), Failure> {
    let stderr = std::io::stderr();
    write!(stderr.lock(), "{}", diagnostics(found, Style::of(&stderr)))?;
    Ok(())
}

/// Checks a flow, pipeline or stream without running it: every problem at once.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype validate flow.yaml
  pype validate flow.yaml --context prod --json
  pype validate flow.yaml --select +report    can this part run without the rest?")]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    flow: FlowArgs,
    #[command(flatten)]
    part: SelectArgs,
}

pub(crate) fn validate(args: &ValidateArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let ValidateArgs { flow: args, part } = args;
    match args.kind() {
        DocumentKind::Flow => {}
        DocumentKind::Pipeline => return validate_pipeline(args, out),
        DocumentKind::Stream => return validate_stream(args, out),
    }
    let Some(Part { prepared, left_out }) = part.prepare(args, out)? else { return Ok(Exit::Invalid) };
    if args.json || !prepared.warnings.is_empty() {
        args.print(&prepared.warnings, out)?;
    }
    if !args.json {
        let (nodes, sub_flows) = (prepared.plan.nodes().len(), prepared.plan.sub_flows().len());
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        let others = if left_out.is_empty() { String::new() } else { format!(", {} not selected", left_out.len()) };
        writeln!(
            out,
            "{} is valid: {nodes} module{} in {sub_flows} sub flow{}{others}",
            shown(&args.flow),
            plural(nodes),
            plural(sub_flows)
        )?;
    }
    Ok(args.exit(&prepared))
}

fn validate_pipeline(args: &FlowArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Some(PreparedPipeline { plan, warnings, .. }) = args.prepare_pipeline(out)? else { return Ok(Exit::Invalid) };
    if args.json || !warnings.is_empty() {
        args.print(&warnings, out)?;
    }
    if !args.json {
        writeln!(out, "{} is valid: {}", shown(&args.flow), chain(&plan))?;
    }
    Ok(args.exit_with(&warnings))
}

fn validate_stream(args: &FlowArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Some(PreparedStream { plan, warnings, .. }) = args.prepare_stream(out)? else { return Ok(Exit::Invalid) };
    if args.json || !warnings.is_empty() {
        args.print(&warnings, out)?;
    }
    if !args.json {
        writeln!(out, "{} is valid: {}", shown(&args.flow), super::stream::in_a_line(&plan))?;
    }
    Ok(args.exit_with(&warnings))
}

/// Writes a flow's plan to a job folder, which runs without a registry.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pype build flow.yaml           writes jobs/<flow name>/
  pype run jobs/<flow name>      runs it")]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    flow: FlowArgs,
    /// Where job folders go.
    #[arg(long, value_name = "DIR", default_value = "jobs")]
    out: PathBuf,
}

pub(crate) fn build(args: &BuildArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let Some(prepared) = args.flow.prepare(out)? else { return Ok(Exit::Invalid) };
    if !prepared.warnings.is_empty() {
        args.flow.print(&prepared.warnings, out)?;
    }
    let folder = crate::prepare::build(&prepared, &args.out)?;
    if args.flow.json {
        writeln!(out, "{}", serde_json::json!({ "job": folder }))?;
    } else {
        writeln!(out, "built {}\nrun it with: pype run {}", shown(&folder), shown(&folder))?;
    }
    Ok(args.flow.exit(&prepared))
}

impl From<PrepareError> for Failure {
    fn from(error: PrepareError) -> Self {
        let message = error.to_string();
        match error {
            PrepareError::Registry(error) => error.into(),
            PrepareError::Library(error) => error.into(),
            PrepareError::Invalid(_) => Self::invalid("invalid", message),
            PrepareError::Io { .. } => Self::invalid("io", message).hint("check the path and its permissions"),
            PrepareError::NoContext { .. } => {
                Self::invalid("no-context", message).hint("write that file, or leave --context out")
            }
            PrepareError::Set { .. } => Self::invalid("bad-set", message).hint("for example: --set day=2025-01-15"),
            PrepareError::NotAJob { .. } | PrepareError::Artifact { .. } => {
                Self::invalid("bad-job", message).hint("make it again: pype build flow.yaml")
            }
        }
    }
}
