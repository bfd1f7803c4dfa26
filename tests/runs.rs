//! Runs that stop half-way: whatever the moment, a resume ends with what an undisturbed run gives, and runs nothing again
//! that was completed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pype_tests::{Done, Sandbox};
use serde_json::Value;

/// A loop with a checkpoint in it, two items at a time, and a sub flow behind the loop that reads what it wrote.
const MODULES: &str = "
modules:
  - {id: groups, name: csv_source, configs: {required: {file_path: groups.csv}}}
  - {id: rows, name: csv_source, configs: {required: {file_path: rows.csv}}}
  - {id: part, name: filter_mod, misc: {checkpoint: true}, configs: {required: {condition: 'g = {{ iter.item.g }}'}}}
  - {id: ordered, name: sort_mod, configs: {required: {by: [n]}}}
  - {id: save, name: csv_sink, configs: {required: {output_path: 'out/part-{{ iter.item.g }}.csv'}}}
  - {id: parts, name: csv_source, configs: {required: {file_path: 'out/part-*.csv'}}}
  - {id: all_ordered, name: sort_mod, configs: {required: {by: [n]}}}
  - {id: save_all, name: csv_sink, configs: {required: {output_path: out/all.csv}}}
connections:
  data:
    - rows.data - part.input
    - part.output - ordered.input
    - ordered.output - save.input
    - parts.data - all_ordered.input
    - all_ordered.output - save_all.input
  control:
    - groups (1|iterate*2:data) rows
    - groups (2|ok) parts
";

const RUN: [&str; 2] = ["run", "crash.yaml"];
const RESUME: [&str; 3] = ["run", "crash.yaml", "--resume"];

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.write("groups.csv", "g\n0\n1\n2\n3\n");
    let rows: String = (0..200).map(|n| format!("{},{n},{}\n", n % 4, n * n)).collect();
    sandbox.write("rows.csv", &format!("g,n,square\n{rows}"));
    sandbox.flow("crash", MODULES);
    sandbox
}

/// All output files.
fn outputs(sandbox: &Sandbox) -> BTreeMap<String, Vec<u8>> {
    let Ok(files) = fs::read_dir(sandbox.path("out")) else { return BTreeMap::new() };
    let file =
        |file: fs::DirEntry| (file.file_name().into_string().expect("text"), fs::read(file.path()).expect("read"));
    files.map(|entry| file(entry.expect("an entry"))).collect()
}

fn only_run(sandbox: &Sandbox) -> PathBuf {
    let runs = fs::read_dir(sandbox.path("runs")).expect("runs are kept");
    let mut runs = runs.map(|entry| entry.expect("an entry").path()).filter(|path| path.join("run.json").is_file());
    let run = runs.next().expect("one run");
    assert_eq!(runs.next(), None);
    run
}

/// The events of a log, but for what is torn.
fn events(log: &str) -> Vec<Value> {
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.lines().skip(1).map(|line| serde_json::from_str(line).expect("a whole line is JSON")).collect()
}

/// Which sub flows have ended well and not begun again, by number and item.
fn completed(events: &[Value]) -> BTreeSet<String> {
    let mut completed = BTreeSet::new();
    for event in events {
        let key = format!("{}#{}", event["sub_flow"], event["item"]);
        match event["event"].as_str() {
            Some("sub_flow_started") => drop(completed.remove(&key)),
            Some("sub_flow_finished") if event["state"] == "SUCCESS" => drop(completed.insert(key)),
            _ => {}
        }
    }
    completed
}

/// Which sub flows, loops apart, have begun.
fn begun(events: &[Value]) -> BTreeSet<String> {
    let announced = events.iter().rfind(|event| event["event"] == "run_started").expect("a run begins");
    let is_loop = |id: &Value| {
        let sub_flows = announced["sub_flows"].as_array().expect("a list");
        sub_flows.iter().any(|one| one["id"] == *id && one["is_loop"] == true)
    };
    let begun = events.iter().filter(|event| event["event"] == "sub_flow_started" && !is_loop(&event["sub_flow"]));
    begun.map(|event| format!("{}#{}", event["sub_flow"], event["item"])).collect()
}

#[track_caller]
fn check_resume(sandbox: &Sandbox, log_before: &str, expected: &BTreeMap<String, Vec<u8>>, when: &str) {
    let done = sandbox.pype(&RESUME);
    assert_eq!(done.code, Some(0), "{when}\n{}\n{}", done.out, done.err);
    assert_eq!(outputs(sandbox), *expected, "{when}");
    let log = fs::read_to_string(only_run(sandbox).join("run.json")).expect("readable");
    let (before, after) = (events(log_before), events(&log));
    let again: Vec<String> = completed(&before).intersection(&begun(&after[before.len()..])).cloned().collect();
    assert_eq!(again, Vec::<String>::new(), "{when}: completed, and ran again\n{log}");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
            continue;
        }
        fs::copy(entry.path(), &target).expect("copied");
        let changed = entry.metadata().and_then(|metadata| metadata.modified()).expect("a time");
        fs::File::options().write(true).open(&target).and_then(|file| file.set_modified(changed)).expect("set");
    }
}

