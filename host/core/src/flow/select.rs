//! A part of a flow, as `pype run --select +report --exclude beta` asks for it.
//!
//! A [`Selector`] means sub flows: what one of its modules is selected by selects the whole of it, for it runs as one.
//! [`select`] says which sub flows a [`Selection`] means, [`reduce`] makes the plan that has no others. Edges from and
//! to a sub flow that is left out are gone with it, and so are the waits that came of them: what only such edges led
//! to starts at once. What a selected module cannot do without is never left out in silence, see [`Unmet`].

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use serde_json::{Map, Value};

use super::plan::{ControlEdge, Parts, Plan, PlannedNode, SubFlow, SubFlowId, Trigger, Unsorted};
use crate::label::{Rule, TextError};
use crate::name::NodeId;
use crate::suggest::{nearest, quoted_list};
use crate::template::{References, each_template, split_global};

/// Which sub flows are meant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// Those that one of these means; all, if there are none of these.
    pub select: Vec<Selector>,
    /// But not those that one of these means.
    pub exclude: Vec<Selector>,
}

/// `x`, where `+x` takes in all that `x` depends on, `x+` all that depends on `x`, and `+x+` both; each transitively.
///
/// `x` is the id of a module, or a rule over the labels of modules ([`labels`]). One word is an id if the flow has such
/// a module, and else the rule that such a label is set.
#[derive(Debug, Clone, PartialEq)]
pub struct Selector {
    with_upstream: bool,
    with_downstream: bool,
    meant: Meant,
}

#[derive(Debug, Clone, PartialEq)]
enum Meant {
    /// With the rule that it is, unless it is a word of the language of rules.
    Word(NodeId, Option<Rule>),
    Rule(Rule),
}

/// A plan without what is not selected.
#[derive(Debug, Clone, PartialEq)]
pub struct Reduced {
    /// What is selected. Its sub flows are numbered anew.
    pub plan: Plan,
    /// The names of the other sub flows, in the order of the whole plan.
    pub left_out: Vec<String>,
    /// Edges of sub flows that are left out whose condition would have decided whether a selected one runs. Without
    /// them it runs in any case.
    pub lost_conditions: Vec<ControlEdge>,
}

/// Why a selection makes no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// A word says nothing about this flow.
    #[error("`{word}` is no module of this flow, and no label of one")]
    UnknownWord {
        /// The word.
        word: NodeId,
        /// An id or a label that it may be a slip for.
        near: Option<String>,
    },
    /// A rule that no module meets asks for a label that none has.
    #[error("no module of this flow has a label `{key}`")]
    UnknownLabel {
        /// The label.
        key: String,
        /// A label that it may be a slip for.
        near: Option<String>,
    },
    /// No sub flow is left.
    #[error("nothing is selected")]
    Nothing {
        /// All that there are.
        sub_flows: Vec<SubFlow>,
    },
    /// Selected modules cannot do without others.
    #[error("{}", one_by_one(.0))]
    Unmet(Vec<Unmet>),
    /// The orders of the edges that are left contradict each other.
    #[error("what is selected waits for itself in a circle: {}", quoted_list(.0.iter().map(NodeId::as_str)))]
    Circle(Vec<NodeId>),
}

/// What a selected module needs and does not get.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// The global of a module that does not run.
    #[error("`{reader}` reads `{writer}__{name}`, and `{writer}` is not selected")]
    Global {
        /// Who reads it.
        reader: NodeId,
        /// Who would announce it.
        writer: NodeId,
        /// As the writer declares it.
        name: String,
    },
    /// The global of a module that it no longer waits for.
    #[error("`{reader}` reads `{writer}__{name}`, and nothing that is selected makes it wait for `{writer}`")]
    TooEarly {
        /// Who reads it.
        reader: NodeId,
        /// Who announces it.
        writer: NodeId,
        /// As the writer declares it.
        name: String,
    },
    /// A module would not run once per item any more.
    #[error("`{reader}` runs in the loop over `{over}`, which is not selected")]
    Loop {
        /// What runs in the loop.
        reader: NodeId,
        /// What the loop goes over.
        over: String,
    },
    /// The output of a module that does not run.
    #[error("`{reader}` reads the output of `{writer}`, and `{writer}` is not selected")]
    Input {
        /// Who reads it.
        reader: NodeId,
        /// Whose output it is.
        writer: NodeId,
    },
}

