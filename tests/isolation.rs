//! Modules in processes of their own: what crashes there costs its node, and everything else crosses.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use pype_tests::{Build, Done, Sandbox, plugin, plugin_with, repository, wait_for};
use serde_json::Value;

fn misbehaving() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("misbehaving"));
    sandbox
}

/// The folders of those that died in the runs of a sandbox.
fn post_mortems(sandbox: &Sandbox) -> Vec<PathBuf> {
    let runs = fs::read_dir(sandbox.path("runs")).into_iter().flatten().flatten();
    let of_runs = runs.flat_map(|run| fs::read_dir(run.path().join("post-mortem")).into_iter().flatten().flatten());
    of_runs.map(|one| one.path()).collect()
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_else(|cause| panic!("{}/{name}: {cause}", folder.display()))
}

#[test]
fn a_crash_costs_its_node_and_says_what_where_and_what_next() {
    for (how, says) in [
        ("segfault", "crashed with SIGSEGV"),
        ("abort", "aborted (SIGABRT)"),
        ("exit", "ended the process with exit code 3"),
    ] {
        let sandbox = misbehaving();
        sandbox.write("in.csv", "n\n1\n");
        let modules = format!(
            "
settings: {{fail_strategy: continue, retries: 0}}
modules:
  - {{id: bad, name: crash_solo, misc: {{isolation: process}}, configs: {{required: {{how: {how}}}}}}}
  - {{id: in, name: csv_source, configs: {{required: {{file_path: in.csv}}}}}}
  - {{id: out, name: csv_sink, configs: {{required: {{output_path: out.csv}}}}}}
connections: {{data: [in.data - out.input]}}
"
        );
        sandbox.flow("crash", &modules);
        let done = sandbox.pype(&["run", "crash.yaml"]);
        done.fails(30, &["the process of `bad`", says]);
        assert!(done.out.contains("what is known of it is in") && done.out.contains("post-mortem"), "{}", done.out);
        assert_eq!(sandbox.read("out.csv"), "n\n1\n", "{how}: the other sub flow has run");
        let folders = post_mortems(&sandbox);
        assert_eq!(folders.len(), 1, "{how}");
        let meta: Value = serde_json::from_str(&read(&folders[0], "meta.json")).expect("JSON");
        assert_eq!((&meta["node"], &meta["module"], &meta["how"]), (&"bad".into(), &"crash_solo".into(), &says.into()));
        assert!(read(&folders[0], "log.jsonl").contains(&format!("about to {how}")), "{how}");
    }
}

#[test]
fn a_crash_in_a_chain_of_modules_leaves_no_file_and_is_tried_again() {
    for (retries, code) in [(0, 30), (1, 0)] {
        let sandbox = misbehaving();
        sandbox.write("in.csv", "n\n1\n2\n");
        let modules = format!(
            "
settings: {{retries: {retries}}}
modules:
  - {{id: in, name: csv_source, configs: {{required: {{file_path: in.csv}}}}}}
  - {{id: bad, name: crash_mod, misc: {{isolation: process}}, configs: {{required: {{how: abort}}, optional: {{unless: crashed}}}}}}
  - {{id: out, name: csv_sink, configs: {{required: {{output_path: out/out.csv}}}}}}
connections: {{data: [in.data - bad.input, bad.output - out.input]}}
"
        );
        sandbox.flow("chain", &modules);
        let done = sandbox.pype(&["run", "chain.yaml"]);
        assert_eq!(done.code, Some(code), "{}\n{}", done.out, done.err);
        assert!(done.err.contains("aborted (SIGABRT)"), "{}", done.err);
        let files: Vec<_> = fs::read_dir(sandbox.path("out")).into_iter().flatten().flatten().collect();
        assert_eq!(files.len(), usize::from(code == 0), "{files:?}");
        if code == 0 {
            assert_eq!(sandbox.read("out/out.csv"), "n\n1\n2\n");
        }
    }
}

