//! One node's module behind the vtable: opened, run, closed, each call alone with its state.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::slot::Slot;
use super::{blocking, contain, node_task, stage, task};
use crate::abi::{
    Handle, Instance, InstanceVtable, InstanceVtableRef, Json, OpenRequest, PortFrame, RVec, Task, WithMetadata,
    staticref,
};
use crate::context::Context;
use crate::descriptor::{Kind, ModuleDescriptor};
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::module::{Commit, Inputs, Mod, Outputs, Sink, Solo, Source};
use crate::resource::Resources;
use crate::runtime::runtime;

/// The four kinds seen as one: what the vtable needs.
pub(crate) trait AnyModule: Sized + Send + 'static {
    type Config: DeserializeOwned + JsonSchema + Send;

    fn descriptor(library_version: &str) -> ModuleDescriptor;
    /// Whether the author has a say in [`AnyModule::resources`].
    fn tells_resources() -> bool;
    fn resources(config: &Self::Config) -> impl Future<Output = Result<Resources>>;
    fn open(config: Self::Config, ctx: &Context) -> impl Future<Output = Result<Self>> + Send;
    fn run(&mut self, inputs: Inputs, ctx: &Context) -> impl Future<Output = Result<Outputs>> + Send;
    fn commit(&mut self, _ctx: &Context) -> impl Future<Output = Result<Vec<Commit>>> + Send {
        async { Ok(Vec::new()) }
    }
    fn close(&mut self, ctx: &Context) -> impl Future<Output = Result<()>> + Send;
}

pub(crate) struct AsSource<M>(M);
pub(crate) struct AsMod<M>(M);
pub(crate) struct AsSink<M>(M);
pub(crate) struct AsSolo<M>(M);

macro_rules! any_module {
    ($wrapper:ident, $kind:ident, inputs: $inputs:expr, outputs: $outputs:expr, $($run:tt)*) => {
        impl<M: $kind> AnyModule for $wrapper<M> {
            type Config = M::Config;

            fn descriptor(library_version: &str) -> ModuleDescriptor {
                ModuleDescriptor {
                    name: M::NAME.to_owned(),
                    kind: Kind::$kind,
                    version: M::VERSION.unwrap_or(library_version).to_owned(),
                    description: M::DESCRIPTION.to_owned(),
                    category: M::CATEGORY.to_owned(),
                    input_ports: owned($inputs),
                    output_ports: owned($outputs),
                    globals: owned(M::GLOBALS),
                    lists: owned(M::LISTS),
                    retry: None,
                    exclusive: false,
                    acknowledge: None,
                    packages: owned(M::PACKAGES),
                    config_schema: config_schema::<M::Config>(),
                }
            }

            fn tells_resources() -> bool {
                size_of_answer(M::inputs) + size_of_answer(M::outputs) > 0
            }

            async fn resources(config: &M::Config) -> Result<Resources> {
                Ok(Resources { inputs: M::inputs(config).await?, outputs: M::outputs(config).await? })
            }

            async fn open(config: M::Config, ctx: &Context) -> Result<Self> {
                M::open(config, ctx).await.map($wrapper)
            }

            async fn close(&mut self, ctx: &Context) -> Result<()> {
                self.0.close(ctx).await
            }

            $($run)*
        }
    };
}

any_module! { AsSource, Source, inputs: &[], outputs: M::OUTPUTS,
    async fn run(&mut self, _inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        self.0.run(ctx).await
    }
}
any_module! { AsMod, Mod, inputs: M::INPUTS, outputs: M::OUTPUTS,
    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        self.0.run(inputs, ctx).await
    }
}
any_module! { AsSink, Sink, inputs: M::INPUTS, outputs: &[],
    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        self.0.write(inputs, ctx).await.map(|()| Outputs::new())
    }

    async fn commit(&mut self, ctx: &Context) -> Result<Vec<Commit>> {
        self.0.commit(ctx).await
    }
}
any_module! { AsSolo, Solo, inputs: &[], outputs: &[],
    async fn run(&mut self, _inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        self.0.run(ctx).await.map(|()| Outputs::new())
    }
}