fn one_by_one(unmet: &[Unmet]) -> String {
    unmet.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Unmet {
    /// The module that needs something.
    #[must_use]
    pub fn reader(&self) -> &NodeId {
        match self {
            Unmet::Global { reader, .. }
            | Unmet::TooEarly { reader, .. }
            | Unmet::Loop { reader, .. }
            | Unmet::Input { reader, .. } => reader,
        }
    }
}

/// The sub flows of `plan` that are selected.
///
/// # Errors
/// If none is, or a selector says nothing about this flow.
pub fn select(plan: &Plan, selection: &Selection) -> Result<BTreeSet<SubFlowId>, SelectError> {
    let links = Links::of(plan);
    let mut selected = match selection.select.is_empty() {
        true => plan.sub_flows().iter().map(|one| one.id).collect(),
        false => meant_by(&selection.select, plan, &links)?,
    };
    let excluded = meant_by(&selection.exclude, plan, &links)?;
    selected.retain(|id| !excluded.contains(id));
    if selected.is_empty() {
        return Err(SelectError::Nothing { sub_flows: plan.sub_flows().to_vec() });
    }
    Ok(selected)
}

/// The plan of what is selected.
///
/// # Errors
/// If nothing is, or what is cannot do without the rest.
pub fn reduce(plan: &Plan, selection: &Selection) -> Result<Reduced, SelectError> {
    let selected = select(plan, selection)?;
    let keeps = |id: &NodeId| plan.sub_flow_of(id).is_some_and(|one| selected.contains(&one.id));
    let reads = reads(plan, keeps);
    let mut unmet: Vec<Unmet> = reads.iter().filter(|read| !keeps(&read.writer)).map(Read::left_out).collect();
    unmet.extend(lost_inputs(plan, keeps));
    if !unmet.is_empty() {
        return Err(SelectError::Unmet(unmet));
    }
    let mut parts = plan.parts(keeps);
    forget_unread_globals(&mut parts, &reads);
    let reduced = Plan::assemble(parts).map_err(|unsorted| match unsorted {
        Unsorted::Data(circle) | Unsorted::Control(circle) => SelectError::Circle(circle),
        Unsorted::Unknown(id) => unreachable!("an edge is kept only with both its modules, and `{id}` is one"),
        // What a whole plan does not have, a part of it does not either.
        Unsorted::Bypassed(edges) => SelectError::Circle(edges.into_iter().map(|(checkpoint, _)| checkpoint).collect()),
        Unsorted::EntersLoop(edges) => SelectError::Circle(edges.into_iter().map(|(_, to, _)| to).collect()),
    })?;
    let early = reads.iter().filter(|read| read.is_too_early(&reduced)).map(Read::too_early);
    let unmet: Vec<Unmet> = early.chain(lost_loops(plan, &reduced)).collect();
    if !unmet.is_empty() {
        return Err(SelectError::Unmet(unmet));
    }
    let others = plan.sub_flows().iter().filter(|one| one.iterate.is_none() && !selected.contains(&one.id));
    let left_out = others.map(SubFlow::name).collect();
    Ok(Reduced { lost_conditions: lost_conditions(plan, &selected), plan: reduced, left_out })
}

/// What a module of a flow is selected by: the labels that the flow gives it, and `id`, `name` (of the module it is an
/// instance of) and `kind`, unless the flow gives it such a label itself.
#[must_use]
pub fn labels(node: &PlannedNode) -> Map<String, Value> {
    let implied = [("id", node.id.as_str()), ("name", node.module.as_str()), ("kind", node.entry.kind.as_str())];
    let mut labels: Map<String, Value> =
        implied.into_iter().map(|(key, text)| (key.to_owned(), Value::from(text))).collect();
    labels.extend(node.labels.clone());
    labels
}

impl FromStr for Selector {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let upstream = text.trim_start().strip_prefix('+');
        let rest = upstream.unwrap_or(text);
        let downstream = rest.trim_end().strip_suffix('+');
        let inner = downstream.unwrap_or(rest);
        // As far in as in the whole text, so that an error knows its place there.
        let rule = (" ".repeat(text.len() - rest.len()) + inner).parse::<Rule>();
        let meant = match inner.trim().parse::<NodeId>() {
            Ok(word) => Meant::Word(word, rule.ok()),
            Err(_) => Meant::Rule(rule?),
        };
        Ok(Selector { with_upstream: upstream.is_some(), with_downstream: downstream.is_some(), meant })
    }
}