#[test]
fn no_post_mortem_holds_a_secret() {
    let sandbox = misbehaving();
    let modules = "
settings: {retries: 0}
modules:
  - id: bad
    name: crash_solo
    misc: {isolation: process}
    configs: {required: {how: abort}, optional: {password: '{{secret.db.password}}'}}
";
    sandbox.flow("crash", modules);
    let mut command = sandbox.command(&["run", "crash.yaml"]);
    let done = Done::of(command.env("PYPE_SECRET_DB_PASSWORD", "hunter2-hunter2").output().expect("the binary runs"));
    done.fails(30, &["aborted"]);
    assert!(done.err.contains("about to abort with ***"), "{}", done.err);
    let folders = post_mortems(&sandbox);
    for file in ["meta.json", "configs.json", "printed.txt", "log.jsonl"] {
        let text = read(&folders[0], file);
        assert!(!text.contains("hunter2"), "{file}: {text}");
    }
    assert!(read(&folders[0], "configs.json").contains("{{secret.db.password}}"));
}

#[test]
fn every_line_of_eight_processes_is_whole_and_in_its_order_however_slowly_they_are_taken() {
    let each = 100_000_u64;
    let sandbox = misbehaving();
    let node = |n| {
        let configs = format!("{{required: {{lines: {each}}}}}");
        format!("  - {{id: p{n}, name: chatter_solo, misc: {{isolation: process}}, configs: {configs}}}\n")
    };
    let nodes: String = (0..8).map(node).collect();
    sandbox.flow("chatter", &format!("settings: {{threads: 8}}\nmodules:\n{nodes}"));
    let mut command = sandbox.command(&["run", "chatter.yaml", "--log-format", "json"]);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let lines = BufReader::with_capacity(4096, running.stderr.take().expect("piped")).lines();
    let (mut next, mut told) = (BTreeMap::<String, u64>::new(), Vec::new());
    for (at, line) in lines.enumerate() {
        if at % 1_000 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
        let line = line.expect("text");
        // What else is told is how the run goes.
        if !line.starts_with('{') {
            told.push(line);
            continue;
        }
        let line: Value = serde_json::from_str(&line).expect("a whole line");
        if line["message"] == "a line\nand its rest" {
            let next = next.entry(line["node"].as_str().expect("a node").to_owned()).or_default();
            assert_eq!(line["n"], *next, "{line}");
            *next += 1;
        }
    }
    assert!(running.wait().expect("it ends").success(), "{told:#?}");
    assert_eq!(next, (0..8).map(|n| (format!("p{n}"), each)).collect());
}

#[test]
fn globals_lists_logs_and_errors_cross() {
    let sandbox = misbehaving();
    sandbox.write("inbox/a.csv", "n\n1\n");
    sandbox.write("inbox/b.csv", "n\n2\n");
    let modules = "
modules:
  - {id: nap, name: sleep_solo, misc: {isolation: process}, configs: {required: {ms: 7}}}
  - {id: files, name: list_files_solo, misc: {isolation: process}, configs: {required: {path: 'inbox/*.csv'}}}
  - {id: in, name: csv_source, misc: {isolation: process}, configs: {required: {file_path: '{{ iter.item.path }}'}}}
  - {id: out, name: csv_sink, misc: {isolation: process}, configs: {required: {output_path: 'out/{{ iter.item.stem }}.csv'}}}
connections:
  data: [in.data - out.input]
  control: ['nap (1|nap__slept_ms == 7) files', 'files (1|iterate:files) in']
";
    sandbox.flow("crossing", modules);
    let done = sandbox.ok(&["run", "crossing.yaml"]);
    assert_eq!((sandbox.read("out/a.csv"), sandbox.read("out/b.csv")), ("n\n1\n".into(), "n\n2\n".into()));
    assert!(done.err.contains("going to sleep ms=7"), "{}", done.err);
    let line = done.err.lines().find(|line| line.contains("slept for 7 ms")).expect("the log of the child");
    assert!(line.contains("WARN") && line.contains("node=\"nap\"") && line.contains("module=\"sleep_solo\""), "{line}");

    sandbox.flow(
        "panics",
        "
settings: {retries: 0}
modules: [{id: bad, name: panic_solo, misc: {isolation: process}, configs: {required: {at: run}}}]
",
    );
    let done = sandbox.pype(&["run", "panics.yaml"]);
    done.fails(30, &["the plugin panicked: told to panic in run"]);
    assert!(done.out.contains("report it to its author"), "{}", done.out);
    sandbox.write("bad.csv", "n\n1,2\n");
    sandbox.flow(
        "rows",
        "
settings: {retries: 0}
modules:
  - {id: in, name: csv_source, misc: {isolation: process}, configs: {required: {file_path: bad.csv}}}
  - {id: out, name: csv_sink, configs: {required: {output_path: out.csv}}}
connections: {data: [in.data - out.input]}
",
    );
    sandbox.pype(&["run", "rows.yaml"]).fails(30, &["bad.csv:2"]);
}

