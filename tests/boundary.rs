//! Libraries that are refused and modules that misbehave: the host lives on, and says which plugin, why, and what to do.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use pype_tests::{Build, Done, Sandbox, plugin, plugin_with};

/// Registering `library` fails with these words; the registry stays as it was.
#[track_caller]
fn refused(library: &std::path::Path, says: &[&str]) {
    let sandbox = Sandbox::new();
    let path = library.to_str().expect("a path that is text");
    let done = sandbox.pype(&["register-module", path]);
    done.fails(20, says);
    assert!(done.err.contains("help:"), "no next step in:\n{}", done.err);
    assert_eq!(sandbox.read("registry/modules.json"), "{}\n");
}

#[test]
fn a_text_file_named_so_is_refused() {
    let sandbox = Sandbox::new();
    let library = sandbox.write("text.so", "hello\n");
    refused(&library, &["text.so", "is not a shared library", "cargo build --release"]);
}

#[test]
fn a_library_without_our_root_is_refused() {
    refused(&plugin("no_root"), &["libno_root.so", "not a pype plugin", "PYPE_PLUGIN", "export_plugin!"]);
}

#[test]
fn a_library_that_is_not_there_is_refused() {
    refused("/nowhere/libnothing.so".as_ref(), &["/nowhere/libnothing.so"]);
}

#[test]
fn a_plugin_of_another_major_version_is_refused() {
    let library = plugin_with("misbehaving", &Build { features: &["next-major"], env: &[] });
    refused(&library, &["libmisbehaving.so", "built for plugin API 2.0", "this pype has 1.0", "newer pype"]);
}

#[test]
fn a_plugin_that_panics_while_it_is_described_is_refused() {
    refused(&plugin("describe_panics"), &["libdescribe_panics.so", "panicked", "no idea what my configs are"]);
}

#[test]
fn a_plugin_that_crashes_while_it_is_registered_is_refused() {
    refused(&plugin("describe_crashes"), &["libdescribe_crashes.so", "SIGSEGV", "report it to its author"]);
}

#[test]
fn a_library_that_changed_since_it_was_registered_is_refused() {
    let sandbox = Sandbox::new();
    let library = sandbox.path("libmine.so");
    fs::copy(plugin("misbehaving"), &library).expect("copied");
    sandbox.register(&library);
    sandbox.flow("sleep", SLEEP);
    sandbox.ok(&["run", "sleep.yaml"]);
    let mut bytes = fs::read(&library).expect("read");
    bytes.extend(b"changed");
    fs::write(&library, bytes).expect("written");
    let done = sandbox.pype(&["run", "sleep.yaml"]);
    done.fails(20, &["libmine.so", "changed since it was registered", "pype register-module"]);
    sandbox.register(&library);
    sandbox.ok(&["run", "sleep.yaml"]);
}

#[test]
fn a_stripped_plugin_with_link_time_optimisation_works() {
    let env = &[("CARGO_PROFILE_RELEASE_STRIP", "symbols"), ("CARGO_PROFILE_RELEASE_LTO", "fat")];
    let sandbox = Sandbox::new();
    sandbox.register(&plugin_with("misbehaving", &Build { features: &[], env }));
    sandbox.flow("sleep", SLEEP);
    sandbox.ok(&["run", "sleep.yaml"]);
}