fn meant_by(selectors: &[Selector], plan: &Plan, links: &Links) -> Result<BTreeSet<SubFlowId>, SelectError> {
    let mut all = BTreeSet::new();
    for selector in selectors {
        let named = selector.meant.sub_flows(plan)?;
        if selector.with_upstream {
            all.extend(reached(&named, &links.upstream));
        }
        if selector.with_downstream {
            all.extend(reached(&named, &links.downstream));
        }
        all.extend(named);
    }
    Ok(all)
}

impl Meant {
    fn sub_flows(&self, plan: &Plan) -> Result<BTreeSet<SubFlowId>, SelectError> {
        match self {
            Meant::Word(word, rule) => {
                if let Some(one) = plan.sub_flow_of(word) {
                    return Ok(BTreeSet::from([one.id]));
                }
                let unknown = || unknown_word(word, plan);
                meeting(rule.as_ref().ok_or_else(unknown)?, plan).map_err(|_| unknown())
            }
            Meant::Rule(rule) => meeting(rule, plan).map_err(|key| unknown_label(key, plan)),
        }
    }
}

/// The sub flows with a module that meets a rule.
///
/// # Errors
/// If there is none, and the rule asks for a label that no module has: that label.
fn meeting<'r>(rule: &'r Rule, plan: &Plan) -> Result<BTreeSet<SubFlowId>, &'r str> {
    let mut unknown = rule.keys();
    let mut met = BTreeSet::new();
    for node in plan.nodes() {
        let labels = labels(node);
        unknown.retain(|key| !labels.contains_key(*key));
        if rule.matches(&labels) {
            met.extend(plan.sub_flow_of(&node.id).map(|one| one.id));
        }
    }
    match unknown.first() {
        Some(key) if met.is_empty() => Err(key),
        Some(_) | None => Ok(met),
    }
}

fn unknown_word(word: &NodeId, plan: &Plan) -> SelectError {
    let keys = label_keys(plan);
    let known = plan.nodes().iter().map(|node| node.id.as_str()).chain(keys.iter().map(String::as_str));
    let near = nearest(word.as_str(), known).map(str::to_owned);
    SelectError::UnknownWord { word: word.clone(), near }
}

fn unknown_label(key: &str, plan: &Plan) -> SelectError {
    let keys = label_keys(plan);
    let near = nearest(key, keys.iter().map(String::as_str)).map(str::to_owned);
    SelectError::UnknownLabel { key: key.to_owned(), near }
}

fn label_keys(plan: &Plan) -> BTreeSet<String> {
    plan.nodes().iter().flat_map(|node| labels(node).into_iter().map(|(key, _)| key)).collect()
}

/// What sub flows depend on: where control comes from, whose output they read, whose globals.
struct Links {
    upstream: BTreeMap<SubFlowId, Vec<SubFlowId>>,
    downstream: BTreeMap<SubFlowId, Vec<SubFlowId>>,
}

impl Links {
    fn of(plan: &Plan) -> Self {
        let mut links = Links { upstream: BTreeMap::new(), downstream: BTreeMap::new() };
        let mut link = |from: &NodeId, to: &NodeId| {
            let (Some(from), Some(to)) = (plan.sub_flow_of(from), plan.sub_flow_of(to)) else { return };
            if from.id != to.id {
                links.upstream.entry(to.id).or_default().push(from.id);
                links.downstream.entry(from.id).or_default().push(to.id);
            }
        };
        plan.control_edges().iter().for_each(|edge| link(&edge.from, &edge.to));
        plan.data_edges().iter().for_each(|edge| link(&edge.from.node, &edge.to.node));
        reads(plan, |_| true).iter().for_each(|read| link(&read.writer, &read.reader));
        links
    }
}

/// All that can be reached, the start not counted.
fn reached(start: &BTreeSet<SubFlowId>, links: &BTreeMap<SubFlowId, Vec<SubFlowId>>) -> BTreeSet<SubFlowId> {
    let mut found = BTreeSet::new();
    let mut open: Vec<SubFlowId> = start.iter().copied().collect();
    while let Some(id) = open.pop() {
        let next = links.get(&id).into_iter().flatten().copied();
        open.extend(next.filter(|next| found.insert(*next)).collect::<Vec<_>>());
    }
    found
}

/// A module needs what another one announces.
struct Read {
    reader: NodeId,
    writer: NodeId,
    /// As the writer declares it.
    name: String,
    /// In the condition of an edge that leaves the reader, and so when its sub flow has ended.
    at_its_end: bool,
}

