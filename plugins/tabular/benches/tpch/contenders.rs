//! Who takes part: pype, polars by hand, and the Python peers that are installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;
use crate::data::Workplace;
use crate::query::Query;

/// The contender that the others are compared with.
pub(crate) const HANDWRITTEN: &str = "polars, Rust by hand";

/// Package, what its script imports, and the name in the report.
const PEERS: [(&str, &str, &str); 3] =
    [("polars", "polars", "polars, Python"), ("duckdb", "duckdb", "DuckDB"), ("pandas", "pandas, pyarrow", "pandas")];

pub(crate) struct Contender {
    name: &'static str,
    version: String,
    program: Program,
}

enum Program {
    Pype { binary: PathBuf },
    Handwritten { benchmark: PathBuf },
    Peer { python: PathBuf, script: PathBuf },
}

pub(crate) struct Found {
    pub(crate) present: Vec<Contender>,
    /// The name of each contender that this machine lacks, and the reason.
    pub(crate) absent: Vec<(&'static str, String)>,
}

pub(crate) fn find(workplace: &Workplace, python: &Path) -> Result<Found> {
    let mut found = Found { present: Vec::new(), absent: Vec::new() };
    found.note("pype", find_pype(&workplace.binary_dir));
    let benchmark = std::env::current_exe()?;
    found.note(HANDWRITTEN, Ok((polars::VERSION.to_owned(), Program::Handwritten { benchmark })));
    for (package, imports, name) in PEERS {
        found.note(name, find_peer(python, package, imports));
    }
    Ok(found)
}

impl Found {
    fn note(&mut self, name: &'static str, search: std::result::Result<(String, Program), String>) {
        match search {
            Ok((version, program)) => self.present.push(Contender { name, version, program }),
            Err(reason) => self.absent.push((name, reason)),
        }
    }
}

impl Contender {
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// What runs `query` over the tables and writes `output`.
    pub(crate) fn command(&self, query: Query, workplace: &Workplace, output: &Path) -> Result<Command> {
        let mut command;
        match &self.program {
            Program::Pype { binary } => {
                let (data, target) = (workplace.data_dir.display(), output.display());
                command = Command::new(binary);
                command.arg("run").arg(place_flow(query, &workplace.out_dir)?);
                command.args(["--set", &format!("data={data}"), "--set", &format!("output={target}")]);
            }
            Program::Handwritten { benchmark } => {
                command = Command::new(benchmark);
                command.args(["handwritten", query.name()]).arg(&workplace.data_dir).arg(output);
            }
            Program::Peer { python, script } => {
                command = Command::new(python);
                command.arg("-B").arg(script).arg(query.name()).arg(&workplace.data_dir).arg(output);
            }
        }
        command.current_dir(&workplace.out_dir);
        Ok(command)
    }
}

fn find_pype(binary_dir: &Path) -> std::result::Result<(String, Program), String> {
    let binary = binary_dir.join("pype");
    if !binary.exists() {
        return Err(format!("no `{}`: `cargo build --release` makes it", binary.display()));
    }
    let version = first_line(Command::new(&binary).arg("--version"))?;
    let version = version.trim_start_matches("pype").trim().to_owned();
    Ok((version, Program::Pype { binary }))
}

fn find_peer(python: &Path, package: &str, imports: &str) -> std::result::Result<(String, Program), String> {
    let question = format!("import {imports}; print({package}.__version__)");
    let version = first_line(Command::new(python).args(["-c", &question]))
        .map_err(|error| format!("{error}; `PYPE_BENCH_PYTHON` names a Python that has {imports}"))?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/tpch/peers/with_{package}.py"));
    Ok((version, Program::Peer { python: python.to_owned(), script }))
}

fn first_line(command: &mut Command) -> std::result::Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::piped()).output().map_err(|error| format!("cannot run `{program}`: {error}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(complaint.lines().last().unwrap_or("it failed without a word").to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

/// Copies the flow beside the outputs: what a run leaves behind then stays under target.
fn place_flow(query: Query, out_dir: &Path) -> Result<PathBuf> {
    let text = match query {
        Query::Filter => include_str!("flows/filter.yaml"),
        Query::Q3 => include_str!("flows/q3.yaml"),
    };
    let path = out_dir.join(format!("{query}.yaml"));
    fs::write(&path, text).map_err(|error| format!("cannot write `{}`: {error}", path.display()))?;
    Ok(path)
}
