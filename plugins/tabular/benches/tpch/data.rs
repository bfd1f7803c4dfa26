//! Where the benchmark works, and the TPC-H tables it works on: made once per scale, under cargo's target folder.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use polars::prelude::{DataType, Schema};

use crate::Result;
use crate::query::Query;

const TABLES: &str = "customer,orders,lineitem";

/// `table column type` by line; the Python peers read the same file, so that no contender guesses a type.
const SCHEMA: &str = include_str!("schema.txt");

/// The folders of a run: `target/tpch/sf<scale>` with the tables, and `out` below it.
pub(crate) struct Workplace {
    pub(crate) data_dir: PathBuf,
    pub(crate) out_dir: PathBuf,
    /// Where cargo put the release binaries, `pype` among them.
    pub(crate) binary_dir: PathBuf,
}

impl Workplace {
    pub(crate) fn prepare(scale: &str, python: &Path) -> Result<Self> {
        let executable = std::env::current_exe()?;
        let binary_dir = executable.ancestors().nth(2).ok_or("a benchmark lies in target/release/deps")?.to_owned();
        let target = binary_dir.parent().ok_or("the release folder lies in target")?;
        let data_dir = target.join("tpch").join(format!("sf{scale}"));
        if !data_dir.exists() {
            generate(scale, python, &data_dir)?;
        }
        let out_dir = data_dir.join("out");
        fs::create_dir_all(&out_dir).map_err(|error| format!("cannot create `{}`: {error}", out_dir.display()))?;
        Ok(Self { data_dir, out_dir, binary_dir })
    }

    pub(crate) fn output(&self, query: Query, contender: &str) -> PathBuf {
        self.out_dir.join(format!("{query}.{}.parquet", file_stem(contender)))
    }

    pub(crate) fn log(&self, query: Query, contender: &str) -> PathBuf {
        self.out_dir.join(format!("{query}.{}.log", file_stem(contender)))
    }

    /// Reads the tables of `query` once, so that every contender finds them in the page cache.
    pub(crate) fn warm(&self, query: Query) -> Result<()> {
        for table in query.tables() {
            let path = self.data_dir.join(format!("{table}.csv"));
            let read = File::open(&path).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
            read.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        }
        Ok(())
    }
}

/// The columns of `table` with the types that every contender is given.
pub(crate) fn schema(table: &str) -> Result<Schema> {
    let mut schema = Schema::default();
    for line in SCHEMA.lines().filter(|line| !line.starts_with('#')) {
        let [owner, column, kind] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("schema.txt: `{line}` is not `table column type`").into());
        };
        let dtype = match kind {
            "int" => DataType::Int64,
            "float" => DataType::Float64,
            "date" => DataType::Date,
            "str" => DataType::String,
            unknown => return Err(format!("schema.txt: unknown type `{unknown}` of `{column}`").into()),
        };
        if owner == table {
            schema.with_column(column.into(), dtype);
        }
    }
    Ok(schema)
}

/// Makes the tables beside their final place and renames the folder, so that it is whole once it exists.
fn generate(scale: &str, python: &Path, data_dir: &Path) -> Result<()> {
    let partial = data_dir.with_file_name(format!("sf{scale}.partial"));
    let generator = generator_beside(python);
    eprintln!("making TPC-H SF{scale} in {}", data_dir.display());
    let status = Command::new(&generator)
        .args(["csv", "--scale-factor", scale, "--tables", TABLES, "--overwrite", "--output-dir"])
        .arg(&partial)
        .status()
        .map_err(|error| format!("cannot run `{}`: {error}; `pip install tpchgen-cli`", generator.display()))?;
    if !status.success() {
        return Err(format!("`{}` ended with {status}", generator.display()).into());
    }
    fs::rename(&partial, data_dir).map_err(|error| format!("cannot create `{}`: {error}", data_dir.display()).into())
}

/// The generator of the same virtual environment where there is one, else whatever `PATH` has.
fn generator_beside(python: &Path) -> PathBuf {
    let beside = python.with_file_name("tpchgen-cli");
    if beside.is_absolute() && beside.exists() { beside } else { "tpchgen-cli".into() }
}

fn file_stem(contender: &str) -> String {
    contender.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-")
}
