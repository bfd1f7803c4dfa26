//! A child process: started with one end of a socket, killed when nobody has it any more.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::COMMAND;
use crate::child::{self, LastWords};
use crate::secret;

/// How often a process that should end is looked at, at first and later on.
const LOOKS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));

/// A child process.
pub(super) struct Process {
    // In a test there may be none.
    child: Option<Child>,
    id: u32,
    killed: bool,
    words: LastWords,
}

impl Process {
    /// Starts one, and gives our end of the socket. What it prints goes to `heard`; what it is at goes to `progress`.
    ///
    /// The child has the other end as its standard input, and `progress` as its standard output: these are the descriptors
    /// that one process hands another without more ado. It is in a process group of its own, for Ctrl-C is the host's to
    /// hear: it lets its children end what they are at.
    ///
    /// # Errors
    /// The operating system gives no process, or no socket.
    pub(super) fn start(
        progress: Option<File>,
        heard: impl FnMut(&[u8]) + Send + 'static,
    ) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = Command::new(child::program()?);
        let mut child = secret::conceal(&mut command)
            .arg(COMMAND)
            .stdin(OwnedFd::from(theirs))
            .stdout(progress.map_or_else(Stdio::null, Stdio::from))
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let words = LastWords::of(child.stderr.take(), heard);
        Ok((Self { id: child.id(), child: Some(child), killed: false, words }, ours))
    }

    /// No process: what should be in one is a thread of this.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self { child: None, id: 0, killed: false, words: LastWords::of(None::<std::process::ChildStderr>, |_| {}) }
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// Waits until it has ended, for so long; then it is killed. How it ended, as the end of a sentence about it.
    pub(super) async fn end(&mut self, patience: Duration) -> String {
        let until = tokio::time::Instant::now() + patience;
        let mut pause = LOOKS.0;
        loop {
            let Some(child) = &mut self.child else { return "was ended".to_owned() };
            match child.try_wait() {
                Ok(Some(_)) if self.killed => return "was killed by pype".to_owned(),
                Ok(Some(status)) => return child::how(status),
                Ok(None) if tokio::time::Instant::now() < until => tokio::time::sleep(pause).await,
                Ok(None) => {
                    self.kill();
                    return format!("had not ended after {} ms, and was killed", patience.as_millis());
                }
                Err(cause) => return format!("ended somehow ({cause})"),
            }
            pause = (pause * 2).min(LOOKS.1);
        }
    }

    /// Ends it at once, and what it has started.
    pub(super) fn kill(&mut self) {
        let Some(child) = &mut self.child else { return };
        if !matches!(child.try_wait(), Ok(Some(_))) {
            child::kill_group(self.id);
            self.killed = true;
        }
    }

    /// What it printed last.
    pub(super) async fn last_words(&mut self) -> String {
        self.words.text_later().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let Some(mut child) = self.child.take() else { return };
        if !matches!(child.try_wait(), Ok(Some(_))) {
            // The operating system may need a moment to take its memory back.
            std::thread::spawn(move || child.wait());
        }
    }
}
