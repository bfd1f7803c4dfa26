//! Runs one child process and asks the kernel what it took.

use std::fs::{self, File};
use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// What a process and the children it waited for took.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) wall: Duration,
    /// User and system time together.
    pub(crate) cpu: Duration,
    /// The largest resident set, pages of mapped files included: polars 0.55 maps local CSV files, and a page that it
    /// has read counts here until the kernel wants it back.
    pub(crate) peak_bytes: u64,
}

/// Runs `command` to its end; what it says goes to `log`, and into the error if it fails.
pub(crate) fn run(command: &mut Command, log: &Path) -> Result<Usage> {
    let file = File::create(log).map_err(|error| format!("cannot create `{}`: {error}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let program = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let child = command.spawn().map_err(|error| format!("cannot run `{program}`: {error}"))?;
    let (status, resources) = wait(child)?;
    let wall = start.elapsed();
    if !status.success() {
        let said = fs::read_to_string(log).unwrap_or_else(|error| format!("(its log is unreadable: {error})"));
        return Err(format!("`{program}` ended with {status}\n{}", said.trim_end()).into());
    }
    Ok(Usage {
        wall,
        cpu: duration(resources.ru_utime) + duration(resources.ru_stime),
        peak_bytes: resources.ru_maxrss.unsigned_abs() * MAXRSS_UNIT_BYTES,
    })
}

/// getrusage(2) of Linux counts in KiB, that of macOS in bytes.
const MAXRSS_UNIT_BYTES: u64 = if cfg!(target_os = "macos") { 1 } else { 1024 };

fn wait(child: Child) -> Result<(ExitStatus, libc::rusage)> {
    use std::os::unix::process::ExitStatusExt;

    let id = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    let mut resources = MaybeUninit::<libc::rusage>::zeroed();
    loop {
        // SAFETY: both pointers are to locals of the types that wait4(2) fills in, and outlive the call. `child` is
        // owned here and has not been waited for, so its id names no other process.
        let waited = unsafe { libc::wait4(id, &raw mut status, 0, resources.as_mut_ptr()) };
        if waited == id {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(format!("cannot wait for process {id}: {error}").into());
        }
    }
    // SAFETY: a `rusage` is plain numbers, all zero to begin with.
    Ok((ExitStatus::from_raw(status), unsafe { resources.assume_init() }))
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.unsigned_abs())
        + Duration::from_micros(u64::from(time.tv_usec.unsigned_abs() as u32))
}
