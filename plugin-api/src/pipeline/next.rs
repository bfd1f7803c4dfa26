//! The rest of a chain.

use serde_json::Value;

use super::{PipelineContext, Returned, returned};
use crate::abi::{RawNext, RawReturned};
use crate::context::{Call, done};
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
    pub async fn run(self, ctx: PipelineContext) -> Result<Value> {
        Returned::from_raw(self.rest.begin(ctx).await?).read()
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
    pub async fn run(&self, ctx: PipelineContext) -> Result<Value> {
        Returned::from_raw(self.begin(ctx).await?).read()
    }

    fn begin(&self, ctx: PipelineContext) -> Call<RawReturned> {
        let RawNext { handle, vtable } = &self.raw;
        done(match vtable.run_unread() {
            Some(run) => run(handle, ctx.into_raw()),
            None => returned(vtable.run()(handle, ctx.into_raw())),
        })
    }
}
