//! Ctrl-C, SIGKILL and overwritten libraries in the middle of a run: nothing is lost, half-written or left behind.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use pype_tests::{Done, Sandbox, plugin, wait_for};

/// A flow whose sink takes seconds: a cross join of ten thousand rows with themselves.
fn slow_flow(sandbox: &Sandbox) {
    let rows: String = (0..10_000).map(|n| format!("{n},text number {n}\n")).collect();
    sandbox.write("rows.csv", &format!("n,text\n{rows}"));
    sandbox.flow(
        "slow",
        "
modules:
  - {id: rows, name: csv_source, configs: {required: {file_path: rows.csv}}}
  - {id: squared, name: sql_mod, configs: {required: {query: 'SELECT a.n, b.text, a.n * b.n AS product FROM rows a CROSS JOIN rows b'}}}
  - {id: out, name: csv_sink, configs: {required: {output_path: out.csv}}}
connections:
  data: [rows.data - squared.in_rows, squared.output - out.input]
",
    );
}

fn start(sandbox: &Sandbox, arguments: &[&str]) -> Child {
    sandbox.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs")
}

/// Waits until something is there, for a minute at most.
fn wait_until(what: &str, mut there: impl FnMut() -> bool) {
    wait_for(what, || there().then_some(()));
}

fn temporary_files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).expect("readable").map(|file| file.expect("readable").file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.ends_with(".tmp")).collect()
}

fn kill(child: &Child, signal: i32) {
    let pid = i32::try_from(child.id()).expect("a process id");
    // SAFETY: the process is our own child, and was not waited for yet.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "the process is gone");
}

/// The sink has begun to write.
fn writing(folder: &Path) -> bool {
    let large = |name: &String| fs::metadata(folder.join(name)).is_ok_and(|file| file.len() > 1_000_000);
    temporary_files(folder).iter().any(large)
}

#[test]
fn ctrl_c_closes_everything_and_leaves_no_file() {
    let sandbox = Sandbox::new();
    slow_flow(&sandbox);
    sandbox.write("out.csv", "the old content\n");
    let child = start(&sandbox, &["run", "slow.yaml"]);
    wait_until("the sink to write", || writing(&sandbox.path(".")));
    kill(&child, libc::SIGINT);
    let asked = Instant::now();
    let done = Done::of(child.wait_with_output().expect("ended"));
    assert_eq!(done.code, Some(50), "{}", done.err);
    assert!(asked.elapsed() < Duration::from_secs(10), "took {:?} to stop", asked.elapsed());
    assert_eq!(temporary_files(&sandbox.path(".")), Vec::<String>::new());
    assert_eq!(sandbox.read("out.csv"), "the old content\n");
    assert!(done.out.contains("cancelled") || done.err.contains("cancelled"), "{}\n{}", done.out, done.err);
}

#[test]
fn ctrl_c_awaits_the_close_of_a_module() {
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("misbehaving"));
    sandbox.flow("sleep", "modules:\n  - {id: nap, name: sleep_solo, configs: {required: {ms: 60000}}}\n");
    let mut child = start(&sandbox, &["run", "sleep.yaml"]);
    let mut err = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    while !said.contains("going to sleep") {
        assert_ne!(std::io::BufRead::read_line(&mut err, &mut said).expect("readable"), 0, "{said}");
    }
    kill(&child, libc::SIGINT);
    std::io::Read::read_to_string(&mut err, &mut said).expect("readable");
    assert_eq!(child.wait().expect("ended").code(), Some(50), "{said}");
    assert!(said.contains("closed") && said.contains("cancelled=true"), "{said}");
}

#[test]
fn a_killed_run_leaves_the_old_file_and_the_next_run_sweeps_up() {
    let sandbox = Sandbox::new();
    slow_flow(&sandbox);
    sandbox.write("out.csv", "the old content\n");
    let mut child = start(&sandbox, &["run", "slow.yaml"]);
    wait_until("the sink to write", || writing(&sandbox.path(".")));
    kill(&child, libc::SIGKILL);
    child.wait().expect("ended");
    assert_eq!(sandbox.read("out.csv"), "the old content\n");
    assert_eq!(temporary_files(&sandbox.path(".")).len(), 1);
    sandbox.write("rows.csv", "n,text\n1,one\n2,two\n");
    sandbox.ok(&["run", "slow.yaml"]);
    assert_eq!(temporary_files(&sandbox.path(".")), Vec::<String>::new());
    assert_eq!(sandbox.read("out.csv").lines().count(), 5);
}

#[test]
fn a_library_that_is_overwritten_while_a_flow_runs_harms_nothing() {
    let sandbox = Sandbox::new();
    let library = sandbox.path("libmine.so");
    fs::copy(plugin("misbehaving"), &library).expect("copied");
    sandbox.register(&library);
    sandbox.flow("sleep", "modules:\n  - {id: nap, name: sleep_solo, configs: {required: {ms: 1500}}}\n");
    let mut child = start(&sandbox, &["run", "sleep.yaml"]);
    let mut err = std::io::BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    while !said.contains("going to sleep") {
        assert_ne!(std::io::BufRead::read_line(&mut err, &mut said).expect("readable"), 0, "{said}");
    }
    // As `cp` does it: the same inode, cut to nothing and written anew.
    fs::write(&library, "no library at all").expect("overwritten");
    std::io::Read::read_to_string(&mut err, &mut said).expect("readable");
    assert_eq!(child.wait().expect("ended").code(), Some(0), "{said}");
    assert!(said.contains("slept for 1500 ms"), "{said}");
}

#[test]
fn a_run_that_takes_too_long_is_ended() {
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("misbehaving"));
    let flow = "settings: {timeout: 1}\nmodules:\n  - {id: nap, name: sleep_solo, configs: {required: {ms: 60000}}}\n";
    sandbox.flow("sleep", flow);
    let done = sandbox.pype(&["run", "sleep.yaml"]);
    assert_eq!(done.code, Some(40), "{}\n{}", done.out, done.err);
    assert!(done.err.contains("closed"), "{}", done.err);
}