/// A flow of the repository, each of whose modules runs in a process of its own.
fn isolated(flow: &Path, mode: &str) -> String {
    let text = fs::read_to_string(flow).expect("a flow");
    let mut lines = Vec::new();
    for line in text.lines() {
        lines.push(line.to_owned());
        if line.trim_start().starts_with("name:") && line.starts_with("    ") {
            lines.push("    misc: {isolation: process}".to_owned());
        }
    }
    let text = lines.join("\n") + "\n";
    assert!(text.contains("isolation: process"), "{text}");
    format!("{text}\n# {mode}\n")
}

#[test]
fn the_example_gives_the_same_rows_from_processes() {
    let folder = repository().join("flows/flights");
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("data")).expect("made");
    for file in fs::read_dir(folder.join("data")).expect("data").flatten() {
        fs::copy(file.path(), sandbox.path("data").join(file.file_name())).expect("copied");
    }
    for isolates in [false, true] {
        let text = if isolates {
            isolated(&folder.join("flow.yaml"), "lazy")
        } else {
            fs::read_to_string(folder.join("flow.yaml")).expect("a flow")
        };
        sandbox.write("flow.yaml", &text);
        sandbox.ok(&["run", "flow.yaml"]);
        fs::rename(sandbox.path("output"), sandbox.path(if isolates { "apart" } else { "here" })).expect("renamed");
    }
    for file in ["delays.csv", "cancelled.csv", "worst.json"] {
        assert_eq!(sandbox.read(&format!("here/{file}")), sandbox.read(&format!("apart/{file}")), "{file}");
    }
}

fn start(sandbox: &Sandbox, arguments: &[&str]) -> Child {
    sandbox.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
}

fn signal(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: the process is our own child, and was not waited for yet.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "the process is gone");
}

/// The children of a process.
fn children(of: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    let threads = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let all = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    all.chain([text])
        .flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect()
}