/// Opens a module for the node that `request` tells of.
pub(crate) fn open<M: AnyModule>(request: OpenRequest) -> Task<Instance> {
    let OpenRequest { config, facts, services, .. } = request;
    let facts = match serde_json::from_slice(&facts) {
        Ok(facts) => facts,
        Err(cause) => return task(async { Err(Error::from(cause)) }),
    };
    let context = Context::new(facts, services);
    let node = context.clone();
    let opening = async move {
        let config = read_config::<M::Config>(&config)?;
        let module = M::open(config, &context).await?;
        let opened = Shared(Arc::new(Opened { module: Slot::new(module), context }));
        Ok(Instance { handle: Handle::new(opened), vtable: Vtable::<M>::VTABLE })
    };
    // SAFETY: the future owns the other clone until it has made the instance.
    unsafe { node_task(&node, &(), || Ok(opening)) }
}

/// Asks a module what it reads and writes with this config.
pub(crate) fn resources<M: AnyModule>(config: Json) -> Task<Json> {
    // The config is made, used and dropped inside, for all three are the author's.
    let ask = move || {
        let config = read_config::<M::Config>(&config)?;
        runtime().block_on(M::resources(&config))
    };
    task(async {
        // Asking costs a change of threads, and hosts ask for every node and every item.
        let told = if M::tells_resources() { blocking(None, ask).await? } else { Resources::default() };
        Ok(serde_json::to_vec(&told)?.into())
    })
}

