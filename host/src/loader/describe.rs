//! Asks a library what is in it, in a child process: describing runs plugin code, which may crash.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use pype_plugin::descriptor::LibraryDescriptor;
use serde::{Deserialize, Serialize};

use super::{Cache, Faults, LoadError, open};
use crate::child::{self, LINGER, LastWords};
use crate::secret;

/// The hidden command that the child process runs.
pub(crate) const COMMAND: &str = "__describe";

const PATIENCE: Duration = Duration::from_secs(30);

/// What is in a library.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Described {
    /// What it says of itself.
    pub library: LibraryDescriptor,
    /// It was built with `panic=abort`: a fault in it ends the process that it is in.
    pub aborts: bool,
}

/// What the child says.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Described(Described),
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
pub fn describe(path: &Path) -> Result<Described, LoadError> {
    let admitted = Cache::of_user()?.admit(path)?;
    let program = child::program().map_err(|source| LoadError::Io { doing: "find", path: "pype".into(), source })?;
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
    let (answer, stderr) = (first_line(child.stdout.take()), LastWords::of(child.stderr.take(), |_| {}));
    let ended =
        wait(&mut child).map_err(|source| LoadError::Io { doing: "wait for", path: path.to_owned(), source })?;
    let Some(status) = ended else {
        return Err(crashed(format!("did not answer within {} s", PATIENCE.as_secs()), stderr.text()));
    };
    let answer = answer.recv_timeout(LINGER).unwrap_or_default();
    match serde_json::from_slice(&answer) {
        Ok(Answer::Described(described)) if status.success() => Ok(described),
        Ok(Answer::Refused(refusal)) => Err(refusal.into_error(path)),
        _ => Err(crashed(child::how(status), stderr.text())),
    }
}

/// The child's part: opens and describes the library, and prints the one line that the parent reads.
///
/// # Errors
/// The line cannot be written.
pub fn describe_here(copy: &Path) -> io::Result<()> {
    // From here on what the library itself prints goes to standard error, and only the answer to the parent.
    let mut parent = File::from(child::standard_output()?);
    let answer = described(copy).map_or_else(|error| Answer::Refused(Refusal::of(error)), Answer::Described);
    writeln!(parent, "{}", serde_json::to_string(&answer).expect("an answer is plain data"))
}

fn described(copy: &Path) -> Result<Described, LoadError> {
    let (library, aborts) = match open::open(copy, copy, Faults::Contained) {
        // This process is there for nothing else.
        Err(LoadError::PanicAbort { .. }) => (open::open(copy, copy, Faults::EndProcess)?, true),
        opened => (opened?, false),
    };
    let failed = |error| LoadError::Plugin { path: copy.to_owned(), doing: "described itself", error };
    Ok(Described { library: library.describe().map_err(failed)?, aborts })
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
