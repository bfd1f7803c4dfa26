//! Events on their way to the display.
//!
//! Who tells an event wakes nobody: the display looks for itself, often enough for eyes, so that a loop over a hundred
//! thousand items is not a hundred thousand wake-ups. A display that falls far behind holds up who tells; progress, of
//! which there is no end and which is worth nothing late, is left out before that.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pype_core::run::event::RunEvent;

use super::progress::Progress;

/// How often the display looks.
const LOOKS_EVERY: Duration = Duration::from_millis(10);
/// While more events than this wait, progress is left out.
const WITH_PROGRESS: usize = 1024;
/// While more than this wait, who tells waits too.
const WAITING: usize = 65_536;

/// A queue of events, and who shows them.
pub(super) fn queue() -> (EventSender, Events) {
    let queue: Arc<Queue> = Arc::default();
    (EventSender(queue.clone()), Events(queue))
}

/// Tells events. Clones tell the same display.
#[derive(Clone)]
pub(super) struct EventSender(Arc<Queue>);

/// Shows events.
pub(super) struct Events(Arc<Queue>);

#[derive(Default)]
struct Queue {
    // Locked for as long as it takes to add an event, or to take all.
    waiting: Mutex<Waiting>,
    /// For the display: the last event is there.
    end: Condvar,
    /// For who tells: there is room again.
    room: Condvar,
}

#[derive(Default)]
struct Waiting {
    events: Vec<RunEvent>,
    ended: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventSender {
    /// To be held by what tells the last event.
    pub(super) fn ending(&self) -> Ending {
        Ending(self.clone())
    }

    pub(super) fn send(&self, event: RunEvent) {
        let Self(queue) = self;
        let mut waiting = queue.waiting();
        if waiting.events.len() > WITH_PROGRESS && matches!(event, RunEvent::NodeProgress { .. }) {
            return;
        }
        while waiting.events.len() > WAITING && !waiting.ended {
            queue.end.notify_one();
            waiting = queue.room.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let is_last = matches!(event, RunEvent::RunFinished { .. });
        waiting.events.push(event);
        if is_last {
            waiting.ended = true;
            queue.end.notify_one();
        }
    }
}

/// Ends the display when it is dropped, though no event said so: the run has panicked.
pub(super) struct Ending(EventSender);

impl Drop for Ending {
    fn drop(&mut self) {
        let EventSender(queue) = &self.0;
        queue.waiting().ended = true;
        queue.end.notify_one();
    }
}

impl Events {
    /// Shows events until the run has ended.
    pub(super) fn show(self, progress: &mut Progress<'_>) -> io::Result<()> {
        let Self(queue) = self;
        let mut shown = Ok(());
        // What the queue has grown to it keeps.
        let mut events = Vec::new();
        loop {
            let calm = |waiting: &mut Waiting| !waiting.ended && waiting.events.len() <= WAITING;
            let waited = queue.end.wait_timeout_while(queue.waiting(), LOOKS_EVERY, calm);
            let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
            std::mem::swap(&mut events, &mut waiting.events);
            let ended = waiting.ended;
            drop(waiting);
            queue.room.notify_all();
            for event in events.drain(..) {
                // When nobody reads any more the run goes on: it is not for the reader that it runs.
                shown = shown.and_then(|()| progress.event(&event));
            }
            if ended {
                return shown;
            }
        }
    }
}
