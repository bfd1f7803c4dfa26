//! Write a plugin for pype: a cdylib of sources, mods, sinks and solos.
//!
//! # A first mod
//!
//! ```
//! use pype_plugin::prelude::*;
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Config {
//!     /// How long to wait, in milliseconds.
//!     wait_ms: u64,
//! }
//!
//! /// Passes its input on, a little later.
//! struct Wait(Config);
//!
//! impl Mod for Wait {
//!     const NAME: &str = "wait_mod";
//!     const DESCRIPTION: &str = "Passes its input on, a little later";
//!     type Config = Config;
//!
//!     async fn open(config: Config, _ctx: &Context) -> Result<Self> {
//!         Ok(Self(config)) // 2
//!     }
//!
//!     async fn run(&mut self, mut inputs: Inputs, _ctx: &Context) -> Result<Outputs> {
//!         tokio::time::sleep(std::time::Duration::from_millis(self.0.wait_ms)).await; // 3
//!         Ok(Outputs::one("output", inputs.take("input")?))
//!     }
//! }
//!
//! export_plugin! { mods: [Wait] } // 1
//! # fn main() {}
//! ```
//!
//! # The life of a module
//!
//! 1. The host checks the library and asks what is in it: `pype register-module libwait.so`.
//! 2. For each node of a flow that names the module: `open`, with that node's configs.
//! 3. `run`, with the frames at its input ports; a sink's `write` and then, once the whole sub flow has done so
//!    without an error, its `commit`.
//! 4. `close`, whatever happened: success, failure, or a cancelled run.
//!
//! `async` just works: each library has a tokio runtime of its own, and everything of the author's runs inside it.
//! Work that blocks goes to [`Context::run_blocking`]. A panic becomes an error of that node. Records of `tracing` and
//! `log` appear in the host's log with the module and the node.
//!
//! Before a run is taken up again, the host asks which resources a node's configs stand for ([`Source::inputs`],
//! [`Sink::outputs`]), and does what is finished and unchanged no second time. No module is open then.
//!
//! # Bulk data
//!
//! A [`Frame`] is a schema and a stream of Arrow batches. The features `polars` and `arrow` turn it into a `LazyFrame`
//! or `RecordBatch`es; without them, there are [`ArrowSchema`] and [`ArrowArray`],
//! the structures of the C data interface. Plugins built against other versions of either
//! exchange frames all the same: only the C data interface crosses.

// The macros and generated vtables of abi_stable use names that only this lint sees.
#![allow(non_local_definitions)]

#[doc(hidden)]
pub mod abi;
mod context;
pub mod descriptor;
mod error;
mod frame;
mod glue;
pub mod host;
mod logging;
mod module;
mod pipeline;
mod resource;
mod runtime;
pub mod stream;
pub mod testing;

pub use abi::{ArrowArray, ArrowSchema, FfiArrowArray, FfiArrowSchema};
pub use context::{Artifact, CancelToken, Context, Iteration, Progress};
pub use descriptor::RetryPolicy;
pub use error::{Error, ErrorFacts, ErrorKind, Result};
pub use frame::*;
pub use module::{Commit, Inputs, Mod, Outputs, Sink, Solo, Source};
pub use pipeline::{
    Bytes, ContextStore, Dispatch, Execute, Field, Next, PipelineContext, Rerun, RunFacts, lock, queue,
};
pub use resource::{Resource, Resources};
pub use stream::StreamSource;

#[doc(hidden)]
pub mod __private {
    pub use crate::abi::{LibHeader, Preamble};
    pub use crate::glue::export::{Library, ModuleExport, header};
}

/// What an author needs, in one line.
pub mod prelude {
    pub use schemars::JsonSchema;
    pub use serde::{Deserialize, Serialize};
    pub use serde_json::Value;

    pub use crate::{
        Bytes, Commit, Context, Dispatch, Error, ErrorKind, Execute, Frame, Inputs, Mod, Next, Outputs,
        PipelineContext, Resource, Result, Sink, Solo, Source, StreamSource, export_plugin,
    };
}

/// Exports a library's modules. Once in a crate of type `cdylib`.
///
/// ```ignore
/// export_plugin! { sources: [CsvSource], mods: [FilterMod, SortMod], sinks: [CsvSink], solos: [] }
/// ```
#[macro_export]
macro_rules! export_plugin {
    ($($kind:ident: [$($module:ty),* $(,)?]),* $(,)?) => {
        const _: () = {
            struct ThisLibrary;

            impl $crate::__private::Library for ThisLibrary {
                const NAME: &'static str = env!("CARGO_PKG_NAME");
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");

                fn modules() -> ::std::vec::Vec<$crate::__private::ModuleExport> {
                    ::std::vec![$($($crate::__export_as!($kind, $module)),*),*]
                }
            }

            static HEADER: $crate::__private::LibHeader = $crate::__private::header::<ThisLibrary>();

            #[unsafe(no_mangle)]
            pub static PYPE_PLUGIN: $crate::__private::Preamble = $crate::__private::Preamble::new(&HEADER);
        };
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_as {
    (sources, $module:ty) => {
        $crate::__private::ModuleExport::source::<$module>()
    };
    (mods, $module:ty) => {
        $crate::__private::ModuleExport::module::<$module>()
    };
    (sinks, $module:ty) => {
        $crate::__private::ModuleExport::sink::<$module>()
    };
    (solos, $module:ty) => {
        $crate::__private::ModuleExport::solo::<$module>()
    };
    (executes, $module:ty) => {
        $crate::__private::ModuleExport::execute::<$module>()
    };
    (streams, $module:ty) => {
        $crate::__private::ModuleExport::stream::<$module>()
    };
    (dispatches, $module:ty) => {
        $crate::__private::ModuleExport::dispatch::<$module>()
    };
}
