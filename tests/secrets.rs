//! Secrets: from the environment, from a file, and from a server with Vault's API; and that nothing that is written holds one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

use pype_tests::{Done, Sandbox, plugin};

/// Written differently as JSON, in a URL and by `{:?}`.
const PASSWORD: &str = "pa\"ss/wörd 7?";
/// `user:` and the password, as an HTTP header has it.
const IN_BASE64: &str = "dXNlcjpwYSJzcy93w7ZyZCA3Pw==";
const UNNAMED: &str = "correct-horse";
const TOKEN: &str = "hvs.CAESIJ-token";

/// A project whose flow gives `password` to the module that tells everybody.
fn project(password: &str, fails: bool) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.register(&plugin("misbehaving"));
    let configs = format!("{{required: {{password: \"{password}\", fails: {fails}}}}}");
    sandbox.flow(
        "leak",
        &format!("settings: {{retries: 0}}\nmodules:\n  - {{id: tells, name: leak_solo, configs: {configs}}}\n"),
    );
    sandbox
}

fn run(sandbox: &Sandbox, arguments: &[&str], env: &[(&str, &str)]) -> Done {
    let mut command = sandbox.command(arguments);
    // Its own home, where no token lies, and its own place for temporary files, which are searched too.
    let folder = sandbox.path("tmp");
    fs::create_dir_all(&folder).expect("made");
    command.env("HOME", sandbox.path("")).env("TMPDIR", folder).envs(env.iter().copied());
    Done::of(command.output().expect("the binary runs"))
}

/// Everything below `folder` and all that was printed, without a trace of a secret.
#[track_caller]
fn nothing_leaks(folder: &Path, done: &[Done]) {
    let mut written = String::new();
    collect(folder, &mut written);
    done.iter().for_each(|done| written.extend([done.out.as_str(), &done.err]));
    for trace in [PASSWORD, "wörd", "w%C3%B6rd", "w\\u", &IN_BASE64[9..24], UNNAMED, TOKEN] {
        assert!(!written.contains(trace), "`{trace}` in:\n{written}");
    }
}

fn collect(folder: &Path, written: &mut String) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        match path.is_dir() {
            true => collect(&path, written),
            false => written.push_str(&String::from_utf8_lossy(&fs::read(&path).expect("readable"))),
        }
    }
}

#[test]
fn nothing_that_is_written_holds_a_secret() {
    // One that no template names is not masked, and so nobody may get at it.
    let env = [("PYPE_SECRET_FTP_PASSWORD", PASSWORD), ("PYPE_SECRET_OTHER", UNNAMED), ("VAULT_TOKEN", TOKEN)];
    for (fails, code) in [(true, 30), (false, 0)] {
        let sandbox = project("{{secret.ftp.password}}", fails);
        let mut all = Vec::new();
        for arguments in [
            &["run", "leak.yaml"][..],
            &["run", "leak.yaml", "--log", "trace"],
            &["run", "leak.yaml", "--json", "--log-format", "json"],
            &["build", "leak.yaml"],
            &["run", "jobs/leak", "--json"],
        ] {
            let done = run(&sandbox, arguments, &env);
            let expect = if arguments[0] == "build" { 0 } else { code };
            assert_eq!(done.code, Some(expect), "{arguments:?}\n{}\n{}", done.out, done.err);
            assert!(arguments[0] == "build" || done.err.contains("the password is ***"), "{}", done.err);
            all.push(done);
        }
        let events = &all[2].out;
        assert!(events.contains("ftp://user:***@host"), "{events}");
        assert_eq!(fails, events.contains("login with *** failed"), "{events}");
        nothing_leaks(&sandbox.path(""), &all);
    }
}

#[test]
fn all_that_is_missing_is_told_at_once_and_where() {
    let sandbox = project("{{secret.ftp.user}}:{{secret.ftp.password}}", false);
    let done = run(&sandbox, &["run", "leak.yaml"], &[]);
    done.fails(
        20,
        &[
            "the secret `ftp.user` is not there: `PYPE_SECRET_FTP_USER` is not set",
            "leak.yaml:4:",
            "set the environment variable PYPE_SECRET_FTP_PASSWORD",
            "2 errors",
        ],
    );
    let done = run(&sandbox, &["run", "leak.yaml", "--json"], &[]);
    let found: serde_json::Value = serde_json::from_str(&done.out).expect("findings as JSON");
    assert_eq!(
        (found[0]["code"].as_str(), found[1]["span"]["start"]["line"].as_u64()),
        (Some("missing-secret"), Some(4))
    );
    assert_eq!(run(&sandbox, &["validate", "leak.yaml"], &[]).code, Some(0));
}

