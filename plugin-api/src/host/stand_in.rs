//! Instances that no library has made: the host stands in for a module that runs elsewhere.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use super::Instance;
use crate::abi::{Handle, InstanceVtable, InstanceVtableRef, Json, PortFrame, RVec, Task, WithMetadata, staticref};
use crate::error::Result;
use crate::frame::Frame;
use crate::glue::stage::{no_execute, no_execute_unread, no_poll, no_queue, no_source};
use crate::glue::task;
use crate::module::Commit;

/// What does the work of a flow's module that is open elsewhere. Nobody calls it but in the order of a module's life: run,
/// perhaps commit, close.
pub trait StandIn: Send + Sync + 'static {
    /// Runs it, with the frames at its inputs; the frames at its outputs.
    ///
    /// # Errors
    /// What the module says, or that it cannot be reached.
    fn run(&self, inputs: Vec<(String, Frame)>) -> impl Future<Output = Result<Vec<(String, Frame)>>> + Send;

    /// Commits.
    ///
    /// # Errors
    /// What the module says, or that it cannot be reached.
    fn commit(&self) -> impl Future<Output = Result<Vec<Commit>>> + Send;

    /// Ends it.
    ///
    /// # Errors
    /// What the module says, or that it cannot be reached.
    fn close(&self) -> impl Future<Output = Result<()>> + Send;
}

impl Instance {
    /// An instance whose work `module` does.
    pub fn standing_in<M: StandIn>(module: M) -> Self {
        Self { handle: Handle::new(Arc::new(module)), vtable: Vtable::<M>::VTABLE }
    }
}

struct Vtable<M>(PhantomData<M>);

impl<M: StandIn> Vtable<M> {
    staticref! {
        const METHODS: WithMetadata<InstanceVtable> = WithMetadata::new(InstanceVtable {
            run: Self::run,
            commit: Self::commit,
            close: Self::close,
            execute: no_execute,
            queue: no_queue,
            execute_unread: no_execute_unread,
            poll: no_poll,
            source: no_source,
            #[cfg(feature = "__next-minor")]
            generation: Self::generation,
        });
    }
    const VTABLE: InstanceVtableRef = InstanceVtableRef(Self::METHODS.as_prefix());

    fn of(handle: &Handle) -> Arc<M> {
        // SAFETY: only `Instance::standing_in` pairs a handle with the vtable that calls this.
        unsafe { handle.get::<Arc<M>>() }.clone()
    }

    extern "C" fn run(handle: &Handle, inputs: RVec<PortFrame>) -> Task<RVec<PortFrame>> {
        let module = Self::of(handle);
        let inputs =
            inputs.into_iter().map(|PortFrame { port, frame }| (port.into(), Frame::from_raw(frame))).collect();
        task(async move {
            let outputs = module.run(inputs).await?.into_iter();
            Ok(outputs.map(|(port, frame)| PortFrame { port: port.into(), frame: frame.into_raw() }).collect())
        })
    }

    extern "C" fn commit(handle: &Handle) -> Task<Json> {
        let module = Self::of(handle);
        task(async move { Ok(serde_json::to_vec(&module.commit().await?)?.into()) })
    }

    extern "C" fn close(handle: &Handle) -> Task<()> {
        let module = Self::of(handle);
        task(async move { module.close().await })
    }

    #[cfg(feature = "__next-minor")]
    extern "C" fn generation(_: &Handle) -> u32 {
        crate::abi::API_MINOR
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::frame::Producer;
    use crate::testing::block_on;
    use crate::{ArrowArray, ArrowSchema};

    /// Nobody reads it.
    struct Unread;

    impl Producer for Unread {
        async fn schema(&mut self) -> Result<ArrowSchema> {
            Err(Error::cancelled())
        }

        async fn next(&mut self) -> Result<Option<ArrowArray>> {
            Ok(None)
        }
    }

    /// Gives its inputs back, in their reverse order.
    #[derive(Default)]
    struct Turns(AtomicBool);

    impl StandIn for Turns {
        async fn run(&self, mut inputs: Vec<(String, Frame)>) -> Result<Vec<(String, Frame)>> {
            tokio::task::yield_now().await;
            inputs.reverse();
            Ok(inputs)
        }

        async fn commit(&self) -> Result<Vec<Commit>> {
            panic!("told to panic")
        }

        async fn close(&self) -> Result<()> {
            match self.0.swap(true, Ordering::Relaxed) {
                false => Ok(()),
                true => Err(Error::new(ErrorKind::Internal, "gone", "it was closed before")),
            }
        }
    }

    #[test]
    fn it_is_called_like_any_other_instance() {
        let instance = Instance::standing_in(Turns::default());
        let frame = || Frame::new(Unread);
        block_on(async {
            let inputs = vec![("a".to_owned(), frame()), ("b".to_owned(), frame())];
            let outputs = instance.run(inputs).await.expect("it runs");
            assert_eq!(outputs.iter().map(|(port, _)| port.as_str()).collect::<Vec<_>>(), ["b", "a"]);
            assert_eq!(instance.commit().await.expect_err("it panics").kind, ErrorKind::Panicked);
            assert_eq!(instance.close().await, Ok(()));
            assert_eq!(instance.close().await.expect_err("closed").code, "gone");
        });
    }
}
