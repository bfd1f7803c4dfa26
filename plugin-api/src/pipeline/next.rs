//! The rest of a chain.

use std::borrow::Borrow;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use serde_json::Value;

use super::{PipelineContext, Returned, returned};
use crate::abi::{RawNext, RawReturned, Task};
use crate::context::{Call, answer, done};
use crate::error::Result;

/// The stages after this one. Running them ends it: a chain goes on once. A stage that does not run them ends the chain with
/// what it returns itself.
pub struct Next {
    rest: Rerun,
}

/// The stages after this one, to be run as often as a stage likes: to try again, say.
pub struct Rerun {
    raw: RawNext,
}

impl Next {
    #[inline]
    pub(crate) fn from_raw(raw: RawNext) -> Self {
        Self { rest: Rerun { raw } }
    }

    #[inline]
    pub(crate) fn into_raw(self) -> RawNext {
        self.rest.raw
    }

    /// Runs the rest, and gives its result.
    ///
    /// # Errors
    /// A stage of it failed.
    pub fn run(self, ctx: PipelineContext) -> impl Future<Output = Result<Value>> + Send + use<> {
        Running { rest: self.rest, ctx: Some(ctx), call: None }
    }

    /// For stages that run the rest more than once. Each run takes a context of its own.
    pub fn repeatable(self) -> Rerun {
        self.rest
    }
}

impl Rerun {
    /// Runs the rest, and gives its result.
    ///
    /// # Errors
    /// A stage of it failed.
    pub fn run(&self, ctx: PipelineContext) -> impl Future<Output = Result<Value>> + Send {
        Running { rest: self, ctx: Some(ctx), call: None }
    }

    #[inline]
    fn begin(&self, ctx: PipelineContext) -> Task<RawReturned> {
        let RawNext { handle, vtable } = &self.raw;
        match vtable.run_unread() {
            Some(run) => run(handle, ctx.into_raw()),
            None => returned(vtable.run()(handle, ctx.into_raw())),
        }
    }
}

/// A run of the rest. It is written out, since what is over at once should not be moved from future to future.
struct Running<R> {
    rest: R,
    /// Until it has begun.
    ctx: Option<PipelineContext>,
    /// What it is at, if that was not over at once.
    call: Option<Call<RawReturned>>,
}

impl<R> Unpin for Running<R> {}

impl<R: Borrow<Rerun>> Future for Running<R> {
    type Output = Result<Value>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Value>> {
        let Self { rest, ctx, call } = self.get_mut();
        let call = match ctx.take().map(|ctx| (*rest).borrow().begin(ctx)) {
            Some(Task::Done(result)) => return Poll::Ready(answer(result).and_then(read)),
            Some(later) => call.insert(done(later)),
            None => call.as_mut().expect("what was over at once is not polled again"),
        };
        Pin::new(call).poll(cx).map(|result| result.and_then(read))
    }
}

fn read(raw: RawReturned) -> Result<Value> {
    Returned::from_raw(raw).read()
}
