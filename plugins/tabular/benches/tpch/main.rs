//! TPC-H through pype flows, beside the same queries written by hand in polars, in polars Python, DuckDB and pandas.
//!
//! `cargo build --release && cargo bench --bench tpch` makes the CSV files once under `target/tpch`
//! (with `tpchgen-cli` from PyPI), then runs every contender as a process of its own, in alternating rounds, and prints
//! wall time, CPU time and peak memory. The outputs must agree, in types and content, or the benchmark fails.
//! Contenders that this machine lacks are skipped by name.
//!
//! Options after `--`: `--scale 0.1` (or `PYPE_BENCH_SCALE`), `--rounds 5`. `PYPE_BENCH_PYTHON` names the Python that
//! has the peers (default `python3`).

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its report")]

mod arguments;
mod contenders;
mod data;
mod digest;
mod handwritten;
mod measure;
mod query;
mod report;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use arguments::{Arguments, Settings};
use contenders::Contender;
use data::Workplace;
use measure::Usage;
use query::Query;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let outcome = match Arguments::parse() {
        Ok(Arguments::Benchmark(settings)) => benchmark(&settings),
        Ok(Arguments::Handwritten { query, data_dir, output }) => handwritten::run(query, &data_dir, &output),
        Ok(Arguments::Digest { output }) => digest::print(&output),
        Ok(Arguments::NotABenchmark) => {
            println!("tpch: skipped, since this is no `cargo bench`");
            Ok(())
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tpch: {error}");
            ExitCode::FAILURE
        }
    }
}

fn benchmark(settings: &Settings) -> Result<()> {
    let workplace = Workplace::prepare(&settings.scale, &settings.python)?;
    let found = contenders::find(&workplace, &settings.python)?;
    report::print_header(settings, &found);
    for query in Query::ALL {
        workplace.warm(query)?;
        let usages = measure_rounds(query, settings.rounds, &found.present, &workplace)?;
        let digest = agreed_digest(query, &found.present, &workplace)?;
        report::print_query(query, &digest, &found.present, &usages);
    }
    Ok(())
}

/// Every round runs each contender once, every second round in the opposite order, so that a drifting machine
/// favours nobody.
fn measure_rounds(
    query: Query,
    rounds: usize,
    contenders: &[Contender],
    workplace: &Workplace,
) -> Result<BTreeMap<String, Vec<Usage>>> {
    let mut usages: BTreeMap<String, Vec<Usage>> = BTreeMap::new();
    for round in 0..rounds {
        let mut order: Vec<&Contender> = contenders.iter().collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for contender in order {
            let name = contender.name();
            eprintln!("round {} of {rounds}: {query}, {name}", round + 1);
            let output = workplace.output(query, name);
            remove_if_present(&output)?;
            let mut command = contender.command(query, workplace, &output)?;
            let usage = measure::run(&mut command, &workplace.log(query, name))
                .map_err(|error| format!("{query} in {name}: {error}"))?;
            usages.entry(name.to_owned()).or_default().push(usage);
        }
    }
    Ok(usages)
}

fn agreed_digest(query: Query, contenders: &[Contender], workplace: &Workplace) -> Result<String> {
    let mut agreed: Option<(&str, String)> = None;
    for contender in contenders {
        let name = contender.name();
        let digest =
            digest::of(&workplace.output(query, name)).map_err(|error| format!("{query} of {name}: {error}"))?;
        match &agreed {
            None => agreed = Some((name, digest)),
            Some((_, expected)) if *expected == digest => {}
            Some((first, expected)) => {
                let difference = digest::difference(expected, &digest);
                return Err(format!("{query}: `{first}` and `{name}` disagree:\n{difference}").into());
            }
        }
    }
    agreed.map(|(_, digest)| digest).ok_or_else(|| "no contender is present".into())
}

fn remove_if_present(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove `{}`: {error}", path.display()).into())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
