//! Child processes of the host: which program they run, what they say last, and how they ended.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the output of a child that has ended is waited for: a process that it left behind may keep the pipes open.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
/// So often it is looked whether there is more.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Of what a child says, the last this many bytes are kept.
const LAST_WORDS: usize = 4096;

/// The pype binary: this one, or for those who embed the host the one that `PYPE_BIN` names.
pub(crate) fn program() -> io::Result<PathBuf> {
    let chosen: Option<OsString> = std::env::var_os("PYPE_BIN").filter(|path| !path.is_empty());
    chosen.map_or_else(std::env::current_exe, |path| Ok(path.into()))
}

/// How a process ended, as the end of a sentence about it: `crashed with SIGSEGV`.
pub(crate) fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(libc::SIGSEGV), _) => "crashed with SIGSEGV".to_owned(),
        (Some(libc::SIGABRT), _) => "aborted (SIGABRT)".to_owned(),
        (Some(libc::SIGKILL), _) => "was killed (SIGKILL): by hand, or for want of memory".to_owned(),
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended the process with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Ends a child that leads a process group, and all that it has started in it. Called before the child is reaped: until then
/// nobody else has its number.
pub(crate) fn kill_group(leader: u32) {
    let Ok(group) = libc::pid_t::try_from(leader) else { return };
    // SAFETY: it touches no memory of this process. That the group is gone is as good.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}

/// In a child: ends this process at once, whatever its other threads are at, and runs nothing that libraries want run at its end.
pub(crate) fn leave() -> ! {
    // SAFETY: nobody comes after it who could miss anything.
    unsafe { libc::_exit(0) }
}

/// In a child: its standard input, which nobody else reads from now on. Called while the process has one thread.
pub(crate) fn standard_input() -> io::Result<OwnedFd> {
    taken(&io::stdin(), &File::open("/dev/null")?)
}

/// In a child: its standard output. From now on what the process prints there goes to its standard error. Called while the
/// process has one thread.
pub(crate) fn standard_output() -> io::Result<OwnedFd> {
    taken(&io::stdout(), &io::stderr())
}

/// What a descriptor stands for, under a number that no child of ours inherits; the old one stands for `instead`.
fn taken(descriptor: &(impl AsFd + AsRawFd), instead: &impl AsRawFd) -> io::Result<OwnedFd> {
    let taken = descriptor.as_fd().try_clone_to_owned()?;
    // SAFETY: both are open descriptors of this process, which has one thread.
    match unsafe { libc::dup2(instead.as_raw_fd(), descriptor.as_raw_fd()) } {
        0.. => Ok(taken),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The last bytes of a pipe that may say more than one wants to keep, and may stay open for ever.
pub(crate) struct LastWords {
    // The reading thread appends while the parent may already look.
    kept: Arc<Mutex<Kept>>,
    ended: Receiver<()>,
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    /// Whether there were more before them.
    cut: bool,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        let excess = self.bytes.len().saturating_sub(LAST_WORDS);
        self.cut |= excess > 0;
        self.bytes.drain(..excess);
    }

    /// Whole lines: half a line may be half a secret, which nobody would know for one.
    fn text(&self) -> String {
        let first = if self.cut { self.bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) } else { 0 };
        String::from_utf8_lossy(&self.bytes[first..]).into_owned()
    }
}

impl LastWords {
    /// Reads `pipe` on a thread of its own, and gives what comes to `heard` too.
    pub(crate) fn of(pipe: Option<impl Read + Send + 'static>, mut heard: impl FnMut(&[u8]) + Send + 'static) -> Self {
        let all = Arc::new(Mutex::new(Kept::default()));
        let (end, ended) = channel();
        let kept = all.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            let mut pipe = pipe;
            while let Some(Ok(count @ 1..)) = pipe.as_mut().map(|pipe| pipe.read(&mut buffer)) {
                heard(&buffer[..count]);
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..count]);
            }
            drop(end);
        });
        Self { kept: all, ended }
    }

    /// All that is kept, once the pipe is closed or has lingered.
    pub(crate) fn text(&self) -> String {
        // Whether it ended or lingers: what is there by then is what there is.
        self.ended.recv_timeout(LINGER).unwrap_or(());
        self.so_far()
    }

    /// The same, on a thread that must not wait.
    pub(crate) async fn text_later(&mut self) -> String {
        let until = tokio::time::Instant::now() + LINGER;
        while matches!(self.ended.try_recv(), Err(TryRecvError::Empty)) && tokio::time::Instant::now() < until {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.so_far()
    }

    fn so_far(&self) -> String {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).text()
    }
}
