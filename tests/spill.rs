//! Rows that do not fit into memory: they leave it, the run says so, and what comes out is the same.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use pype_tests::{Done, Sandbox};
use serde_json::Value;

/// Reads rows, keeps those with an even number, and writes them. Eager: each module ends before its readers start.
fn even_rows(sandbox: &Sandbox, settings: &str) {
    sandbox.flow(
        "even",
        &format!(
            "
settings: {{execution_mode: eager, {settings}}}
modules:
  - {{id: rows, name: csv_source, configs: {{required: {{file_path: rows.csv}}}}}}
  - {{id: even, name: filter_mod, configs: {{required: {{condition: 'n % 2 = 0'}}}}}}
  - {{id: out, name: csv_sink, configs: {{required: {{output_path: out.csv}}}}}}
connections: {{data: [rows.data - even.input, even.output - out.input]}}
"
        ),
    );
}

fn write_rows(sandbox: &Sandbox, count: u64) -> u64 {
    let path = sandbox.path("rows.csv");
    let mut file = BufWriter::new(fs::File::create(&path).expect("writable"));
    writeln!(file, "n,square,text").expect("writable");
    for n in 0..count {
        writeln!(file, "{n},{},the text of row {n}", n * n).expect("writable");
    }
    file.flush().expect("writable");
    fs::metadata(path).expect("there").len()
}

/// The last line of the output, and how many lines there are.
fn end_of(sandbox: &Sandbox) -> (String, usize) {
    let text = sandbox.read("out.csv");
    (text.lines().last().unwrap_or_default().to_owned(), text.lines().count())
}

fn spilled(events: &str) -> Vec<Value> {
    let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event a line"));
    events.filter(|event| event["event"] == "stored" && event["purpose"] == "spill").collect()
}

#[test]
fn rows_beyond_the_threshold_are_spilled_and_said_to_be() {
    let sandbox = Sandbox::new();
    write_rows(&sandbox, 20_000);
    even_rows(&sandbox, "spill_threshold_rows: 15000");
    let done = sandbox.ok(&["run", "even.yaml", "--json"]);
    let spilled = spilled(&done.out);
    let of: Vec<_> = spilled.iter().map(|event| (event["node"].as_str(), event["rows"].as_u64())).collect();
    assert_eq!(of, [(Some("rows"), Some(20_000))], "the 10000 rows of `even` fit");
    assert!(spilled[0]["bytes"].as_u64().is_some_and(|bytes| bytes > 10_000), "{}", spilled[0]);
    let place = PathBuf::from(spilled[0]["path"].as_str().expect("a path"));
    assert!(!place.exists(), "{} is left", place.display());
    assert_eq!(end_of(&sandbox), ("19998,399920004,the text of row 19998".to_owned(), 10_001));
    assert_eq!(fs::read_dir(sandbox.path("runs/.scratch")).expect("there").count(), 0, "something is left");
    let done = sandbox.ok(&["run", "even.yaml"]);
    assert!(done.err.contains("rows.data: 20,000 rows spilled to "), "{}", done.err);
}

/// A control group with a limit of memory; it goes when this is dropped.
struct Group(PathBuf);

impl Group {
    /// `None` where this process may make none.
    fn with_memory(bytes: u64) -> Option<Self> {
        let name = format!("pype-spill-{}", std::process::id());
        let versions = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        versions.into_iter().find_map(|(root, limit)| {
            let group = Path::new(root).join(&name);
            fs::create_dir(&group).ok()?;
            let group = Self(group);
            fs::write(group.0.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    /// Runs a command in it.
    fn run(&self, command: &Command) -> Done {
        let enter = "echo $$ > \"$1/cgroup.procs\" || exit 99; shift; exec \"$@\"";
        let mut inside = Command::new("sh");
        inside.args(["-c", enter, "sh"]).arg(&self.0).arg(command.get_program()).args(command.get_args()).env_clear();
        inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        inside.current_dir(command.get_current_dir().expect("a sandbox"));
        Done::of(inside.output().expect("there is a shell"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A group with a process in it stays; the test has failed then anyway.
        drop(fs::remove_dir(&self.0));
    }
}

#[test]
fn rows_that_are_larger_than_the_memory_pass_through_it() {
    const MEMORY: u64 = 256 << 20;
    let Some(group) = Group::with_memory(MEMORY) else {
        eprintln!("skipped: `rows_that_are_larger_than_the_memory_pass_through_it` may make no control group here");
        return;
    };
    let sandbox = Sandbox::new();
    let size = write_rows(&sandbox, 10_000_000);
    assert!(size > MEMORY * 3 / 2, "{size} bytes");
    even_rows(&sandbox, "threads: 2");
    let done = group.run(&sandbox.command(&["run", "even.yaml", "--json"]));
    assert_eq!(done.code, Some(0), "{}\n{}", done.out, done.err);
    let of: Vec<_> = spilled(&done.out).iter().map(|event| event["node"].to_string()).collect();
    assert_eq!(of, ["\"rows\"", "\"even\""]);
    assert_eq!(end_of(&sandbox), ("9999998,99999960000004,the text of row 9999998".to_owned(), 5_000_001));
}
