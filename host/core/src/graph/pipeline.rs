//! A pipeline as a graph: what runs in the caller, what in the background, and the boundary between them.

use super::{Edge, EdgeKind, Graph, Group, GroupKind, ModuleBox, about};
use crate::pipeline::plan::{Plan, Stage};

impl Graph {
    /// A pipeline as it is, before any run. The dispatch runs in the caller: it leads over the boundary.
    #[must_use]
    pub fn of_pipeline(plan: &Plan) -> Graph {
        let mut graph = Graph {
            title: format!("{} {}", plan.name(), plan.version()),
            groups: Vec::new(),
            boxes: Vec::new(),
            edges: Vec::new(),
        };
        graph.add_part("in the caller", &plan.stages()[..plan.resume_at()]);
        graph.add_part("in the background", plan.after());
        graph.edges = (1..plan.stages().len()).map(|to| Edge::next(plan, to)).collect();
        if let Some(stage) = plan.dead_letter() {
            graph.add_part("dead letter", std::slice::from_ref(stage));
            graph.edges.push(Edge::dead(plan));
        }
        graph
    }

    fn add_part(&mut self, name: &str, stages: &[Stage]) {
        if stages.is_empty() {
            return;
        }
        let (group, first) = (self.groups.len(), self.boxes.len());
        self.boxes.extend(stages.iter().map(|stage| ModuleBox::of_stage(stage, group)));
        self.groups.push(Group {
            name: name.to_owned(),
            within: None,
            kind: GroupKind::Part,
            boxes: (first..self.boxes.len()).collect(),
            after: group.checked_sub(1).into_iter().collect(),
            standing: None,
        });
    }
}

impl ModuleBox {
    fn of_stage(stage: &Stage, group: usize) -> ModuleBox {
        ModuleBox {
            name: stage.id.to_string(),
            about: about(stage.kind(), stage.module.as_str()),
            anchor: format!("module-{}", stage.id),
            group,
            standing: None,
        }
    }
}

impl Edge {
    /// To the stage at `to` from the one before it.
    fn next(plan: &Plan, to: usize) -> Edge {
        let crosses = to == plan.resume_at();
        Edge {
            from: to - 1,
            to,
            kind: if crosses { EdgeKind::Boundary } else { EdgeKind::Next },
            label: if crosses { "async boundary".to_owned() } else { String::new() },
            volume: None,
        }
    }

    /// To the dead letter, which stands after all stages. Any stage may lead there; the last is nearest.
    fn dead(plan: &Plan) -> Edge {
        let to = plan.stages().len();
        let label = if plan.dispatch().is_some() { "dead" } else { "failed" };
        Edge { from: to - 1, to, kind: EdgeKind::Control, label: label.to_owned(), volume: None }
    }
}

/// A pipeline in a line: `[logging] → [schedule_job: local] → |async boundary| → [storage_write]`.
#[must_use]
pub fn chain(plan: &Plan) -> String {
    let boxed = |stage: &Stage| format!("[{}]", stage.title());
    let caller = plan.stages()[..plan.resume_at()].iter().map(boxed);
    let boundary = plan.dispatch().map(|_| "|async boundary|".to_owned());
    let line: Vec<String> = caller.chain(boundary).chain(plan.after().iter().map(boxed)).collect();
    line.join(" → ")
}
