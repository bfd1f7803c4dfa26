//! The traits that authors implement.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::frame::Frame;
use crate::resource::Resource;

/// What a module answers that does not say. It has no size, by which [`crate::glue`] knows that there is nothing to ask.
struct Untold;

impl Future for Untold {
    type Output = Result<Option<Vec<Resource>>>;

    fn poll(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(None))
    }
}

macro_rules! common_items {
    () => {
        /// The module's name in flows: letters, digits and `_`.
        const NAME: &'static str;
        /// What it does, in one line.
        const DESCRIPTION: &'static str = "";
        /// For grouping in lists.
        const CATEGORY: &'static str = "Other";
        /// Its own version, if it is not the library's.
        const VERSION: Option<&'static str> = None;
        /// Globals it may set.
        const GLOBALS: &'static [&'static str] = &[];
        /// Lists it may announce ([`Context::set_list`]): an iteration goes through one item by item.
        const LISTS: &'static [&'static str] = &[];
        /// Notable packages it is built on.
        const PACKAGES: &'static [&'static str] = &[];
        /// Its configs. A field without a serde default is required; doc comments become descriptions, and
        /// `#[schemars(extend("format" = "path"))]` has the host make a path absolute against the flow's folder.
        type Config: DeserializeOwned + JsonSchema + Send;

        /// What a module with these configs reads outside the flow, as it is at the moment; `None` if that cannot be
        /// told. Asked without opening the module, on a thread where it may block.
        ///
        /// # Errors
        /// Something of it is not there or cannot be looked at.
        fn inputs(config: &Self::Config) -> impl Future<Output = Result<Option<Vec<Resource>>>> + Send {
            let _ = config;
            Untold
        }

        /// What a module with these configs writes outside the flow, as far as it is there at the moment; `None` if
        /// that cannot be told. Asked without opening the module, on a thread where it may block.
        ///
        /// # Errors
        /// Something of it cannot be looked at.
        fn outputs(config: &Self::Config) -> impl Future<Output = Result<Option<Vec<Resource>>>> + Send {
            let _ = config;
            Untold
        }

        /// Called once a node, before anything else.
        ///
        /// # Errors
        /// The configs ask for something impossible, or what the module needs is not there.
        fn open(config: Self::Config, ctx: &Context) -> impl Future<Output = Result<Self>> + Send;

        /// Called last: after success, failure and cancellation, also while `run` was interrupted.
        ///
        /// # Errors
        /// Something could not be released.
        fn close(&mut self, ctx: &Context) -> impl Future<Output = Result<()>> + Send {
            let _ = ctx;
            async { Ok(()) }
        }
    };
}

/// Brings data in.
pub trait Source: Sized + Send + 'static {
    common_items!();
    /// Ports that data leaves by.
    const OUTPUTS: &'static [&'static str] = &["data"];

    /// Gives a frame for each output port. A lazy frame is best: its rows are made when somebody reads them.
    ///
    /// # Errors
    /// The data is not there or not readable.
    fn run(&mut self, ctx: &Context) -> impl Future<Output = Result<Outputs>> + Send;
}

/// Turns data into other data.
pub trait Mod: Sized + Send + 'static {
    common_items!();
    /// Ports that data enters by. A name that ends in `*` takes any number of edges.
    const INPUTS: &'static [&'static str] = &["input"];
    /// Ports that data leaves by.
    const OUTPUTS: &'static [&'static str] = &["output"];

    /// Makes a frame for each output port out of those at the input ports.
    ///
    /// # Errors
    /// The data is not what the module works on.
    fn run(&mut self, inputs: Inputs, ctx: &Context) -> impl Future<Output = Result<Outputs>> + Send;
}

/// Takes data out. Nothing that `write` did is visible before `commit`.
pub trait Sink: Sized + Send + 'static {
    common_items!();
    /// Ports that data enters by.
    const INPUTS: &'static [&'static str] = &["input"];

    /// Reads its frames to their end and keeps the rows where nobody else sees them yet.
    ///
    /// # Errors
    /// A frame fails, or the rows cannot be kept.
    fn write(&mut self, inputs: Inputs, ctx: &Context) -> impl Future<Output = Result<()>> + Send;

    /// Makes what was written since the last commit durable and visible, all at once.
    ///
    /// # Errors
    /// It could not; the target is then what it was.
    fn commit(&mut self, ctx: &Context) -> impl Future<Output = Result<Vec<Commit>>> + Send;
}

/// Works without data: a call, a check, a message.
pub trait Solo: Sized + Send + 'static {
    common_items!();

    /// Does its work.
    ///
    /// # Errors
    /// It could not.
    fn run(&mut self, ctx: &Context) -> impl Future<Output = Result<()>> + Send;
}

/// One thing that a sink made visible.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Rows, if they were counted.
    pub rows: Option<u64>,
    /// Bytes, if they were counted.
    pub bytes: Option<u64>,
    /// Where it is.
    pub uri: Option<String>,
}

/// The frames at a node's input ports, in the order of the flow's edges.
#[derive(Default)]
pub struct Inputs {
    frames: Vec<(String, Frame)>,
}

impl Inputs {
    /// The frame at `port`.
    ///
    /// # Errors
    /// Nothing is connected there.
    pub fn take(&mut self, port: &str) -> Result<Frame> {
        self.try_take(port).ok_or_else(|| {
            Error::new(ErrorKind::Config, "unconnected-port", format!("nothing is connected to the port `{port}`"))
        })
    }

    /// The frame at `port`, if something is connected there.
    pub fn try_take(&mut self, port: &str) -> Option<Frame> {
        let at = self.frames.iter().position(|(name, _)| name == port)?;
        Some(self.frames.remove(at).1)
    }

    /// How many are left.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl IntoIterator for Inputs {
    type Item = (String, Frame);
    type IntoIter = std::vec::IntoIter<(String, Frame)>;

    fn into_iter(self) -> Self::IntoIter {
        self.frames.into_iter()
    }
}

impl FromIterator<(String, Frame)> for Inputs {
    fn from_iter<I: IntoIterator<Item = (String, Frame)>>(frames: I) -> Self {
        Self { frames: frames.into_iter().collect() }
    }
}

/// The frames at a node's output ports.
#[derive(Default)]
pub struct Outputs {
    frames: Vec<(String, Frame)>,
}

impl Outputs {
    /// No frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frame at one port.
    pub fn one(port: impl Into<String>, frame: impl Into<Frame>) -> Self {
        Self::new().with(port, frame)
    }

    /// A frame more.
    #[must_use]
    pub fn with(mut self, port: impl Into<String>, frame: impl Into<Frame>) -> Self {
        self.frames.push((port.into(), frame.into()));
        self
    }
}

impl IntoIterator for Outputs {
    type Item = (String, Frame);
    type IntoIter = std::vec::IntoIter<(String, Frame)>;

    fn into_iter(self) -> Self::IntoIter {
        self.frames.into_iter()
    }
}
