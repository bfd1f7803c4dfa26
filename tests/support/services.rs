//! Real servers for tests, each with a port and a folder of its own, which end with the test's process.
//!
//! A test whose server is not installed says so and does nothing; with `CI=true` it fails. `tests/services` starts the same
//! servers for a person.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use crate::{repository, wait_for};

/// How to start a server on a port, with a folder.
type Start = fn(&Path, port: u16) -> Command;

/// Kafka's port for those who log in comes so long after its own.
const TO_LOG_IN: u16 = 2;

/// A server that runs, or ran.
pub struct Server {
    start: Start,
    ready: fn(u16) -> bool,
    port: u16,
    folder: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// Redis, which has written what it acknowledges to the disk.
    pub fn redis() -> Option<Self> {
        let start: Start = |folder, port| {
            let mut command = Command::new("redis-server");
            command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
            command.arg("--port").arg(port.to_string()).arg("--dir").arg(folder);
            command
        };
        Self::started(start, |port| answers(port, b"PING\r\n", b"+PONG"))
    }

    /// NATS with JetStream.
    pub fn nats() -> Option<Self> {
        let start: Start = |folder, port| {
            let mut command = Command::new("nats-server");
            command.args(["-a", "127.0.0.1", "-js", "-p"]).arg(port.to_string()).arg("-sd").arg(folder);
            command
        };
        Self::started(start, |port| answers(port, b"", b"INFO "))
    }

    /// NATS that keeps nothing.
    pub fn nats_without_jetstream() -> Option<Self> {
        let start: Start = |_, port| {
            let mut command = Command::new("nats-server");
            command.args(["-a", "127.0.0.1", "-p"]).arg(port.to_string());
            command
        };
        Self::started(start, |port| answers(port, b"", b"INFO "))
    }

    /// PostgreSQL, with the database and the user `postgres`.
    pub fn postgres() -> Option<Self> {
        let start: Start = |folder, port| {
            let data = folder.join("data");
            let mut command = as_nobody_special(&postgres_program("postgres"), folder);
            if !data.exists() {
                let mut init = as_nobody_special(&postgres_program("initdb"), folder);
                init.args(["--auth=trust", "--username=postgres", "-D"]).arg(&data);
                // A program that is not there is noticed when the server is started.
                drop(init.stdout(Stdio::null()).stderr(Stdio::null()).status());
            }
            command.args(["-h", "127.0.0.1", "-k", ""]).arg("-p").arg(port.to_string()).arg("-D").arg(&data);
            command
        };
        // Version 3.0 of its protocol. To one that it lets in it says `R`, and `E` as long as it is starting.
        Self::started(start, |port| answers(port, b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0", b"R"))
    }

    /// An S3 server, MinIO, with the empty bucket `pype`.
    pub fn s3() -> Option<Self> {
        let start: Start = |folder, port| {
            // A folder is a bucket.
            fs::create_dir_all(folder.join("pype")).expect("a bucket");
            let mut command = Command::new("minio");
            command.args(["server", "--quiet", "--address"]).arg(format!("127.0.0.1:{port}")).arg(folder);
            command.env("MINIO_BROWSER", "off");
            command
        };
        Self::started(start, |port| {
            answers(port, b"GET /minio/health/ready HTTP/1.0\r\nHost: localhost\r\n\r\n", b"HTTP/1.0 200")
        })
    }

    /// Apache Kafka, one broker without topics, which creates none unasked. It speaks both group protocols.
    ///
    /// It takes 400 MB and some seconds of a core to start: tests that neither kill it nor need it empty share one of a
    /// `LazyLock`, each with topics and groups of its own. Killed, it keeps what it has acknowledged, and needs the three
    /// seconds of its own session to be back.
    pub fn kafka() -> Option<Self> {
        Self::kafka_that(kafka_command)
    }

    /// The same, which has another address for those who log in: as `pype`, with the password `secret` (SASL/PLAIN).
    pub fn kafka_with_passwords() -> Option<Self> {
        Self::kafka_that(|folder, port| {
            let listen = |name: &str, after: u16| format!("{name}://127.0.0.1:{}", port + after);
            let listeners = [listen("PLAINTEXT", 0), listen("CONTROLLER", 1), listen("SASL_PLAINTEXT", TO_LOG_IN)];
            let settings = format!(
                "listeners={}\n\
                 listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT\n\
                 sasl.enabled.mechanisms=PLAIN\n\
                 listener.name.sasl_plaintext.plain.sasl.jaas.config=\
                 org.apache.kafka.common.security.plain.PlainLoginModule required user_pype=\"secret\";\n",
                listeners.join(",")
            );
            fs::write(folder.join("more.properties"), settings).expect("settings");
            kafka_command(folder, port)
        })
    }

    fn kafka_that(start: Start) -> Option<Self> {
        let have = Command::new(repository().join("tests/services")).args(["have", "kafka"]).output();
        let have = have.expect("the repository has this script");
        if !have.status.success() {
            skipped(String::from_utf8_lossy(&have.stdout).trim_end());
            return None;
        }
        // Metadata of no topics (version 1, correlation 7): it knows one broker, which is itself. Before that it answers
        // ApiVersions, and refuses to create topics.
        Self::started(start, |port| {
            let ask = b"\0\0\0\x0e\0\x03\0\x01\0\0\0\x07\xff\xff\0\0\0\0";
            answer(port, ask, 12).is_ok_and(|answer| answer[4..] == [0, 0, 0, 7, 0, 0, 0, 1])
        })
    }

    /// The variables with which S3's clients find it.
    pub fn s3_variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address())),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_ACCESS_KEY_ID", "minioadmin".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "minioadmin".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }

