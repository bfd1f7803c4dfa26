//! A pipeline as a graph: what runs in the caller, what in the background, and the boundary between them.

use super::{Edge, EdgeKind, Graph, ModuleBox};
use crate::pipeline::plan::{Plan, Stage};

impl Graph {
    /// A pipeline as it is, before any run. The dispatch runs in the caller: it leads over the boundary.
    #[must_use]
    pub fn of_pipeline(plan: &Plan) -> Graph {
        let mut graph = Graph::titled(format!("{} {}", plan.name(), plan.version()));
        graph.add_part("in the caller", plan.stages()[..plan.resume_at()].iter().map(ModuleBox::of_stage));
        graph.add_part("in the background", plan.after().iter().map(ModuleBox::of_stage));
        graph.edges = (1..plan.stages().len()).map(|to| Edge::of_stage(plan, to)).collect();
        if let Some(stage) = plan.dead_letter() {
            graph.add_part("dead letter", std::iter::once(ModuleBox::of_stage(stage)));
            graph.edges.push(Edge::dead(plan));
        }
        graph
    }
}

impl ModuleBox {
    fn of_stage(stage: &Stage) -> ModuleBox {
        ModuleBox::named(&stage.id, stage.kind(), stage.module.as_str())
    }
}

impl Edge {
    /// To the stage at `to` from the one before it.
    fn of_stage(plan: &Plan, to: usize) -> Edge {
        match to == plan.resume_at() {
            true => Edge { kind: EdgeKind::Boundary, ..Edge::next(to - 1, to, "async boundary".to_owned()) },
            false => Edge::next(to - 1, to, String::new()),
        }
    }

    /// To the dead letter, which stands after all stages. Any stage may lead there; the last is nearest.
    fn dead(plan: &Plan) -> Edge {
        let to = plan.stages().len();
        let label = if plan.dispatch().is_some() { "dead" } else { "failed" };
        Edge { kind: EdgeKind::Control, ..Edge::next(to - 1, to, label.to_owned()) }
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
