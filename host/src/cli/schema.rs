//! `pype schema`: JSON Schemas of documents, for editors.

use std::io::Write;

use clap::{Args, ValueEnum};
use pype_core::{flow, pipeline, stream};

use super::Exit;
use super::registry::RegistryChoice;
use super::render::Failure;

/// Print the JSON Schema of a document, for editors: keys, values, and the configs of every module.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  pype schema flow > .pype/flow.schema.json     again after modules were registered

An editor with a YAML language server then completes and checks a flow that begins with
  # yaml-language-server: $schema=../../.pype/flow.schema.json
where the path is relative to the flow. pype init writes both.")]
pub(crate) struct SchemaArgs {
    /// Of what.
    document: Document,
    #[command(flatten)]
    choice: RegistryChoice,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Document {
    /// A flow, with the modules of the registry.
    Flow,
    /// A pipeline, with the modules of the registry.
    Pipeline,
    /// A stream, with the modules of the registry.
    Stream,
}

/// `pype schema`.
pub(crate) fn schema(args: &SchemaArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let registry = args.choice.to_read()?;
    let schema = match args.document {
        Document::Flow => flow::schema::schema_with(&registry.catalog),
        Document::Pipeline => pipeline::schema_with(&registry.catalog),
        Document::Stream => stream::schema_with(&registry.catalog),
    };
    let text = serde_json::to_string_pretty(&schema).expect("a schema is plain data");
    writeln!(out, "{text}")?;
    Ok(Exit::Ok)
}
