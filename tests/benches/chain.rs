//! What pype adds to work: a chain of solos that do nothing, beside kedro and luigi, and a loop over many items.
//!
//! `cargo bench --bench chain` runs every contender as a process of its own, in alternating rounds, and prints what a
//! node costs: the time of the run alone, as each tool tells it, and that of the whole process. `PYPE_BENCH_PYTHON` names
//! a Python that has kedro and luigi (default `python3`); what is missing is skipped by name.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its report")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use pype::loader::Loader;
use pype::observe::log;
use pype::run::LibraryServices;
use pype_plugin::Iteration;
use pype_plugin::host::{LibraryFacts, NodeFacts, adopt_runtime};
use pype_tests::{Sandbox, plugin};
use serde_json::json;
use tokio::runtime::Runtime;

const NODES: u32 = 10_000;
/// The peers take a hundred times as long a node.
const PEER_NODES: u32 = 1_000;
const ITEMS: u32 = 100_000;
const ROUNDS: usize = 3;

const KEDRO: &str = r#"
import logging, sys, time
logging.disable(logging.CRITICAL)
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import node, pipeline
from kedro.runner import SequentialRunner
count = int(sys.argv[1])
def step(value):
    return value
chain = pipeline([node(step, f"d{i}", f"d{i + 1}", name=f"n{i}") for i in range(count)])
catalog = DataCatalog({"d0": MemoryDataset(1)})
start = time.perf_counter()
SequentialRunner().run(chain, catalog)
print(time.perf_counter() - start)
"#;

const LUIGI: &str = r#"
import logging, sys, time
import luigi
logging.disable(logging.CRITICAL)
count = int(sys.argv[1])
sys.setrecursionlimit(100 * count)
done = set()
class Step(luigi.Task):
    n = luigi.IntParameter()
    def requires(self):
        return [Step(self.n - 1)] if self.n else []
    def complete(self):
        return self.n in done
    def run(self):
        done.add(self.n)
start = time.perf_counter()
assert luigi.build([Step(count - 1)], local_scheduler=True, log_level="CRITICAL")
print(time.perf_counter() - start)
"#;

/// Seconds of the run alone, and of the process.
#[derive(Clone, Copy)]
struct Took {
    run: f64,
    process: f64,
}

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        println!("chain: skipped, since this is no `cargo bench`");
        return;
    }
    let python = std::env::var_os("PYPE_BENCH_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("bench"));
    chain_flow(&sandbox);
    loop_flow(&sandbox);
    let peers: Vec<(&str, &str)> =
        [("kedro", KEDRO), ("luigi", LUIGI)].into_iter().filter(|(name, _)| has(&python, name)).collect();

    let mut chains = Vec::new();
    let mut loops = Vec::new();
    let mut of_peers = vec![Vec::new(); peers.len()];
    for _ in 0..ROUNDS {
        chains.push(pype(&sandbox, "chain.yaml"));
        loops.push(pype(&sandbox, "loop.yaml"));
        for ((_, script), rounds) in peers.iter().zip(&mut of_peers) {
            rounds.push(peer(&python, script));
        }
    }
    println!("{ROUNDS} rounds, medians; us a node or item, in the run alone and in the whole process");
    let chain = print("pype, chain of solos", &chains, NODES);
    for ((name, _), rounds) in peers.iter().zip(&of_peers) {
        let one = print(&format!("{name}, chain"), rounds, PEER_NODES);
        println!("  {name} ÷ pype: {:.0}", one / chain);
    }
    let item = print("pype, loop of one solo", &loops, ITEMS);
    let itself = work_itself();
    println!("  the solo itself, opened, run and closed: {itself:.1}; the loop adds {:.1}", item - itself);
}

/// What the host cannot save: us to open, run and close the solo of the loop.
fn work_itself() -> f64 {
    let runtime = Runtime::new().expect("a runtime");
    adopt_runtime(runtime.handle().clone());
    let (log, _writer) = log::start(log::Filter::default(), log::Format::Text, |_| {});
    let services = Arc::new(LibraryServices::new(log));
    let loader = Loader::new(services.clone(), LibraryFacts::default()).expect("a cache");
    let library = loader.load(&plugin("bench"), None).expect("the library loads").library;
    let start = Instant::now();
    runtime.block_on(async {
        for index in 0..u64::from(ITEMS) {
            let iteration = Iteration { item: json!({ "n": index }), index };
            let facts = NodeFacts { iteration: Some(iteration), ..NodeFacts::default() };
            let solo = library.open("noop_solo", &json!({}), &facts, services.clone()).await.expect("it opens");
            solo.run(Vec::new()).await.expect("it runs");
            solo.close().await.expect("it closes");
        }
    });
    start.elapsed().as_secs_f64() * 1e6 / f64::from(ITEMS)
}

fn print(what: &str, rounds: &[Took], count: u32) -> f64 {
    let median = |of: fn(&Took) -> f64| {
        let mut sorted: Vec<f64> = rounds.iter().map(of).collect();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2] * 1e6 / f64::from(count)
    };
    let (run, process) = (median(|took| took.run), median(|took| took.process));
    println!("{what:<24} {count:>7} {run:>9.1} {process:>9.1}");
    run
}

fn chain_flow(sandbox: &Sandbox) {
    let modules: String = (0..NODES).map(|n| format!("  - {{id: n{n}, name: noop_solo, configs: {{}}}}\n")).collect();
    let control: String = (1..NODES).map(|n| format!("    - n{} (1|ok) n{n}\n", n - 1)).collect();
    sandbox.flow("chain", &format!("modules:\n{modules}connections:\n  control:\n{control}"));
}

fn loop_flow(sandbox: &Sandbox) {
    let items: String = (0..ITEMS).map(|n| format!("{n}\n")).collect();
    sandbox.write("items.csv", &format!("n\n{items}"));
    let modules = "
modules:
  - {id: items, name: csv_source, configs: {required: {file_path: items.csv}}}
  - {id: work, name: noop_solo, configs: {}}
connections: {control: ['items (1|iterate:data) work']}
";
    sandbox.flow("loop", modules);
}

fn pype(sandbox: &Sandbox, flow: &str) -> Took {
    let start = Instant::now();
    let output = sandbox.command(&["run", flow]).stderr(Stdio::null()).output().expect("the binary runs");
    let process = start.elapsed().as_secs_f64();
    assert!(output.status.success(), "{flow}");
    // "chain succeeded in 0.22 s (run chain-…)".
    let text = String::from_utf8(output.stdout).expect("pype prints UTF-8");
    let told = text.split_once(" succeeded in ").and_then(|(_, rest)| rest.split_once(" s ")?.0.parse().ok());
    Took { run: told.expect("a run tells how long it took"), process }
}

fn has(python: &Path, module: &str) -> bool {
    let asked = Command::new(python).args(["-c", &format!("import {module}")]).stderr(Stdio::null()).status();
    let has = asked.is_ok_and(|status| status.success());
    if !has {
        println!("{module} is skipped: {} has it not", python.display());
    }
    has
}

fn peer(python: &Path, script: &str) -> Took {
    let start = Instant::now();
    let output = Command::new(python).args(["-c", script, &PEER_NODES.to_string()]).stderr(Stdio::null()).output();
    let output = output.expect("it has just run");
    let process = start.elapsed().as_secs_f64();
    let text = String::from_utf8(output.stdout).expect("a number");
    let run = text.split_whitespace().last().and_then(|last| last.parse().ok());
    Took { run: run.expect("the script prints how long it took"), process }
}
