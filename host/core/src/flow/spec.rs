//! What a flow document says, in types. Only [`crate::flow::load`] makes them.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroUsize};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::diagnostic::Span;
use crate::document::{Source, SpanMap, Spanned};
pub use crate::name::{Date, FlowName, ModuleName, NodeId, PortName, Version};
use crate::template::References;

/// A flow document, every name and number checked, nothing wired yet.
#[derive(Debug, Clone)]
pub struct Flow {
    /// The section `flow`.
    pub meta: FlowMeta,
    /// The section `settings`, defaults filled in.
    pub settings: Settings,
    /// The section `modules`; ids are unique, however they are cased.
    pub modules: Vec<Module>,
    /// The section `connections.data`.
    pub data_edges: Vec<DataEdge>,
    /// The section `connections.control`.
    pub control_edges: Vec<ControlEdge>,
    /// Whether all edges of the document are among these: those that could not be read have been reported.
    pub edges_complete: bool,
    /// The document itself.
    pub source: Source,
}

/// Which flow it is.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct FlowMeta {
    /// Its name.
    pub name: FlowName,
    /// Its version.
    pub version: Version,
    /// Who wrote it, when, what for.
    #[serde(flatten)]
    pub about: About,
}

/// What a flow says about itself that does not change how it runs.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
pub struct About {
    /// Who wrote it.
    pub authors: Vec<String>,
    /// When it was written.
    pub created: Date,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desc: Option<String>,
    /// What it can be selected by: names and plain values.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub labels: Map<String, Value>,
}

/// How to run a flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The bound of the whole run, in seconds.
    pub timeout_s: u64,
    /// How often a failed sub flow is tried again, 0 to 3.
    pub retries: u8,
    /// What a failure means for the rest.
    pub fail_strategy: FailStrategy,
    /// Whether frames stream.
    pub execution_mode: ExecutionMode,
    /// The size of the thread pools; absent: the host decides.
    pub threads: Option<NonZeroUsize>,
    /// A frame that the host holds goes to a file when it has more rows.
    #[serde(default = "spill_threshold_rows", skip_serializing_if = "is_usual_threshold")]
    pub spill_threshold_rows: u64,
    /// The same when the process has more than this share of the memory that it may have.
    #[serde(default = "max_ram_share", skip_serializing_if = "is_usual_share")]
    pub max_ram_share: f64,
}

fn spill_threshold_rows() -> u64 {
    1_000_000
}

fn max_ram_share() -> f64 {
    0.7
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_usual_threshold(rows: &u64) -> bool {
    *rows == spill_threshold_rows()
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    clippy::float_cmp,
    reason = "serde passes a reference; it is the very number"
)]
fn is_usual_share(share: &f64) -> bool {
    *share == max_ram_share()
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            timeout_s: 3600,
            retries: 1,
            fail_strategy: FailStrategy::Halt,
            execution_mode: ExecutionMode::Lazy,
            threads: None,
            spill_threshold_rows: spill_threshold_rows(),
            max_ram_share: max_ram_share(),
        }
    }
}

/// What a failed sub flow means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailStrategy {
    /// Start nothing new.
    Halt,
    /// Only what depends on it does not run.
    Continue,
}

/// When a module's output exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecutionMode {
    /// Whole, before its readers start. Was called `pandas`.
    Eager,
    /// Batch by batch, while its readers run. Was called `dask`.
    Lazy,
}

/// One entry of `modules`.
#[derive(Debug, Clone)]
pub struct Module {
    /// Its id in this flow.
    pub id: Spanned<NodeId>,
    /// The module it is an instance of.
    pub name: Spanned<ModuleName>,
    /// `required` and `optional` in one object: templates are not filled in, defaults neither, and `10.0` is `10` where
    /// the module takes whole numbers.
    pub configs: Value,
    /// Where the values of `configs` stand.
    pub spans: SpanMap,
    /// Which names the templates in `configs` use, by JSON pointer.
    pub references: BTreeMap<String, References>,
    /// How the host treats it.
    pub misc: Misc,
    /// What it can be selected by.
    pub labels: Map<String, Value>,
}

/// How the host treats one module. Absent: as if it were not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Misc {
    /// Its outgoing data edges end its sub flow; its output is kept.
    pub checkpoint: Option<Spanned<bool>>,
    /// When a merge runs.
    pub join: Option<Spanned<Join>>,
    /// Where the module runs.
    pub isolation: Option<Spanned<Isolation>>,
}

impl Misc {
    /// Whether the module's output is kept.
    #[must_use]
    pub fn keeps_output(&self) -> bool {
        self.checkpoint.is_some_and(|checkpoint| checkpoint.value)
    }

    /// Whether the module is to run in a process of its own.
    #[must_use]
    pub fn isolates(&self) -> bool {
        self.isolation.is_some_and(|isolation| isolation.value == Isolation::Process)
    }
}

/// When a sub flow with several incoming control edges runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Join {
    /// When every edge is resolved and one at least is taken.
    Taken,
    /// When every edge is taken.
    All,
}

/// Where a module runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// In the host's own process.
    None,
    /// In a child process, so that its crash costs that node only.
    Process,
}

/// A port of a module: `source_csv.data`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRef {
    /// The module.
    pub node: Spanned<NodeId>,
    /// Its port.
    pub port: Spanned<PortName>,
}

/// `source_csv.data - transform_data.input`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataEdge {
    /// The output.
    pub from: PortRef,
    /// The input.
    pub to: PortRef,
}

impl DataEdge {
    /// From its first to its last letter.
    #[must_use]
    pub fn span(&self) -> Span {
        Span { start: self.from.node.span.start, end: self.to.port.span.end }
    }
}

/// `source_csv (1|ok) output_parquet`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlEdge {
    /// The module it leaves.
    pub from: Spanned<NodeId>,
    /// When it fires.
    pub valve: Spanned<Valve>,
    /// The module it enters.
    pub to: Spanned<NodeId>,
}

impl ControlEdge {
    /// From its first to its last letter.
    #[must_use]
    pub fn span(&self) -> Span {
        Span { start: self.from.span.start, end: self.to.span.end }
    }
}

/// `(order|condition)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Valve {
    /// Its rank among the edges that leave the same sub flow.
    pub order: Order,
    /// What must hold.
    pub condition: Condition,
}

/// The rank of a control edge. Rank 0 belongs to data edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Ascending from 1; equal ranks run in parallel.
    Nth(NonZeroU32),
    /// One more than the highest.
    Last,
}

/// What must hold for a control edge to fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It succeeded. Also what an empty condition means.
    Ok,
    /// It failed.
    Error,
    /// It ended, either way.
    Done,
    /// It succeeded, and this expression over globals and context is true.
    When(String),
    /// Once for each item of an output port or list artifact.
    Iterate {
        /// The port or list.
        over: String,
        /// How many items at a time.
        parallel: NonZeroU32,
    },
    /// Without waiting for it.
    Start {
        /// The run does not wait for it at its end either.
        detach: bool,
    },
}
