//! `pype serve` and `pype worker` as processes, and how a test talks to them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::http::{Answer, request};
use crate::measure::peak_memory;
use crate::{Sandbox, wait_for};

/// The header of a body that is JSON.
pub const JSON: &str = "Content-Type: application/json";

/// A process of `pype`, ended with its test.
pub struct Running {
    /// The process.
    pub child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    /// Starts `pype` with these arguments.
    pub fn start(sandbox: &Sandbox, arguments: &[&str]) -> Self {
        Self::of(sandbox.command(arguments).stderr(Stdio::null()))
    }

    /// Starts it as a command says.
    pub fn of(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, lines }
    }

    /// The next line that it prints.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it prints text");
        line
    }

    /// Ends it as Ctrl-C would, and gives its exit code.
    pub fn interrupt(self) -> Option<i32> {
        self.signal(libc::SIGINT);
        self.ended()
    }

    /// Waits until it has ended, and gives its exit code.
    pub fn ended(mut self) -> Option<i32> {
        self.child.wait().expect("it ends").code()
    }

    /// The most memory that it has had, in bytes.
    pub fn peak_memory(&self) -> u64 {
        peak_memory(self.child.id()).expect("it runs, and Linux tells")
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        // SAFETY: the process is our own child, and was not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A server on a port of its own.
pub struct Serving {
    /// The process.
    pub process: Running,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Serving {
    /// Starts `pype serve` for `upload.yaml`, with more arguments.
    pub fn start(sandbox: &Sandbox, more: &[&str]) -> Self {
        Self::start_with(sandbox, more, &[])
    }

    /// The same, with variables of its environment.
    pub fn start_with(sandbox: &Sandbox, more: &[&str], env: &[(&str, String)]) -> Self {
        let mut command = sandbox.command(&["serve", "upload.yaml", "--listen", "127.0.0.1:0"]);
        command.args(more).envs(env.iter().map(|(name, value)| (name, value)));
        Self::of(Running::of(command.stderr(Stdio::null())))
    }

    /// The server that a process is, once it says where it listens.
    pub fn of(mut process: Running) -> Self {
        let line = process.line();
        let address = line.trim().strip_prefix("POST http://").and_then(|rest| rest.split('/').next()?.parse().ok());
        Self { process, address: address.unwrap_or_else(|| panic!("it says where it listens: {line}")) }
    }

    /// Asks it something.
    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &[u8]) -> Answer {
        request(self.address, method, path, headers, body).expect("the server answers")
    }

    /// Posts a context.
    pub fn post(&self, context: &Value) -> Answer {
        self.ask("POST", "/pipelines/upload", &[JSON], context.to_string().as_bytes())
    }

    /// Posts a context, and gives the id of its job.
    pub fn accepted(&self, context: &Value) -> String {
        let answer = self.post(context);
        assert_eq!(answer.status, 202, "{}", answer.body);
        let body: Value = serde_json::from_str(&answer.body).expect("JSON");
        body["job_id"].as_str().expect("an id").to_owned()
    }

    /// A job as it is.
    pub fn job(&self, id: &str) -> Value {
        let answer = self.ask("GET", &format!("/jobs/{id}"), &[], b"");
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).expect("JSON")
    }

    /// Waits until a job is over.
    pub fn end_of(&self, id: &str) -> Value {
        wait_for("the end of the job", || {
            let job = self.job(id);
            let over = !matches!(job["state"].as_str(), Some("queued" | "running"));
            over.then_some(job)
        })
    }
}

/// The context of an upload of three bytes.
pub fn file(path: &str) -> Value {
    json!({"file_path": path, "file_content": {"base64": "AQID"}})
}