fn is_alive(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn sleeping(how: &str) -> (Sandbox, Child, Vec<u32>) {
    let sandbox = misbehaving();
    sandbox.flow("sleep", how);
    let child = start(&sandbox, &["run", "sleep.yaml"]);
    let workers = wait_for("a child process", || Some(children(child.id())).filter(|all| !all.is_empty()));
    // It has begun to run once its configs are out of the way.
    std::thread::sleep(Duration::from_millis(500));
    (sandbox, child, workers)
}

const NAP: &str =
    "modules:\n  - {id: nap, name: sleep_solo, misc: {isolation: process}, configs: {required: {ms: 60000}}}\n";
const HANG: &str =
    "modules:\n  - {id: hang, name: crash_solo, misc: {isolation: process}, configs: {required: {how: hang}}}\n";

#[test]
fn ctrl_c_closes_a_module_in_a_process_and_no_process_stays() {
    let (_sandbox, child, workers) = sleeping(NAP);
    // As a terminal does: to the whole group of the host, which its children are not in.
    signal(&child, libc::SIGINT);
    let done = Done::of(child.wait_with_output().expect("ended"));
    assert_eq!(done.code, Some(50), "{}", done.err);
    assert!(done.err.contains("closed cancelled=true"), "{}", done.err);
    wait_for("the children to end", || workers.iter().all(|one| !is_alive(*one)).then_some(()));
}

#[test]
fn a_module_that_hangs_in_a_process_is_ended() {
    let (_sandbox, child, workers) = sleeping(HANG);
    signal(&child, libc::SIGINT);
    let asked = Instant::now();
    let done = Done::of(child.wait_with_output().expect("ended"));
    assert_eq!(done.code, Some(50), "{}", done.err);
    assert!(asked.elapsed() < Duration::from_secs(30), "took {:?} to stop", asked.elapsed());
    wait_for("the children to end", || workers.iter().all(|one| !is_alive(*one)).then_some(()));
}

#[test]
fn a_host_that_is_killed_leaves_no_process_behind() {
    let (_sandbox, child, workers) = sleeping(NAP);
    signal(&child, libc::SIGKILL);
    child.wait_with_output().expect("ended");
    wait_for("the children to end", || workers.iter().all(|one| !is_alive(*one)).then_some(()));
}

#[test]
fn a_plugin_built_with_panic_abort_runs_in_a_process_of_its_own() {
    let library =
        plugin_with("misbehaving", &Build { features: &[], env: &[("CARGO_PROFILE_RELEASE_PANIC", "abort")] });
    let sandbox = Sandbox::new();
    sandbox.register(&library);
    let registry: Value = serde_json::from_str(&sandbox.read("registry/modules.json")).expect("JSON");
    assert_eq!(registry["sleep_solo"]["isolated"], true);
    sandbox.flow("sleep", "modules:\n  - {id: nap, name: sleep_solo, configs: {required: {ms: 1}}}\n");
    let done = sandbox.ok(&["run", "sleep.yaml"]);
    assert!(done.err.contains("slept for 1 ms"), "{}", done.err);
    sandbox.flow(
        "panics",
        "
settings: {retries: 0}
modules: [{id: bad, name: panic_solo, configs: {required: {at: run}}}]
",
    );
    sandbox
        .pype(&["run", "panics.yaml"])
        .fails(30, &["the process of `bad` aborted (SIGABRT)", "told to panic in run"]);
    // Stages of pipelines run in the host.
    sandbox.write("p.yaml", "pipeline: {name: p, version: 1.0.0}\ncontext: {version: '1', fields: {}}\nstages: [{execute: one_at_a_time}]\n");
    let done = sandbox.pype(&["validate", "p.yaml"]);
    assert_eq!(done.code, Some(20), "{}", done.err);
    assert!(done.out.contains("isolated-module") || done.err.contains("isolated-module"), "{}\n{}", done.out, done.err);
}

#[test]
fn a_resume_asks_a_module_in_its_process_what_it_reads() {
    let sandbox = Sandbox::new();
    sandbox.write("in.csv", "n\n1\n");
    let modules = "
modules:
  - {id: in, name: csv_source, misc: {isolation: process}, configs: {required: {file_path: in.csv}}}
  - {id: out, name: csv_sink, configs: {required: {output_path: out.csv}}}
connections: {data: [in.data - out.input]}
";
    sandbox.flow("again", modules);
    sandbox.ok(&["run", "again.yaml"]);
    let again = sandbox.ok(&["run", "again.yaml", "--resume"]);
    assert!(again.err.contains("used again from an earlier session"), "{}", again.err);
    sandbox.write("in.csv", "n\n1\n2\n");
    sandbox.ok(&["run", "again.yaml", "--resume"]);
    assert_eq!(sandbox.read("out.csv"), "n\n1\n2\n");
}
