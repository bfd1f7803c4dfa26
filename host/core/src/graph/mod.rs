//! A plan as a picture: its modules, what runs between them, and what became of it in a run.
//!
//! [`Graph::of`] takes it from a flow's plan, [`Graph::with`] lays a run over it, [`Graph::of_pipeline`] takes it from a
//! pipeline's and [`Graph::of_stream`] from a stream's, and then there is [`Graph::mermaid`], [`Graph::dot`],
//! [`Graph::svg`] and [`Graph::html`]. The first two leave it to other programs where things go; for the others `layout`
//! settles that. Pictures fetch nothing, and whatever users have named is escaped.

mod collapse;
mod dot;
mod html;
mod layout;
mod mark;
mod mermaid;
mod pipeline;
mod stream;
mod svg;
#[cfg(test)]
mod tests;
mod text;

use std::collections::HashMap;

use crate::catalog::ModuleKind;
use crate::flow::plan::{ControlEdge, Plan, SubFlow, SubFlowId, Trigger};
use crate::human;
use crate::name::NodeId;
use crate::run::history::{History, NodeHistory, SubFlowHistory, Tally, Volume};

pub use mark::Mark;
pub use pipeline::chain;

/// A plan, drawn.
#[derive(Debug, Clone)]
pub struct Graph {
    title: String,
    groups: Vec<Group>,
    boxes: Vec<ModuleBox>,
    edges: Vec<Edge>,
}

/// What runs as one, or a loop around that.
#[derive(Debug, Clone)]
struct Group {
    name: String,
    /// The place of the loop around it.
    within: Option<usize>,
    kind: GroupKind,
    /// The places of its modules.
    boxes: Vec<usize>,
    /// The places of those that end before it starts.
    after: Vec<usize>,
    standing: Option<Standing>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GroupKind {
    SubFlow,
    /// Around sub flows.
    Loop,
    /// Of a pipeline or a stream, what runs in one place.
    Part,
}

/// A module, or a sub flow that is shown as if it were one.
#[derive(Debug, Clone)]
struct ModuleBox {
    name: String,
    /// What it is, in a few words.
    about: String,
    /// Where a page tells more of it.
    anchor: String,
    group: usize,
    standing: Option<Standing>,
}

/// What became of something.
#[derive(Debug, Clone, PartialEq)]
struct Standing {
    mark: Mark,
    /// In a few words, without that for the mark.
    notes: Vec<String>,
}

#[derive(Debug, Clone)]
struct Edge {
    from: usize,
    to: usize,
    kind: EdgeKind,
    /// What is written on it.
    label: String,
    /// What ran over it.
    volume: Option<Volume>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum EdgeKind {
    Data,
    /// Data out of a checkpoint: it is kept, and joins two sub flows.
    Kept,
    Control,
    /// From one stage to the next.
    Next,
    /// The same, to the background.
    Boundary,
}

impl Graph {
    /// A plan as it is, before any run.
    #[must_use]
    pub fn of(plan: &Plan) -> Graph {
        let mut graph = Graph {
            title: format!("{} {}", plan.name, plan.version),
            groups: plan.sub_flows().iter().map(Group::of).collect(),
            boxes: Vec::new(),
            edges: Vec::new(),
        };
        let mut places = HashMap::new();
        for (group, sub_flow) in plan.sub_flows().iter().enumerate() {
            for id in &sub_flow.nodes {
                places.insert(id.clone(), graph.boxes.len());
                graph.groups[group].boxes.push(graph.boxes.len());
                graph.boxes.push(ModuleBox::of(plan, id, group));
            }
        }
        graph.add_data(plan, &places);
        // A checkpoint's data edges also order sub flows; they are drawn as what they are.
        let drawn = plan.control_edges().iter().filter(|edge| edge.trigger != Trigger::Data);
        graph.edges.extend(drawn.map(|edge| Edge::control(edge, &places)));
        graph
    }

