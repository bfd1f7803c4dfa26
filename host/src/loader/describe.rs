//! Asks a library what is in it, in a child process: describing runs plugin code, which may crash.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use pype_plugin::descriptor::LibraryDescriptor;
use serde::{Deserialize, Serialize};

use super::{Cache, LoadError, open};

/// The hidden command that the child process runs.
pub(crate) const COMMAND: &str = "__describe";

const PATIENCE: Duration = Duration::from_secs(30);

/// What the child says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Described(LibraryDescriptor),
    Refused(Refusal),
}

/// A [`LoadError`] that can cross to the parent.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Refusal {
    NotALibrary(String),
    NotAPlugin(String),
    OtherApi(u32, u32),
    Layout(String),
    PanicAbort,
    Plugin(pype_plugin::Error),
    Other(String),
}

/// What is in the library at `path`.
///
/// # Errors
/// It is no plugin for this host, or does not survive being asked.
pub fn describe(path: &Path) -> Result<LibraryDescriptor, LoadError> {
    let admitted = Cache::of_user()?.admit(path)?;
    let program = worker_binary().map_err(|source| LoadError::Io { doing: "find", path: "pype".into(), source })?;
    let mut child = Command::new(&program)
        .arg(COMMAND)
        .arg(&admitted.copy)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| LoadError::Io { doing: "start", path: program, source })?;
    let crashed = |how, stderr| LoadError::Crashed { path: path.to_owned(), how, stderr };
    // Both pipes are read while the child runs, so that a long answer cannot make it wait for us.
    let (stdout, stderr) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let ended =
        wait(&mut child).map_err(|source| LoadError::Io { doing: "wait for", path: path.to_owned(), source })?;
    let (stdout, stderr) = (collect(stdout), String::from_utf8_lossy(&collect(stderr)).into_owned());
    let Some(status) = ended else {
        return Err(crashed(format!("did not answer within {} s", PATIENCE.as_secs()), stderr));
    };
    match serde_json::from_slice(&stdout) {
        Ok(Answer::Described(descriptor)) if status.success() => Ok(descriptor),
        Ok(Answer::Refused(refusal)) => Err(refusal.into_error(path)),
        _ => Err(crashed(how(status), stderr)),
    }
}

/// The child's part: opens and describes the library, and prints what the parent reads.
pub fn describe_here(copy: &Path) -> String {
    let answer = open::open(copy, copy).and_then(|library| {
        library.describe().map_err(|error| LoadError::Plugin {
            path: copy.to_owned(),
            doing: "described itself",
            error,
        })
    });
    let answer = answer.map_or_else(|error| Answer::Refused(Refusal::of(error)), Answer::Described);
    serde_json::to_string(&answer).expect("an answer is plain data")
}

/// The pype binary: this one, or for those who embed the host the one that `PYPE_BIN` names.
fn worker_binary() -> std::io::Result<PathBuf> {
    let chosen = std::env::var_os("PYPE_BIN").filter(|path| !path.is_empty());
    chosen.map_or_else(std::env::current_exe, |path| Ok(path.into()))
}

type Reading = std::thread::JoinHandle<Vec<u8>>;

fn reader(pipe: Option<impl Read + Send + 'static>) -> Reading {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(Err(cause)) = pipe.map(|mut pipe| pipe.read_to_end(&mut bytes)) {
            tracing::debug!("the describing process's output ended early: {cause}");
        }
        bytes
    })
}

fn collect(reading: Reading) -> Vec<u8> {
    reading.join().unwrap_or_default()
}

/// Waits, but not for ever: none means that the child had to be ended.
fn wait(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(libc::SIGSEGV), _) => "crashed with SIGSEGV".to_owned(),
        (Some(libc::SIGABRT), _) => "aborted (SIGABRT)".to_owned(),
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended the process with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

impl Refusal {
    fn of(error: LoadError) -> Self {
        match error {
            LoadError::NotALibrary { cause, .. } => Self::NotALibrary(cause),
            LoadError::NotAPlugin { cause, .. } => Self::NotAPlugin(cause),
            LoadError::OtherApi { plugin, .. } => Self::OtherApi(plugin.0, plugin.1),
            LoadError::Layout { differences, .. } => Self::Layout(differences),
            LoadError::PanicAbort { .. } => Self::PanicAbort,
            LoadError::Plugin { error, .. } => Self::Plugin(error),
            other => Self::Other(other.to_string()),
        }
    }

    fn into_error(self, path: &Path) -> LoadError {
        let path = path.to_owned();
        match self {
            Self::NotALibrary(cause) => LoadError::NotALibrary { path, cause },
            Self::NotAPlugin(cause) | Self::Other(cause) => LoadError::NotAPlugin { path, cause },
            Self::OtherApi(major, minor) => LoadError::OtherApi { path, plugin: (major, minor) },
            Self::Layout(differences) => LoadError::Layout { path, differences },
            Self::PanicAbort => LoadError::PanicAbort { path },
            Self::Plugin(error) => LoadError::Plugin { path, doing: "described itself", error },
        }
    }
}