#[test]
fn a_template_may_do_without_a_secret_and_gets_at_none_another_way() {
    let env = [("PYPE_SECRET_FTP_PASSWORD", PASSWORD), ("VAULT_TOKEN", TOKEN)];
    let sandbox = project("{{secret.ftp.passphrase | default('none')}}", false);
    let done = run(&sandbox, &["run", "leak.yaml"], &env);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.err.contains("the password is none"), "{}", done.err);
    for name in ["PYPE_SECRET_FTP_PASSWORD", "VAULT_TOKEN"] {
        let sandbox = project(&format!("{{{{env.{name}}}}}"), false);
        let done = run(&sandbox, &["run", "leak.yaml"], &env);
        assert_eq!(done.code, Some(30), "{}", done.err);
        assert!(done.err.contains("has no value") || done.out.contains("has no value"), "{}\n{}", done.out, done.err);
        nothing_leaks(&sandbox.path(""), &[done]);
    }
}

#[test]
fn a_file_of_secrets_belongs_to_its_user() {
    let sandbox = project("{{secret.ftp.password}}", false);
    // Outside of the project, whose files are searched.
    let outside = Sandbox::new();
    let file = outside.path("secrets.yaml");
    fs::write(&file, format!("ftp:\n  password: {PASSWORD:?}\n")).expect("written");
    let origin = format!("file:{}", file.display());
    let arguments = ["run", "leak.yaml", "--secrets", &origin];
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("its mode is set");
    run(&sandbox, &arguments, &[]).fails(20, &["others may use", "its mode is 0644", "chmod 600"]);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("its mode is set");
    let done = run(&sandbox, &arguments, &[]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    fs::write(&file, "ftp: {user: x}\n").expect("written");
    let missing = run(&sandbox, &arguments, &[]);
    missing.fails(20, &["the secret `ftp.password` is not in", "add `ftp: {password: \"…\"}`", "leak.yaml:4:"]);
    fs::remove_file(&file).expect("removed");
    run(&sandbox, &arguments, &[]).fails(20, &["cannot read"]);
    run(&sandbox, &["run", "leak.yaml", "--secrets", "consul"], &[]).fails(20, &["use env, file:PATH, vault"]);
    nothing_leaks(&sandbox.path(""), &[done, missing]);
}

/// Answers as Vault does: <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2>.
struct Vault {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Vault {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("bound"));
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let asked = requests.clone();
        // It ends with the process: no request follows the last test's.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let asked = asked.clone();
                std::thread::spawn(move || answer(connection.expect("a connection"), &asked));
            }
        });
        Self { address, requests }
    }

    fn run(&self, sandbox: &Sandbox, arguments: &[&str]) -> Done {
        let env = [("VAULT_ADDR", self.address.as_str()), ("VAULT_TOKEN", TOKEN), ("VAULT_NAMESPACE", "team")];
        run(sandbox, arguments, &env)
    }
}

fn answer(connection: TcpStream, asked: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(connection.try_clone().expect("a socket"));
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).expect("a request") == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let headers: BTreeMap<String, &str> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value))
            .collect();
        let header = |name: &str| headers.get(name).copied().unwrap_or("-");
        asked.lock().expect("no panic").push(format!("{} {}", lines[0], header("x-vault-namespace")));
        let path = lines[0].split(' ').nth(1).expect("a request line");
        let (status, body) = match header("x-vault-token") {
            TOKEN => document(path),
            _ => ("403 Forbidden", r#"{"errors":["permission denied"]}"#.to_owned()),
        };
        let location = if status.starts_with("307") { "Location: http://127.0.0.1:1/\r\n" } else { "" };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\n{location}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );
        (&connection).write_all((head + &body).as_bytes()).expect("answered");
    }
}

