//! A library's root: made once, out of the list that `export_plugin!` gives.

use std::future;

use super::instance::{self, AnyModule, AsMod, AsSink, AsSolo, AsSource};
use super::stage::{self, AnyStage, AsDispatch, AsExecute, AsStream};
use super::{contain, crossing, guard, task};
use crate::abi::{
    __call_root_module_loader, API_MAJOR, API_MINOR, CheckTypeLayout, ErrorBytes, Instance, Json, LibHeader,
    OpenRequest, PrefixTypeTrait, RResult, ResourcesRequest, Root, RootModuleResult, RootRef, Services, Task,
};
use crate::context::Context;
use crate::descriptor::{LibraryDescriptor, ModuleDescriptor};
use crate::error::{Error, ErrorKind, Result};
use crate::host::{LibraryFacts, NodeFacts};
use crate::module::{Mod, Sink, Solo, Source};
use crate::pipeline::{Dispatch, Execute};
use crate::stream::StreamSource;
use crate::{logging, runtime};

/// What `export_plugin!` says of a library.
#[doc(hidden)]
pub trait Library: 'static {
    const NAME: &'static str;
    const VERSION: &'static str;
    fn modules() -> Vec<ModuleExport>;
}

/// A module as the root hands it out.
#[doc(hidden)]
pub struct ModuleExport {
    name: &'static str,
    descriptor: fn(&str) -> ModuleDescriptor,
    open: fn(OpenRequest) -> Task<Instance>,
    resources: fn(Json) -> Task<Json>,
}

impl ModuleExport {
    pub fn source<M: Source>() -> Self {
        Self::new::<AsSource<M>>(M::NAME)
    }

    pub fn module<M: Mod>() -> Self {
        Self::new::<AsMod<M>>(M::NAME)
    }

    pub fn sink<M: Sink>() -> Self {
        Self::new::<AsSink<M>>(M::NAME)
    }

    pub fn solo<M: Solo>() -> Self {
        Self::new::<AsSolo<M>>(M::NAME)
    }

    pub fn execute<M: Execute>() -> Self {
        Self::stage::<AsExecute<M>>(M::NAME)
    }

    pub fn dispatch<M: Dispatch>() -> Self {
        Self::stage::<AsDispatch<M>>(M::NAME)
    }

    pub fn stream<M: StreamSource>() -> Self {
        Self::stage::<AsStream<M>>(M::NAME)
    }

    fn stage<M: AnyStage>(name: &'static str) -> Self {
        Self { name, descriptor: M::descriptor, open: stage::open::<M>, resources: stage::no_resources }
    }

    fn new<M: AnyModule>(name: &'static str) -> Self {
        Self { name, descriptor: M::descriptor, open: instance::open::<M>, resources: instance::resources::<M> }
    }
}

/// The header that the library's preamble points to.
#[doc(hidden)]
pub const fn header<L: Library>() -> LibHeader {
    // SAFETY: `constructor` returns a `RootRef`, the type named here.
    unsafe { LibHeader::from_constructor::<RootRef>(constructor::<L>, CheckTypeLayout::Yes) }
}

extern "C" fn constructor<L: Library>() -> RootModuleResult {
    __call_root_module_loader(root::<L>)
}

/// The root of a library, the same as through the dynamic loader.
pub(crate) fn root<L: Library>() -> RootRef {
    Root {
        describe: describe::<L>,
        init: init::<L>,
        open: open::<L>,
        resources: resources::<L>,
        #[cfg(feature = "__next-minor")]
        greet: greet::<L>,
        #[cfg(feature = "__next-major")]
        version_two: 2,
    }
    .leak_into_prefix()
}

extern "C" fn describe<L: Library>() -> RResult<Json, ErrorBytes> {
    let described = contain(None, || {
        let modules = L::modules().iter().map(|module| (module.descriptor)(L::VERSION)).collect();
        let api_version = format!("{API_MAJOR}.{API_MINOR}");
        LibraryDescriptor { name: L::NAME.to_owned(), version: L::VERSION.to_owned(), api_version, modules }
    });
    crossing(described.and_then(|descriptor| Ok(serde_json::to_vec(&descriptor)?.into())))
}

extern "C" fn init<L: Library>(services: Services, facts: Json) -> RResult<(), ErrorBytes> {
    let facts: LibraryFacts = match serde_json::from_slice(&facts) {
        Ok(facts) => facts,
        Err(cause) => return crossing(Err(cause.into())),
    };
    runtime::set_blocking_threads(facts.threads);
    crossing(contain(None, || {
        guard::install_panic_hook(|info| {
            let text = guard::panic_text(info);
            tracing::error!(target: "pype_plugin", "a thread of the plugin panicked: {text}");
        });
        let node = NodeFacts { node_id: L::NAME.to_owned(), ..NodeFacts::default() };
        logging::install(Context::new(node, services));
    }))
}

extern "C" fn open<L: Library>(request: OpenRequest) -> Task<Instance> {
    match module::<L>(&request.module) {
        Ok(module) => (module.open)(request),
        Err(unknown) => task(future::ready(Err(unknown))),
    }
}

extern "C" fn resources<L: Library>(request: ResourcesRequest) -> Task<Json> {
    match module::<L>(&request.module) {
        Ok(module) => (module.resources)(request.config),
        Err(unknown) => task(future::ready(Err(unknown))),
    }
}

fn module<L: Library>(name: &str) -> Result<ModuleExport> {
    L::modules().into_iter().find(|module| module.name == name).ok_or_else(|| unknown::<L>(name))
}

#[cfg(feature = "__next-minor")]
extern "C" fn greet<L: Library>() -> crate::abi::RString {
    L::NAME.into()
}

fn unknown<L: Library>(module: &str) -> Error {
    let message = format!("the library `{}` {} has no module `{module}`", L::NAME, L::VERSION);
    Error::new(ErrorKind::NotFound, "unknown-module", message).hint("register the library again")
}