    fn started(start: Start, ready: fn(u16) -> bool) -> Option<Self> {
        let (folder, port) = (new_folder(), free_port());
        let mut server = Self { start, ready, port, folder, child: None };
        let name = (start)(&server.folder, port).get_program().to_string_lossy().into_owned();
        if server.start().is_none() {
            skipped(&format!("`{name}` is not installed"));
            return None;
        }
        Some(server)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The same of [`Server::kafka_with_passwords`] for those who log in.
    pub fn address_to_log_in(&self) -> String {
        format!("127.0.0.1:{}", self.port + TO_LOG_IN)
    }

    /// Ends it as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is ours");
            child.wait().expect("it ends");
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).expect("a process id");
        // SAFETY: the process is our own child, and was not waited for yet.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "the server is gone");
    }

    /// Ends it as a power cut would, and starts it again.
    pub fn restart(&mut self) {
        self.kill();
        self.start().expect("it was there");
    }

    /// Starts it again, where it was and with what it has on its disk; `None` if there is no such program.
    pub fn start(&mut self) -> Option<()> {
        let mut command = (self.start)(&self.folder, self.port);
        let log = fs::File::options().create(true).append(true).open(self.folder.join("log"));
        let log = log.expect("a log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        self.child = Some(spawn(command)?);
        let (port, ready) = (self.port, self.ready);
        wait_for("the server", || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().expect("it is ours"));
            if let Some(status) = ended {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                panic!("the server has ended ({status}):\n{log}");
            }
            ready(port).then_some(())
        });
        Some(())
    }
}

fn kafka_command(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(repository().join("tests/services"));
    command.args(["run", "kafka"]).arg(folder).arg(port.to_string());
    // It does not live long enough for the better of Java's compilers.
    command.arg("-XX:TieredStopAtLevel=1");
    command
}

/// Says that there is no such server.
fn skipped(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    eprintln!("skipped: {why}");
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        // What is left is taken away by the next run.
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// An empty folder, which every user may enter. A server that is a static of a test is never dropped, so the folders of
/// processes that are no more are taken away here.
fn new_folder() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let (pid, number) = (std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
    let all = std::env::temp_dir().join("pype-services");
    for entry in fs::read_dir(&all).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let of = name.split('-').next().unwrap_or_default();
        if !Path::new("/proc").join(of).exists() {
            // Another test may be doing the same.
            drop(fs::remove_dir_all(entry.path()));
        }
    }
    let folder = all.join(format!("{pid}-{number}"));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Starts a process that ends when this one does, however that ends; `None` if there is no such program.
fn spawn(mut command: Command) -> Option<Child> {
    // SAFETY: `prctl` may be called between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    // The signal comes when the thread ends that has started the process: this one stays.
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let child = command.spawn();
        if tell.send(child).is_ok() {
            loop {
                std::thread::park();
            }
        }
    });
    match told.recv().expect("the thread tells") {
        Ok(child) => Some(child),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("the server does not start: {error}"),
    }
}

/// A port which is free, as the next two are. They lie below those that the system gives to outgoing connections, one of
/// which could take the port of a server that is down or not yet up.
fn free_port() -> u16 {
    const PORTS: u32 = 20_000;
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    // Processes that run at the same time begin far from each other.
    let begin = std::process::id().wrapping_mul(64);
    let ports =
        std::iter::repeat_with(|| begin.wrapping_add(4 * NUMBER.fetch_add(1, Ordering::Relaxed)) % PORTS + 10_000);
    let mut ports = ports.take(PORTS as usize).map(|port| u16::try_from(port).expect("it is below 30,000"));
    ports.find(|port| (0..3).all(|after| free(port + after))).expect("a port is free")
}

/// Whether a server says this, after it was asked that.
fn answers(port: u16, ask: &[u8], expected: &[u8]) -> bool {
    answer(port, ask, expected.len()).is_ok_and(|answer| answer == expected)
}

/// The first bytes that a server says, after it was asked this.
fn answer(port: u16, ask: &[u8], length: usize) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    stream.write_all(ask)?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

/// A program of PostgreSQL, which Debian keeps off the path.
fn postgres_program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = versions.map(|version| version.path().join("bin").join(name)).find(|program| program.exists());
    found.unwrap_or_else(|| name.into())
}

/// A program that refuses to run as root.
fn as_nobody_special(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    // SAFETY: it only asks.
    if unsafe { libc::geteuid() } == 0 {
        // SAFETY: the name ends with NUL, and nobody else asks for users in the tests.
        let user = unsafe { libc::getpwnam(c"postgres".as_ptr()).as_ref() };
        let (user, group) = user.map_or((65534, 65534), |user| (user.pw_uid, user.pw_gid));
        std::os::unix::fs::chown(folder, Some(user), Some(group)).expect("the folder is ours");
        command.uid(user).gid(group).current_dir(folder);
    }
    command
}
