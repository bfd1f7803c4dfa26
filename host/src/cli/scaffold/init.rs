//! `pype init`: a project with a flow that runs, its data, and its test.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use pype_core::flow::schema::schema_with;

use super::templates::{self, fill};
use super::{File, write};
use crate::cli::Exit;
use crate::cli::render::{self, Failure};
use crate::registry::{Places, Registry};

/// Start a project: folders for flows, plugins and their registry, and a small flow that runs.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  pype init sales && pype run sales/flows/hello/flow.yaml")]
pub(crate) struct InitArgs {
    /// The project's folder
    #[arg(default_value = ".", value_name = "DIR")]
    folder: PathBuf,
}

/// `pype init`.
pub(crate) fn init(args: &InitArgs, out: &mut dyn Write) -> Result<Exit, Failure> {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date().to_string();
    let files = files(&project_name(&args.folder), &today, &flow_schema()?);
    write(&args.folder, &files)?;
    for (path, _) in &files {
        writeln!(out, "created {}", render::shown(&args.folder.join(path)))?;
    }
    let flow = args.folder.join("flows/hello/flow.yaml");
    writeln!(out, "\nnext:\n  pype run {}", render::shown(&flow))?;
    Ok(Exit::Ok)
}

/// Of the bundled modules: the project has no others yet.
fn flow_schema() -> Result<String, Failure> {
    let bundled = Registry::bundled(&Places::of_process())?;
    let schema = schema_with(&bundled.catalog);
    Ok(serde_json::to_string_pretty(&schema).expect("a schema is plain data") + "\n")
}

fn files(project: &str, today: &str, flow_schema: &str) -> Vec<File> {
    let file = |path: &str, text: &str| (PathBuf::from(path), text.to_owned());
    vec![
        file("README.md", &fill(templates::README, &[("project", project)])),
        file(".gitignore", templates::PROJECT_GITIGNORE),
        file("registry/modules.json", templates::MODULES_JSON),
        file(".pype/flow.schema.json", flow_schema),
        file("plugins/README.md", templates::PLUGINS_README),
        file("flows/hello/flow.yaml", &fill(templates::FLOW, &[("date", today)])),
        file("flows/hello/data/orders.csv", templates::ORDERS),
    ]
}

fn project_name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned());
    let absolute = absolute.canonicalize().unwrap_or(absolute);
    absolute.file_name().map_or_else(|| "project".to_owned(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_its_parts_and_no_blank_is_left() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let folder = folder.path().join("sales");
        let mut out = Vec::new();
        init(&InitArgs { folder: folder.clone() }, &mut out).expect("written");
        let templates = files("x", "y", "z");
        // The schema is none, and speaks of globals such as `orders__row_count`.
        for (path, _) in templates.iter().filter(|(path, _)| !path.starts_with(".pype")) {
            let text = std::fs::read_to_string(folder.join(path)).expect("a file");
            assert!(!text.contains("__"), "{}: {text}", path.display());
        }
        let readme = std::fs::read_to_string(folder.join("README.md")).expect("a file");
        assert!(readme.starts_with("# sales\n"), "{readme}");
        let flow = std::fs::read_to_string(folder.join("flows/hello/flow.yaml")).expect("a file");
        let schema = flow.lines().find_map(|line| line.strip_prefix("# yaml-language-server: $schema="));
        let schema = folder.join("flows/hello").join(schema.expect("the flow names its schema"));
        assert!(std::fs::read_to_string(schema).expect("a file").contains("csv_source"));
        let again = init(&InitArgs { folder }, &mut out).expect_err("refused");
        assert_eq!(again.code, "exists");
    }
}
