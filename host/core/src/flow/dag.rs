//! A plan on disk: `<name>_dag.json` and `<name>_execution_metadata.json` of a job folder.
//!
//! Both carry a format and a version of it. Reading them makes a plan by the same constructor that
//! planning uses, so a file that was tampered with cannot make a plan that is not one; and it needs
//! no registry, for each node holds its module's whole entry.
//!
//! The `Serialized*` types are the format. They are private and apart from the plan's own types, so
//! that a plan may change while old files stay readable.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::plan::{ControlPart, DataEdge, Endpoint, Parts, Plan, PlannedNode, SubFlow, Trigger, Unsorted};
use super::spec::{FlowMeta, FlowName, Join, ModuleName, NodeId, Settings, Version};
use crate::catalog::ModuleEntry;
use crate::diagnostic::Span;
use crate::document::{Source, SpanMap};
use crate::template::each_template;

const DAG: &str = "pype-dag";
const EXECUTION: &str = "pype-execution";
const VERSION: u64 = 1;

/// The two files of a job folder.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifacts {
    /// `<name>_dag.json`: the modules with their full metadata, and the data edges.
    pub dag: Value,
    /// `<name>_execution_metadata.json`: settings, sub flows, control edges, order.
    pub execution: Value,
}

/// Why two texts are not the files of a job folder.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Not JSON, or not of this shape.
    #[error("the {file} is malformed")]
    Malformed {
        /// "dag" or "execution metadata".
        file: &'static str,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// JSON, but something else.
    #[error("the {file} says its format is `{found}`, not `{expected}`")]
    Format {
        /// "dag" or "execution metadata".
        file: &'static str,
        /// What it says.
        found: String,
        /// What it should say.
        expected: &'static str,
    },
    /// Written by a later pype.
    #[error(
        "the {file} has format version {found}, this pype reads up to {VERSION}: build the flow again, or use a newer pype"
    )]
    Newer {
        /// "dag" or "execution metadata".
        file: &'static str,
        /// Its version.
        found: u64,
    },
    /// The two were not written together.
    #[error("the dag and the execution metadata do not belong together: {what} differ; build the flow again")]
    Mismatch {
        /// What differs.
        what: &'static str,
    },
    /// An edge or a circle that no build writes.
    #[error("the dag is inconsistent: {what}; build the flow again")]
    Inconsistent {
        /// What is wrong.
        what: String,
    },
}

/// Writes a plan.
#[must_use]
pub fn to_artifacts(plan: &Plan) -> Artifacts {
    let plain = "a plan is plain data, all its keys are text";
    Artifacts {
        dag: serde_json::to_value(SerializedDag::of(plan)).expect(plain),
        execution: serde_json::to_value(SerializedExecution::of(plan)).expect(plain),
    }
}

/// Reads what [`to_artifacts`] wrote, this version's or an older one's. `document` is the job folder's copy of the
/// flow, to which the spans of the nodes belong.
///
/// # Errors
/// If one of the texts is not such a file, is of a later version, or they do not belong together.
pub fn from_artifacts(dag_text: &str, execution_text: &str, document: Source) -> Result<Plan, ArtifactError> {
    let dag: SerializedDag = read(dag_text, "dag", DAG)?;
    let execution: SerializedExecution = read(execution_text, "execution metadata", EXECUTION)?;
    if (&dag.flow.name, &dag.flow.version) != (&execution.flow, &execution.version) {
        return Err(ArtifactError::Mismatch { what: "flow names or versions" });
    }
    let control_edges = execution.control_edges.into_iter().map(|edge| ControlPart {
        from: edge.from,
        to: edge.to,
        order: edge.order,
        trigger: edge.condition,
    });
    let plan = Plan::assemble(Parts {
        meta: dag.flow,
        settings: execution.settings,
        source: document,
        nodes: dag.nodes.into_iter().map(SerializedNode::into_planned).collect(),
        data_edges: dag.data_edges,
        control_edges: control_edges.collect(),
    })
    .map_err(inconsistent)?;
    let recorded: Vec<_> = execution.sub_flows.iter().map(|one| &one.nodes).collect();
    if recorded != plan.sub_flows().iter().map(|one| &one.nodes).collect::<Vec<_>>() {
        return Err(ArtifactError::Mismatch { what: "sub flows" });
    }
    Ok(plan)
}

/// What every version of either file has.
#[derive(Deserialize)]
struct Header {
    format: String,
    format_version: u64,
}

fn read<'a, T: Deserialize<'a>>(text: &'a str, file: &'static str, expected: &'static str) -> Result<T, ArtifactError> {
    let malformed = |source| ArtifactError::Malformed { file, source };
    let header: Header = serde_json::from_str(text).map_err(malformed)?;
    if header.format != expected {
        return Err(ArtifactError::Format { file, found: header.format, expected });
    }
    if header.format_version > VERSION {
        return Err(ArtifactError::Newer { file, found: header.format_version });
    }
    serde_json::from_str(text).map_err(malformed)
}

fn inconsistent(unsorted: Unsorted) -> ArtifactError {
    let what = match unsorted {
        Unsorted::Data(circle) => format!("data goes in a circle through `{}`", joined(&circle)),
        Unsorted::Control(circle) => format!("control goes in a circle through `{}`", joined(&circle)),
        Unsorted::Bypassed(edges) => {
            let edges = edges.iter().map(|(_, edge)| format!("`{} - {}`", edge.from, edge.to));
            format!("data leads round a checkpoint by {}", edges.collect::<Vec<_>>().join(", "))
        }
        Unsorted::EntersLoop(edges) => {
            let edges = edges.iter().map(|(from, to, _)| format!("`{from}` to `{to}`"));
            format!("control enters a loop from {}", edges.collect::<Vec<_>>().join(", "))
        }
        Unsorted::Unknown(id) => format!("an edge names `{id}`, which is not there"),
    };
    ArtifactError::Inconsistent { what }
}