/// The reads of the modules that `keeps` takes, in their configs and in the conditions between them.
fn reads(plan: &Plan, keeps: impl Fn(&NodeId) -> bool) -> Vec<Read> {
    let ids: BTreeMap<String, &NodeId> =
        plan.nodes().iter().map(|node| (node.id.as_str().to_lowercase(), &node.id)).collect();
    let read = |reader: &NodeId, global: &str, at_its_end: bool| {
        split_global(global).find_map(|(writer, variable)| {
            let writer = (*ids.get(&writer.to_lowercase())?).clone();
            let name = plan.node(&writer).entry.global(variable)?.to_owned();
            Some(Read { reader: reader.clone(), writer, name, at_its_end })
        })
    };
    let mut all = Vec::new();
    for node in plan.nodes().iter().filter(|node| keeps(&node.id)) {
        let mut globals = BTreeSet::new();
        each_template(&node.configs, &mut |text, _| {
            // A malformed template was refused when the flow was loaded.
            globals.extend(References::of_text(text).into_iter().flat_map(|references| references.globals));
        });
        all.extend(globals.iter().filter_map(|global| read(&node.id, global, false)));
    }
    for edge in plan.control_edges().iter().filter(|edge| keeps(&edge.from) && keeps(&edge.to)) {
        let Trigger::When(expression) = &edge.trigger else { continue };
        let globals = References::of_expression(expression).into_iter().flat_map(|references| references.globals);
        all.extend(globals.filter_map(|global| read(&edge.from, &global, true)));
    }
    all
}

impl Read {
    fn left_out(&self) -> Unmet {
        Unmet::Global { reader: self.reader.clone(), writer: self.writer.clone(), name: self.name.clone() }
    }

    fn too_early(&self) -> Unmet {
        Unmet::TooEarly { reader: self.reader.clone(), writer: self.writer.clone(), name: self.name.clone() }
    }

    /// Has the writer ended for sure when this is read?
    fn is_too_early(&self, plan: &Plan) -> bool {
        let (Some(reader), Some(writer)) = (plan.sub_flow_of(&self.reader), plan.sub_flow_of(&self.writer)) else {
            return true;
        };
        if reader.id == writer.id {
            return !self.at_its_end;
        }
        !plan.ended_before(reader.id).contains(&writer.id)
    }
}

fn lost_inputs(plan: &Plan, keeps: impl Fn(&NodeId) -> bool) -> Vec<Unmet> {
    let lost = plan.data_edges().iter().filter(|edge| keeps(&edge.to.node) && !keeps(&edge.from.node));
    lost.map(|edge| Unmet::Input { reader: edge.to.node.clone(), writer: edge.from.node.clone() }).collect()
}

/// The loops that modules of the part do not run in any more.
fn lost_loops(plan: &Plan, part: &Plan) -> Vec<Unmet> {
    let loops = |plan: &Plan, id: &NodeId| -> Vec<String> {
        let around = plan.sub_flow_of(id).into_iter().flat_map(|one| plan.loops_around(one.id));
        around.map(SubFlow::name).collect()
    };
    let lost = |id: &NodeId| {
        let kept = loops(part, id);
        let over = loops(plan, id).into_iter().find(|over| !kept.contains(over))?;
        Some(Unmet::Loop { reader: id.clone(), over })
    };
    part.nodes().iter().filter_map(|node| lost(&node.id)).collect()
}

/// Who left out its readers need not announce anything to them.
fn forget_unread_globals(parts: &mut Parts, reads: &[Read]) {
    for node in &mut parts.nodes {
        node.wanted_globals.retain(|name| reads.iter().any(|read| read.writer == node.id && read.name == *name));
    }
}

/// The conditional edges into selected sub flows that no edge leads to any more.
fn lost_conditions(plan: &Plan, selected: &BTreeSet<SubFlowId>) -> Vec<ControlEdge> {
    let entered = plan.control_edges().iter().filter(|edge| selected.contains(&edge.to_sub_flow));
    let (kept, lost): (Vec<_>, Vec<_>) = entered.partition(|edge| selected.contains(&edge.from_sub_flow));
    let led_to: BTreeSet<SubFlowId> = kept.iter().map(|edge| edge.to_sub_flow).collect();
    let decides = |edge: &&&ControlEdge| match edge.trigger {
        Trigger::Error | Trigger::When(_) => true,
        Trigger::Ok | Trigger::Done | Trigger::Start { .. } | Trigger::Iterate { .. } | Trigger::Data => false,
    };
    lost.iter().filter(|edge| !led_to.contains(&edge.to_sub_flow)).filter(decides).map(|edge| (*edge).clone()).collect()
}