#[test]
fn a_log_cut_at_every_prefix_resumes_to_the_same_outputs_and_runs_nothing_again() {
    let sandbox = sandbox();
    sandbox.ok(&RUN);
    let expected = outputs(&sandbox);
    assert_eq!(expected.len(), 5);
    let run = only_run(&sandbox);
    let whole = fs::read_to_string(run.join("run.json")).expect("readable");
    let pristine = tempfile::tempdir().expect("a folder");
    copy(&run, &pristine.path().join("run"));
    copy(&sandbox.path("out"), &pristine.path().join("out"));
    let ends: Vec<usize> = whole.match_indices('\n').map(|(at, _)| at + 1).collect();
    // Whole lines, and each torn in its middle.
    let middles = ends.windows(2).map(|pair| usize::midpoint(pair[0], pair[1]));
    let mut cuts: Vec<usize> = ends.iter().copied().chain(middles).chain([0, 5]).collect();
    cuts.sort_unstable();
    for cut in cuts {
        // What a resume wrote anew is as it was, down to its time.
        for (folder, kept) in [(run.clone(), "run"), (sandbox.path("out"), "out")] {
            fs::remove_dir_all(&folder).expect("removed");
            copy(&pristine.path().join(kept), &folder);
        }
        fs::write(run.join("run.json"), &whole[..cut]).expect("written");
        check_resume(&sandbox, &whole[..cut], &expected, &format!("cut at {cut}"));
    }
}

#[test]
fn a_run_killed_at_any_moment_resumes_to_the_same_outputs_and_runs_nothing_again() {
    let undisturbed = sandbox();
    let start = Instant::now();
    undisturbed.ok(&RUN);
    let takes = start.elapsed();
    let expected = outputs(&undisturbed);
    let mut killed = 0_u32;
    for round in 0..100_u32 {
        let sandbox = sandbox();
        let mut child = sandbox
            .command(&RUN)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("it runs");
        // Spread over the time that a run takes, by the golden ratio.
        let share = f64::from(round).mul_add(0.618_034, 0.5).fract();
        std::thread::sleep(takes.mul_f64(share).max(Duration::from_millis(1)));
        killed += u32::from(child.kill().is_ok() && !child.wait().expect("it ends").success());
        let Ok(mut runs) = fs::read_dir(sandbox.path("runs")) else { continue };
        if runs.all(|run| !run.expect("an entry").path().join("run.json").is_file()) {
            continue;
        }
        let log = fs::read_to_string(only_run(&sandbox).join("run.json")).expect("readable");
        check_resume(&sandbox, &log, &expected, &format!("killed in round {round}"));
    }
    assert!(killed > 30, "only {killed} runs were killed before their end");
}

#[test]
fn a_resume_runs_what_has_changed_and_says_why() {
    let sandbox = sandbox();
    sandbox.ok(&RUN);
    let plan = sandbox.ok(&["plan", "crash.yaml", "--resume"]);
    assert!(plan.out.contains("used again"), "{}", plan.out);
    // One group more: the loop runs for it and, as its source ran again, for all.
    sandbox.write("groups.csv", "g\n0\n1\n");
    let plan = sandbox.ok(&["plan", "crash.yaml", "--resume"]);
    assert!(plan.out.contains("groups.csv has changed"), "{}", plan.out);
    let done = sandbox.ok(&["run", "crash.yaml", "--resume", "--json"]);
    assert!(done.out.contains("groups.csv has changed"), "{}", done.out);
    fs::remove_file(sandbox.path("out/all.csv")).expect("there");
    let done = sandbox.ok(&["run", "crash.yaml", "--resume", "--json"]);
    assert!(done.out.contains("out/all.csv is gone"), "{}", done.out);
    assert!(sandbox.path("out/all.csv").is_file());
}

#[test]
fn two_runs_of_one_flow_at_a_time_do_not_harm_each_other() {
    let sandbox = sandbox();
    let start = || sandbox.command(&RUN).output();
    let (one, other) = std::thread::scope(|scope| {
        let (one, other) = (scope.spawn(start), scope.spawn(start));
        (one.join().expect("ran"), other.join().expect("ran"))
    });
    for done in [one, other].map(|output| Done::of(output.expect("the binary runs"))) {
        assert_eq!(done.code, Some(0), "{}", done.err);
    }
    let listed = sandbox.ok(&["runs", "list"]);
    assert_eq!(listed.out.matches("succeeded").count(), 2, "{}", listed.out);
}