fn document(path: &str) -> (&'static str, String) {
    let version =
        r#""metadata":{"created_time":"2025-01-15T09:30:00Z","deletion_time":"","destroyed":false,"version":2}"#;
    let data = |data: serde_json::Value| {
        format!(
            r#"{{"request_id":"1","lease_id":"","renewable":false,"lease_duration":0,"data":{{"data":{data},{version}}},"wrap_info":null,"warnings":null,"auth":null}}"#
        )
    };
    match path {
        "/v1/secret/data/ftp/prod" => {
            ("200 OK", data(serde_json::json!({"password": PASSWORD, "user": "anna", "port": 21})))
        }
        "/v1/secret/data/gone" => ("404 Not Found", data(serde_json::Value::Null)),
        "/v1/secret/data/locked" => {
            ("403 Forbidden", r#"{"errors":["1 error occurred:\n\t* permission denied\n\n"]}"#.to_owned())
        }
        "/v1/secret/data/sealed" => ("503 Service Unavailable", r#"{"errors":["Vault is sealed"]}"#.to_owned()),
        "/v1/secret/data/moved" => ("307 Temporary Redirect", String::new()),
        "/v1/secret/data/proxy" => ("404 Not Found", "<html>no such host</html>".to_owned()),
        "/v1/secret/data/page" => ("200 OK", "<html>hello</html>".to_owned()),
        path if path.starts_with("/v1/secret/data/") => ("404 Not Found", r#"{"errors":[]}"#.to_owned()),
        _ => (
            "404 Not Found",
            r#"{"errors":["no handler for route \"kv/data/gone\". route entry not found."]}"#.to_owned(),
        ),
    }
}

#[test]
fn vault_is_asked_once_for_each_path() {
    let vault = Vault::start();
    let sandbox = project("{{secret.ftp.prod.password}}{{secret.ftp.prod.user}}", false);
    let done = vault.run(&sandbox, &["run", "leak.yaml", "--log", "trace"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert_eq!(*vault.requests.lock().expect("no panic"), ["GET /v1/secret/data/ftp/prod HTTP/1.1 team"]);
    let valid = vault.run(&sandbox, &["validate", "leak.yaml"]);
    assert_eq!((valid.code, vault.requests.lock().expect("no panic").len()), (Some(0), 1));
    nothing_leaks(&sandbox.path(""), &[done, valid]);
}

#[test]
fn what_vault_lacks_is_told_with_the_next_step() {
    let vault = Vault::start();
    let names = "{{secret.ftp.prod.pass}}{{secret.ftp.prod.port}}{{secret.nothing.here}}{{secret.gone.key}}{{secret.locked.key}}{{secret.short}}";
    let sandbox = project(names, false);
    let done = vault.run(&sandbox, &["run", "leak.yaml"]);
    done.fails(
        20,
        &[
            "Vault has no `pass` at `secret/ftp/prod`",
            "vault kv patch -mount=secret ftp/prod pass=…",
            "`port` at `secret/ftp/prod` in Vault is not text",
            "Vault has no `here` at `secret/nothing`",
            "Vault has no `key` at `secret/gone`",
            "vault kv put -mount=secret gone key=…",
            "the token may not read `secret/data/locked` in Vault",
            "`secret.short` names a key and no path",
            "6 errors",
        ],
    );
    let other = project("{{secret.gone.key}}", false);
    let mount = vault.run(&other, &["run", "leak.yaml", "--secrets", "vault:kv"]);
    mount.fails(20, &["Vault has nothing at `kv/data/gone`: no handler for route", "vault secrets list"]);
    nothing_leaks(&sandbox.path(""), &[done, mount]);
}

#[test]
fn a_vault_that_does_not_answer_as_one_fails_the_run() {
    let vault = Vault::start();
    for (name, code, says) in [
        ("sealed", 30, &["answers 503 for `secret/data/sealed`: Vault is sealed", "vault status"][..]),
        ("moved", 30, &["answers 307", "let VAULT_ADDR name the server"]),
        ("proxy", 30, &["answers 404 for `secret/data/proxy`, and not as Vault does"]),
        ("page", 30, &["no secret of a KV store, version 2"]),
    ] {
        let sandbox = project(&format!("{{{{secret.{name}.key}}}}"), false);
        let done = vault.run(&sandbox, &["run", "leak.yaml"]);
        done.fails(code, says);
        nothing_leaks(&sandbox.path(""), &[done]);
    }
    let sandbox = project("{{secret.a.key}}", false);
    let refused = |env: &[(&str, &str)], code: i32, says: &[&str]| {
        let done = run(&sandbox, &["run", "leak.yaml", "--secrets", "vault"], env);
        done.fails(code, says);
        nothing_leaks(&sandbox.path(""), &[done]);
    };
    // Nobody listens on port 1.
    let nowhere = ("VAULT_ADDR", "http://me:secret@127.0.0.1:1");
    refused(
        &[nowhere, ("VAULT_TOKEN", TOKEN)],
        30,
        &["cannot reach Vault at `http://127.0.0.1:1`", "refused", "VAULT_ADDR"],
    );
    refused(&[nowhere], 20, &["there is no token for Vault at `http://127.0.0.1:1`", "vault login"]);
    refused(&[], 20, &["nothing says where Vault is", "export VAULT_ADDR"]);
    let authority = sandbox.path("leak.yaml");
    let authority = ("VAULT_CACERT", authority.to_str().expect("text"));
    refused(&[nowhere, ("VAULT_TOKEN", TOKEN), authority], 20, &["holds no certificate in PEM form"]);
}