#[test]
fn plugins_and_hosts_of_neighbouring_minor_versions_run_together() {
    let plugins = [
        ("1.0", plugin("misbehaving")),
        ("1.1", plugin_with("misbehaving", &Build { features: &["next-minor"], env: &[] })),
    ];
    for (host_version, binary) in [("1.0", pype_tests::binary()), ("1.1", pype_tests::next_minor_binary())] {
        for (plugin_version, library) in &plugins {
            let pair = format!("a plugin of {plugin_version} on a host of {host_version}");
            let sandbox = Sandbox::new();
            let library = library.to_str().expect("a path that is text");
            let pype = |arguments: &[&str]| {
                let done = Done::of(sandbox.command_of(&binary, arguments).output().expect("the binary runs"));
                assert_eq!(done.code, Some(0), "{pair}\n{}\n{}", done.out, done.err);
                done
            };
            pype(&["register-module", library]);
            sandbox.flow("sleep", SLEEP);
            let done = pype(&["run", "sleep.yaml"]);
            assert!(done.err.contains("slept for 20 ms"), "{pair}\n{}", done.err);
            // The method that version 1.1 adds is called where both have it.
            let greets = (host_version, *plugin_version) == ("1.1", "1.1");
            assert_eq!(done.err.contains("misbehaving greets"), greets, "{pair}\n{}", done.err);
        }
    }
}

const SLEEP: &str = "
modules:
  - {id: nap, name: sleep_solo, configs: {required: {ms: 20}}}
";

#[test]
fn a_panic_anywhere_fails_that_node_and_the_host_goes_on() {
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("misbehaving"));
    for place in ["open", "run", "close", "drop"] {
        let flow = format!(
            "
settings: {{fail_strategy: continue, retries: 0}}
modules:
  - {{id: bad, name: panic_solo, configs: {{required: {{at: {place}}}}}}}
  - {{id: good, name: sleep_solo, configs: {{required: {{ms: 100}}}}}}
"
        );
        sandbox.flow("panics", &flow);
        let done = sandbox.pype(&["run", "panics.yaml"]);
        let said = format!("told to panic in {place}");
        done.fails(30, &["bad", "panicked", &said]);
        assert!(done.err.contains("good"), "the other node is not told of:\n{}", done.err);
        let done = sandbox.pype(&["run", "panics.yaml", "--json"]);
        let finished = done.out.lines().any(|line| line.contains("node_finished") && line.contains("good"));
        assert!(finished, "the other node did not finish:\n{}", done.out);
    }
}

#[test]
fn timers_and_requests_work_in_a_plugin_and_its_records_carry_module_and_node() {
    let server = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = server.local_addr().expect("bound");
    let serving = std::thread::spawn(move || {
        let (mut connection, _) = server.accept().expect("the plugin connects");
        let mut request = [0; 1024];
        let count = connection.read(&mut request).expect("a request");
        connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").expect("answered");
        String::from_utf8_lossy(&request[..count]).into_owned()
    });
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("misbehaving"));
    sandbox.flow(
        "both",
        &format!(
            "
modules:
  - {{id: page, name: fetch_solo, configs: {{required: {{url: 'http://{address}/x'}}}}}}
  - {{id: nap, name: sleep_solo, configs: {{required: {{ms: 60}}}}}}
connections: {{control: ['page (1|ok) nap']}}
"
        ),
    );
    let done = sandbox.ok(&["run", "both.yaml", "--json", "--log-format", "json"]);
    assert!(serving.join().expect("served").starts_with("GET /x HTTP/1.1"));
    let events: Vec<serde_json::Value> =
        done.out.lines().map(|line| serde_json::from_str(line).expect("an event a line")).collect();
    let global = |name: &str| events.iter().find(|event| event["name"] == name).map(|event| event["value"].clone());
    assert_eq!(global("status"), Some(200.into()));
    assert_eq!(global("body"), Some("hello".into()));
    assert_eq!(global("slept_ms"), Some(60.into()));
    let records: Vec<serde_json::Value> = done.err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for (level, message) in [("INFO", "going to sleep"), ("WARN", "slept for 60 ms")] {
        let record = records.iter().find(|record| record["message"] == message);
        let record = record.unwrap_or_else(|| panic!("`{message}` is missing in:\n{}", done.err));
        assert_eq!(
            (&record["level"], &record["module"], &record["node"]),
            (&level.into(), &"sleep_solo".into(), &"nap".into())
        );
        assert_eq!(record["target"], "misbehaving");
    }
}