/// How large the future is that a function would return; the function is not called.
fn size_of_answer<'a, C: 'a, F>(_: impl FnOnce(&'a C) -> F) -> usize {
    size_of::<F>()
}

/// An opened module. `close` empties the slot.
struct Opened<M> {
    module: Slot<M>,
    context: Context,
}

/// What the handle and the futures made from it hold.
struct Shared<M>(Arc<Opened<M>>);

impl<M> Clone for Shared<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: AnyModule> Shared<M> {
    /// A call on the instance behind `handle`.
    #[inline]
    fn task<T, F>(handle: &Handle, call: impl FnOnce(&'static Opened<M>) -> F) -> Task<T>
    where
        T: 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        // SAFETY: only `open` pairs a handle with the vtable that calls this.
        let shared = unsafe { handle.get::<Self>() };
        // SAFETY: nobody sees it but the call, of which `node_task` says how long it is there.
        let opened = unsafe { &*Arc::as_ptr(&shared.0) };
        // SAFETY: the handle, which is there as long as this function, owns the instance and with it the context; so does
        // `shared`.
        unsafe { node_task(&opened.context, shared, || Ok(call(opened))) }
    }
}

impl<M: AnyModule> Opened<M> {
    async fn run(&'static self, inputs: RVec<PortFrame>) -> Result<RVec<PortFrame>> {
        let inputs = inputs.into_iter().map(|PortFrame { port, frame }| (port.into(), Frame::from_raw(frame)));
        let mut module = self.module.lease()?;
        let outputs = module.run(inputs.collect(), &self.context).await?;
        Ok(outputs.into_iter().map(|(port, frame)| PortFrame { port: port.into(), frame: frame.into_raw() }).collect())
    }

    async fn commit(&'static self) -> Result<Json> {
        let mut module = self.module.lease()?;
        let commits = module.commit(&self.context).await?;
        Ok(serde_json::to_vec(&commits)?.into())
    }

    async fn close(&'static self) -> Result<()> {
        if self.module.is_gone() {
            return Ok(());
        }
        self.context.begin_close();
        // The module stays in its slot while `close` runs: a panic there must not drop it while it unwinds.
        let mut module = self.module.lease()?;
        let closed = module.close(&self.context).await;
        drop(module);
        let module = self.module.take();
        let dropped = contain(Some(&self.context), || drop(module));
        closed.and(dropped)
    }
}

struct Vtable<M>(PhantomData<M>);

impl<M: AnyModule> Vtable<M> {
    staticref! {
        const METHODS: WithMetadata<InstanceVtable> = WithMetadata::new(InstanceVtable {
            run: Self::run,
            commit: Self::commit,
            close: Self::close,
            execute: stage::no_execute,
            queue: stage::no_queue,
            execute_unread: stage::no_execute_unread,
            poll: stage::no_poll,
            source: stage::no_source,
            #[cfg(feature = "__next-minor")]
            generation: Self::generation,
        });
    }
    const VTABLE: InstanceVtableRef = InstanceVtableRef(Self::METHODS.as_prefix());

    extern "C" fn run(handle: &Handle, inputs: RVec<PortFrame>) -> Task<RVec<PortFrame>> {
        Shared::<M>::task(handle, |opened| opened.run(inputs))
    }

    extern "C" fn commit(handle: &Handle) -> Task<Json> {
        Shared::<M>::task(handle, Opened::commit)
    }

    extern "C" fn close(handle: &Handle) -> Task<()> {
        Shared::<M>::task(handle, Opened::close)
    }

    #[cfg(feature = "__next-minor")]
    extern "C" fn generation(_: &Handle) -> u32 {
        crate::abi::API_MINOR
    }
}

pub(super) fn read_config<C: DeserializeOwned>(json: &[u8]) -> Result<C> {
    serde_json::from_slice(json)
        .map_err(|cause| Error::new(ErrorKind::Config, "bad-config", format!("the configs do not fit: {cause}")))
}

pub(super) fn config_schema<C: JsonSchema>() -> Value {
    let settings = schemars::generate::SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<C>().to_value()
}

pub(super) fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::resource::Resource;
    use crate::testing;

    #[derive(Deserialize, JsonSchema)]
    struct Config {
        inputs: Vec<String>,
    }

    /// Never opens.
    struct Reports;

    impl Solo for Reports {
        const NAME: &'static str = "reports";
        type Config = Config;

        async fn inputs(config: &Config) -> Result<Option<Vec<Resource>>> {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            assert!(!config.inputs.is_empty(), "told to panic");
            config.inputs.iter().map(Resource::file).collect::<Result<_>>().map(Some)
        }

        async fn open(_: Config, _: &Context) -> Result<Self> {
            unreachable!("nobody runs it")
        }

        async fn run(&mut self, _: &Context) -> Result<()> {
            Ok(())
        }
    }

    fn resources(config: Value) -> Result<crate::Resources> {
        testing::solo::<Reports>(config).resources()
    }

    #[test]
    fn what_a_module_reads_is_told_from_its_config_alone() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let told = resources(json!({ "inputs": [manifest] })).expect("there");
        assert_eq!(told.inputs, Some(vec![Resource::file(manifest).expect("there")]));
        assert_eq!(told.outputs, None);
    }

    #[test]
    fn only_those_that_tell_are_asked() {
        assert!(AsSolo::<Reports>::tells_resources());
        assert!(!AsSolo::<Announces>::tells_resources());
    }

    #[test]
    fn what_cannot_be_told_is_an_error_of_the_module() {
        let code = |config| resources(config).expect_err("it fails").code.clone();
        assert_eq!(code(json!({})), "bad-config");
        assert_eq!(code(json!({ "inputs": ["/nowhere/x"] })), "not-found");
        let panic = resources(json!({ "inputs": [] })).expect_err("it panics");
        assert_eq!(panic.kind, ErrorKind::Panicked);
        assert!(panic.message.contains("told to panic"), "{panic}");
    }

    #[derive(Deserialize, JsonSchema)]
    struct Lists {
        names: Vec<String>,
        item: String,
    }

    /// Announces a list of one item under each of the names.
    struct Announces(Lists);

    impl Solo for Announces {
        const NAME: &'static str = "announces";
        const LISTS: &'static [&'static str] = &["words"];
        type Config = Lists;

        async fn open(config: Lists, _: &Context) -> Result<Self> {
            Ok(Self(config))
        }

        async fn run(&mut self, ctx: &Context) -> Result<()> {
            self.0.names.iter().try_for_each(|name| ctx.set_list(name, [&self.0.item]))
        }
    }

    fn announced(names: &[&str], item: &str) -> testing::Done {
        testing::solo::<Announces>(json!({ "names": names, "item": item })).run()
    }

    #[test]
    fn a_declared_list_is_announced_once() {
        assert_eq!(AsSolo::<Announces>::descriptor("1.0.0").lists, ["words"]);
        let done = announced(&["words"], "one");
        assert_eq!((done.result, &done.lists["words"]), (Ok(()), &vec![json!("one")]));
        for (names, code) in [(["words", "words"], "list-set-twice"), (["words", "other"], "undeclared-list")] {
            let done = announced(&names, "one");
            assert_eq!(done.result.expect_err("refused").code, code);
            assert_eq!(done.lists.len(), 1);
        }
    }

    #[test]
    fn a_list_has_a_limit() {
        let brackets_and_quotes = 4;
        let fits = "x".repeat(crate::host::LIST_BYTES - brackets_and_quotes);
        assert_eq!(announced(&["words"], &fits).result, Ok(()));
        let done = announced(&["words"], &format!("{fits}x"));
        assert_eq!(done.result.expect_err("too large").code, "list-too-large");
    }
}
