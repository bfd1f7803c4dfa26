//! Ctrl-C and its relatives, watched on a thread of their own: whatever the rest of the process waits for, a signal is
//! heard.

use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::Exit;

/// Cancels `interrupt` at the first signal; at the second the process ends at once.
///
/// # Errors
/// The operating system gives no thread, or no way to hear of signals.
pub(super) fn watch(interrupt: CancellationToken) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let mut signals = {
        let _inside = runtime.enter();
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        kinds.into_iter().filter(|kind| !is_ignored(*kind)).map(signal).collect::<io::Result<Vec<_>>>()?
    };
    let listen = async move {
        next(&mut signals).await;
        interrupt.cancel();
        tracing::warn!("stopping; once more to stop at once");
        next(&mut signals).await;
        std::process::exit(Exit::Cancelled as i32);
    };
    std::thread::Builder::new().name("pype-signals".to_owned()).spawn(move || runtime.block_on(listen))?;
    Ok(())
}

async fn next(signals: &mut [Signal]) {
    std::future::poll_fn(|cx| match signals.iter_mut().any(|signal| signal.poll_recv(cx).is_ready()) {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Whether whoever started this process wants it to ignore the signal, as `nohup` does.
fn is_ignored(kind: SignalKind) -> bool {
    // SAFETY: all zeroes are a `sigaction`, which the call only fills in.
    let mut current: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `current` is valid for writing, and nothing is changed.
    let asked = unsafe { libc::sigaction(kind.as_raw_value(), std::ptr::null(), &mut current) };
    asked == 0 && current.sa_sigaction == libc::SIG_IGN
}