    fn titled(title: String) -> Graph {
        Graph { title, groups: Vec::new(), boxes: Vec::new(), edges: Vec::new() }
    }

    /// One more part of a pipeline or a stream, after all others; none if it has no box.
    fn add_part(&mut self, name: &str, boxes: impl Iterator<Item = ModuleBox>) {
        let (group, first) = (self.groups.len(), self.boxes.len());
        self.boxes.extend(boxes.map(|one| ModuleBox { group, ..one }));
        if self.boxes.len() == first {
            return;
        }
        self.groups.push(Group {
            name: name.to_owned(),
            within: None,
            kind: GroupKind::Part,
            boxes: (first..self.boxes.len()).collect(),
            after: group.checked_sub(1).into_iter().collect(),
            standing: None,
        });
    }

    fn add_data(&mut self, plan: &Plan, places: &HashMap<NodeId, usize>) {
        for edge in plan.data_edges() {
            let (from, to) = (places[&edge.from.node], places[&edge.to.node]);
            let kept = self.boxes[from].group != self.boxes[to].group;
            self.edges.push(Edge {
                from,
                to,
                kind: if kept { EdgeKind::Kept } else { EdgeKind::Data },
                label: format!("{} → {}", edge.from.port, edge.to.port),
                volume: None,
            });
        }
    }

    /// The same with what became of it in a run. What the run does not know is shown as not run.
    #[must_use]
    pub fn with(mut self, plan: &Plan, history: &History) -> Graph {
        for (group, sub_flow) in self.groups.iter_mut().zip(plan.sub_flows()) {
            let known = match group.kind {
                GroupKind::Loop => history.sub_flow(sub_flow.id).filter(|known| known.is_loop),
                GroupKind::SubFlow | GroupKind::Part => history.sub_flow_with(&sub_flow.nodes),
            };
            group.standing = Some(known.map_or_else(Standing::not_run, Standing::of_sub_flow));
            for (place, id) in group.boxes.iter().zip(&sub_flow.nodes) {
                let node = known.zip(history.node(id));
                let standing = node.map_or_else(Standing::not_run, |(around, node)| Standing::of_node(node, around));
                self.boxes[*place].standing = Some(standing);
            }
        }
        let ran_over = plan.data_edges().iter().map(|edge| history.node(&edge.from.node)?.ports.get(&edge.from.port));
        for (edge, volume) in self.edges.iter_mut().zip(ran_over) {
            edge.volume = volume.copied();
        }
        self
    }

    /// The marks that occur in it.
    pub(crate) fn marks(&self) -> Vec<Mark> {
        let of_boxes = self.boxes.iter().filter_map(|one| one.standing.as_ref());
        let of_groups = self.groups.iter().filter_map(|one| one.standing.as_ref());
        let mut marks: Vec<Mark> = of_boxes.chain(of_groups).map(|standing| standing.mark).collect();
        marks.sort();
        marks.dedup();
        marks
    }

    /// The frame that a group's own frame, or its only box, stands in.
    fn frame_around(&self, group: usize) -> Option<usize> {
        self.groups[group].within
    }

    /// The frame that a box stands in: a sub flow of one module has none of its own.
    fn frame_of(&self, place: usize) -> Option<usize> {
        let group = self.boxes[place].group;
        if self.groups[group].is_framed() { Some(group) } else { self.frame_around(group) }
    }
}

impl Group {
    fn of(sub_flow: &SubFlow) -> Group {
        Group {
            name: sub_flow.name(),
            within: sub_flow.within.map(SubFlowId::index),
            kind: if sub_flow.iterate.is_some() { GroupKind::Loop } else { GroupKind::SubFlow },
            boxes: Vec::new(),
            after: sub_flow.after.iter().map(|before| before.index()).collect(),
            standing: None,
        }
    }

