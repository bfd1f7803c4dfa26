//! Asks a library what is in it, in a child process: describing runs plugin code, which may crash.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pype_plugin::descriptor::LibraryDescriptor;
use serde::{Deserialize, Serialize};

use super::{Cache, LoadError, open};
use crate::secret;

/// The hidden command that the child process runs.
pub(crate) const COMMAND: &str = "__describe";

const PATIENCE: Duration = Duration::from_secs(30);
/// How long the output of a child that has ended is waited for: a process that it left behind may keep the pipes open.
const LINGER: Duration = Duration::from_secs(2);
/// Of what a child says while it crashes, the last this many bytes are kept.
const LAST_WORDS: usize = 4096;

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
    let mut child = secret::conceal(&mut Command::new(&program))
        .arg(COMMAND)
        .arg(&admitted.copy)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| LoadError::Io { doing: "start", path: program, source })?;
    let crashed = |how, stderr| LoadError::Crashed { path: path.to_owned(), how, stderr };
    // Both pipes are read while the child runs, so that a long answer cannot make it wait for us.
    let (answer, stderr) = (first_line(child.stdout.take()), Tail::of(child.stderr.take()));
    let ended =
        wait(&mut child).map_err(|source| LoadError::Io { doing: "wait for", path: path.to_owned(), source })?;
    let Some(status) = ended else {
        return Err(crashed(format!("did not answer within {} s", PATIENCE.as_secs()), stderr.text()));
    };
    let answer = answer.recv_timeout(LINGER).unwrap_or_default();
    match serde_json::from_slice(&answer) {
        Ok(Answer::Described(descriptor)) if status.success() => Ok(descriptor),
        Ok(Answer::Refused(refusal)) => Err(refusal.into_error(path)),
        _ => Err(crashed(how(status), stderr.text())),
    }
}

/// The child's part: opens and describes the library, and prints the one line that the parent reads.
///
/// # Errors
/// The line cannot be written.
pub fn describe_here(copy: &Path) -> io::Result<()> {
    // From here on what the library itself prints goes to standard error, and only the answer to the parent.
    let mut parent = io::stdout().as_fd().try_clone_to_owned().map(std::fs::File::from)?;
    // SAFETY: both are open descriptors of this process, which has one thread.
    if unsafe { libc::dup2(libc::STDERR_FILENO, libc::STDOUT_FILENO) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let answer = open::open(copy, copy).and_then(|library| {
        library.describe().map_err(|error| LoadError::Plugin {
            path: copy.to_owned(),
            doing: "described itself",
            error,
        })
    });
    let answer = answer.map_or_else(|error| Answer::Refused(Refusal::of(error)), Answer::Described);
    writeln!(parent, "{}", serde_json::to_string(&answer).expect("an answer is plain data"))
}

/// The pype binary: this one, or for those who embed the host the one that `PYPE_BIN` names.
fn worker_binary() -> std::io::Result<PathBuf> {
    let chosen = std::env::var_os("PYPE_BIN").filter(|path| !path.is_empty());
    chosen.map_or_else(std::env::current_exe, |path| Ok(path.into()))
}

/// The first line of a pipe, once it is there.
fn first_line(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, line) = channel();
    std::thread::spawn(move || {
        let lines = pipe.into_iter().flat_map(|pipe| BufReader::new(pipe).split(b'\n'));
        // Without a line, or without somebody who waits for it, there is nothing to say.
        drop(lines.flatten().next().map(|line| sender.send(line)));
    });
    line
}

/// The last bytes of a pipe that may say more than one wants to keep, and may stay open for ever.
struct Tail {
    // The reading thread appends while the parent may already look.
    bytes: Arc<Mutex<Vec<u8>>>,
    ended: Receiver<()>,
}

impl Tail {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (end, ended) = channel();
        let kept = bytes.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut pipe = pipe;
            while let Some(Ok(count @ 1..)) = pipe.as_mut().map(|pipe| pipe.read(&mut buffer)) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend_from_slice(&buffer[..count]);
                let excess = kept.len().saturating_sub(LAST_WORDS);
                kept.drain(..excess);
            }
            drop(end);
        });
        Self { bytes, ended }
    }

    fn text(&self) -> String {
        // Whether it ended or lingers: what is there by then is what there is.
        self.ended.recv_timeout(LINGER).unwrap_or(());
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
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