#[test]
fn what_a_run_keeps_can_be_listed_peeked_at_drawn_reported_and_pruned() {
    let sandbox = sandbox();
    let done = sandbox.ok(&RUN);
    assert!(done.out.contains("report.html"), "{}", done.out);
    let run = only_run(&sandbox);
    let id = run.file_name().and_then(|name| name.to_str()).expect("text");
    let peeked = sandbox.ok(&["peek", id, "part#2.output", "-n", "2", "--json"]);
    assert_eq!(peeked.out, "{\"g\":2,\"n\":2,\"square\":4}\n{\"g\":2,\"n\":6,\"square\":36}\n");
    let items = sandbox.ok(&["peek", id, "groups.data"]);
    assert_eq!(items.out.lines().next(), Some("{\"g\":0}"));
    sandbox.pype(&["peek", id, "part.output"]).fails(20, &["has kept nothing of `part.output`", "part#0.output"]);
    let report = fs::read_to_string(run.join("report.html")).expect("a report is written");
    for text in ["crash", "part", "Content-Security-Policy"] {
        assert!(report.contains(text), "`{text}` is missing in the report");
    }
    let shown = sandbox.ok(&["runs", "show", id]);
    assert!(shown.out.contains("succeeded") && shown.out.contains("save_all"), "{}", shown.out);
    for format in ["mermaid", "dot", "svg", "html"] {
        let drawn = sandbox.ok(&["graph", "crash.yaml", "--run", id, "--format", format]);
        assert!(drawn.out.contains("save_all"), "{format}: {}", drawn.out);
    }
    let log = fs::read_to_string(run.join("log.jsonl")).expect("the log is kept");
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line["run"] == id)), "{log}");
    sandbox.ok(&["runs", "prune", "--keep", "0"]);
    assert!(!run.exists());
    sandbox.pype(&RESUME).fails(20, &["there is no run of `crash`", "pype runs list"]);
}

/// On a disk of 96 KiB, where there may be one.
#[test]
fn a_full_disk_during_a_checkpoint_fails_the_run_which_resumes_when_there_is_room() {
    let sandbox = sandbox();
    let disk = sandbox.path("disk");
    fs::create_dir(&disk).expect("made");
    let mount = |options: &str| {
        let mut command = std::process::Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "none"]).arg(&disk);
        command.output().is_ok_and(|output| output.status.success())
    };
    if !mount("size=96k") {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    }
    let rows: String =
        (0_u64..60_000).map(|n| format!("{},{n},{}\n", n % 4, n.wrapping_mul(0x9E37_79B9_7F4A_7C15))).collect();
    sandbox.write("rows.csv", &format!("g,n,square\n{rows}"));
    let runs = disk.join("runs");
    let on_disk = |arguments: &[&str]| {
        Done::of(sandbox.command(arguments).env("PYPE_RUNS", &runs).output().expect("the binary runs"))
    };
    let full = on_disk(&RUN);
    let unmount = || drop(std::process::Command::new("umount").arg(&disk).output());
    let grown = mount("remount,size=64m");
    let resumed = on_disk(&RESUME);
    unmount();
    full.fails(30, &["No space left"]);
    assert!(grown);
    assert_eq!(resumed.code, Some(0), "{}\n{}", resumed.out, resumed.err);
}

#[test]
fn what_ran_again_in_one_session_makes_what_follows_run_in_the_next() {
    let sandbox = Sandbox::new();
    sandbox.write("in.csv", "n\n1\n");
    let modules = "
modules:
  - {id: in, name: csv_source, configs: {required: {file_path: in.csv}}}
  - {id: kept, name: filter_mod, misc: {checkpoint: true}, configs: {required: {condition: n > 0}}}
  - {id: out, name: csv_sink, configs: {required: {output_path: out.csv}}}
connections: {data: [in.data - kept.input, kept.output - out.input]}
";
    sandbox.flow("stale", modules);
    sandbox.ok(&["run", "stale.yaml"]);
    sandbox.write("in.csv", "n\n1\n2\n");
    sandbox.ok(&["run", "stale.yaml", "--resume", "--select", "kept"]);
    assert_eq!(sandbox.read("out.csv"), "n\n1\n");
    let done = sandbox.ok(&["run", "stale.yaml", "--resume"]);
    assert_eq!(sandbox.read("out.csv"), "n\n1\n2\n", "{}", done.err);
    assert!(done.err.contains("sub flow in: used again"), "{}", done.err);
    sandbox.ok(&["run", "stale.yaml", "--resume"]);
}

#[test]
fn a_failed_run_fails_though_nobody_reads_its_output() {
    let sandbox = Sandbox::new();
    let modules = "
settings: {retries: 0}
modules:
  - {id: in, name: csv_source, configs: {required: {file_path: nowhere.csv}}}
  - {id: out, name: csv_sink, configs: {required: {output_path: out.csv}}}
connections: {data: [in.data - out.input]}
";
    sandbox.flow("failing", modules);
    let mut child = sandbox
        .command(&["run", "failing.yaml"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("it runs");
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("it ends").code(), Some(30));
}