    fn is_framed(&self) -> bool {
        match self.kind {
            GroupKind::SubFlow => self.boxes.len() > 1,
            GroupKind::Loop | GroupKind::Part => true,
        }
    }

    /// `sub flow orders`, `loop over months.data`, `in the background`.
    fn heading(&self) -> String {
        match self.kind {
            GroupKind::SubFlow => format!("sub flow {}", self.name),
            GroupKind::Loop => format!("loop over {}", self.name),
            GroupKind::Part => self.name.clone(),
        }
    }
}

impl ModuleBox {
    fn of(plan: &Plan, id: &NodeId, group: usize) -> ModuleBox {
        let node = plan.node(id);
        ModuleBox { group, ..ModuleBox::named(id, node.entry.kind, node.module.as_str()) }
    }

    /// A module, before it is in a group.
    fn named(id: &NodeId, kind: ModuleKind, module: &str) -> ModuleBox {
        let (name, about, anchor) = (id.to_string(), format!("{module} · {kind}"), format!("module-{id}"));
        ModuleBox { name, about, anchor, group: 0, standing: None }
    }
}

impl Edge {
    fn next(from: usize, to: usize, label: String) -> Edge {
        Edge { from, to, kind: EdgeKind::Next, label, volume: None }
    }

    fn control(edge: &ControlEdge, places: &HashMap<NodeId, usize>) -> Edge {
        Edge {
            from: places[&edge.from],
            to: places[&edge.to],
            kind: EdgeKind::Control,
            label: format!("{}|{}", edge.order, edge.trigger),
            volume: None,
        }
    }

    /// What is written on it, line by line.
    fn lines(&self) -> Vec<String> {
        let kept = (self.kind == EdgeKind::Kept).then(|| "checkpoint".to_owned());
        let rows = self.volume.and_then(|volume| volume.rows).map(human::rows);
        let label = Some(self.label.clone()).filter(|label| !label.is_empty());
        label.into_iter().chain(kept).chain(rows).collect()
    }
}

impl Standing {
    fn not_run() -> Standing {
        Standing { mark: Mark::NotRun, notes: Vec::new() }
    }

    fn of_sub_flow(one: &SubFlowHistory) -> Standing {
        let mark = Mark::of_sub_flow(one);
        let mut notes = Vec::new();
        if let Some(items) = &one.items {
            notes.push(human::counted(items.count, "item"));
            notes.extend(items.tallies.iter().filter(|_| items.tallies.len() > 1).map(tally));
        }
        let attempt = one.attempts.last();
        let seconds = attempt.and_then(|last| Some(last.ended_ms?.saturating_sub(last.started_ms) as f64 / 1000.0));
        notes.extend(seconds.map(human::seconds));
        notes.extend(attempt.filter(|last| last.number > 1).map(|last| format!("attempt {}", last.number)));
        Standing { mark, notes }
    }

    fn of_node(node: &NodeHistory, around: &SubFlowHistory) -> Standing {
        let mark = Mark::of_node(node, around);
        let mut notes = Vec::new();
        if node.was_fused() {
            notes.push("fused".to_owned());
        }
        notes.extend(node.rows.map(human::rows));
        notes.extend((node.seconds > 0.0).then(|| human::seconds(node.seconds)));
        notes.extend(
            (node.failed > 0 && node.finished > 0)
                .then(|| format!("failed for {}", human::counted(node.failed, "item"))),
        );
        Standing { mark, notes }
    }

    /// The mark's word, and the notes. The word of what went as it should is left out where notes say enough.
    fn line(&self) -> String {
        let obvious = self.mark == Mark::Succeeded && !self.notes.is_empty();
        let word = (!obvious).then(|| self.mark.word().to_owned());
        word.into_iter().chain(self.notes.iter().cloned()).collect::<Vec<_>>().join(" · ")
    }
}

fn tally(tally: &Tally) -> String {
    format!("{} {}", human::grouped(tally.count), Mark::of_state(tally.state).word())
}