fn joined(ids: &[NodeId]) -> String {
    ids.iter().map(NodeId::as_str).collect::<Vec<_>>().join("`, `")
}

#[derive(Serialize, Deserialize)]
struct SerializedDag {
    #[serde(default)]
    format: String,
    #[serde(default)]
    format_version: u64,
    flow: FlowMeta,
    nodes: Vec<SerializedNode>,
    #[serde(with = "edges")]
    data_edges: Vec<DataEdge>,
}

#[derive(Serialize, Deserialize)]
struct SerializedNode {
    id: NodeId,
    name: ModuleName,
    configs: Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    wanted_globals: Vec<String>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    labels: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    join: Option<Join>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    checkpoint: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    isolated: bool,
    module: ModuleEntry,
    /// Where the module stands in the job folder's copy of the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    span: Option<Span>,
    /// Where its templates stand, by JSON pointer: they are what can still go wrong at run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    template_spans: BTreeMap<String, Span>,
}

#[derive(Serialize, Deserialize)]
struct SerializedExecution {
    #[serde(default)]
    format: String,
    #[serde(default)]
    format_version: u64,
    flow: FlowName,
    version: Version,
    settings: Settings,
    sub_flows: Vec<SerializedSubFlow>,
    control_edges: Vec<SerializedControlEdge>,
    /// Names of sub flows that may run side by side, wave after wave: for people to read.
    execution_order: Vec<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
struct SerializedSubFlow {
    name: String,
    nodes: Vec<NodeId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    within: Option<String>,
    #[serde(default)]
    after: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct SerializedControlEdge {
    from: NodeId,
    to: NodeId,
    order: u32,
    condition: Trigger,
}

impl SerializedDag {
    fn of(plan: &Plan) -> Self {
        SerializedDag {
            format: DAG.to_owned(),
            format_version: VERSION,
            flow: FlowMeta { name: plan.name.clone(), version: plan.version.clone(), about: plan.about.clone() },
            nodes: plan.nodes().iter().map(SerializedNode::of).collect(),
            data_edges: plan.data_edges().to_vec(),
        }
    }
}

impl SerializedNode {
    fn of(node: &PlannedNode) -> Self {
        let mut template_spans = BTreeMap::new();
        each_template(&node.configs, &mut |_, pointer| {
            template_spans.extend(node.spans.value(pointer).map(|span| (pointer.to_owned(), span)));
        });
        SerializedNode {
            id: node.id.clone(),
            name: node.module.clone(),
            configs: node.configs.clone(),
            wanted_globals: node.wanted_globals.iter().cloned().collect(),
            labels: node.labels.clone(),
            join: node.join,
            checkpoint: node.checkpoint,
            isolated: node.isolated,
            module: node.entry.clone(),
            span: node.spans.root(),
            template_spans,
        }
    }

    fn into_planned(self) -> PlannedNode {
        let mut spans = self.span.map(SpanMap::rooted).unwrap_or_default();
        for (pointer, span) in self.template_spans {
            spans.insert(pointer, span);
        }
        PlannedNode {
            id: self.id,
            module: self.name,
            entry: self.module,
            configs: self.configs,
            spans,
            wanted_globals: self.wanted_globals.into_iter().collect(),
            labels: self.labels,
            join: self.join,
            checkpoint: self.checkpoint,
            isolated: self.isolated,
        }
    }
}

impl SerializedExecution {
    fn of(plan: &Plan) -> Self {
        let name = |id: &super::plan::SubFlowId| plan.sub_flow(*id).name();
        let sub_flow = |one: &SubFlow| SerializedSubFlow {
            name: one.name(),
            nodes: one.nodes.clone(),
            within: one.within.as_ref().map(name),
            after: one.after.iter().map(name).collect(),
        };
        let written = plan.control_edges().iter().filter(|edge| edge.trigger != Trigger::Data);
        let control_edges = written.map(|edge| SerializedControlEdge {
            from: edge.from.clone(),
            to: edge.to.clone(),
            order: edge.order,
            condition: edge.trigger.clone(),
        });
        SerializedExecution {
            format: EXECUTION.to_owned(),
            format_version: VERSION,
            flow: plan.name.clone(),
            version: plan.version.clone(),
            settings: plan.settings.clone(),
            sub_flows: plan.sub_flows().iter().map(sub_flow).collect(),
            control_edges: control_edges.collect(),
            execution_order: plan.waves().iter().map(|wave| wave.iter().map(name).collect()).collect(),
        }
    }
}

/// Data edges as the document writes them: `"source_csv.data - transform_data.input"`.
mod edges {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::{DataEdge, Endpoint};

    pub(super) fn serialize<S: Serializer>(edges: &[DataEdge], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(edges.iter().map(|edge| format!("{} - {}", edge.from, edge.to)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DataEdge>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        let edge = |text: &String| {
            let (from, to) = text.split_once(" - ")?;
            Some(DataEdge { from: endpoint(from)?, to: endpoint(to)? })
        };
        let malformed = |text: &String| D::Error::custom(format!("`{text}` is not a data edge"));
        texts.iter().map(|text| edge(text).ok_or_else(|| malformed(text))).collect()
    }

    fn endpoint(text: &str) -> Option<Endpoint> {
        let (node, port) = text.split_once('.')?;
        Some(Endpoint { node: node.parse().ok()?, port: port.parse().ok()? })
    }
}
