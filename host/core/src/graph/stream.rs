//! A stream as a graph: its source, its decoders, and what handles the records, one by one or in batches.

use super::{Edge, EdgeKind, Graph, Group, ModuleBox};
use crate::human;
use crate::pipeline;
use crate::stream::SOURCE;
use crate::stream::lanes::Ordering;
use crate::stream::plan::{Handle, Module, Parallel, PerBatch, Plan};

impl Graph {
    /// A stream as it is, with the pipeline that it hands records to, if it does. Where those go that could not be handled is
    /// the last part.
    #[must_use]
    pub fn of_stream(plan: &Plan, pipeline: Option<&pipeline::plan::Plan>) -> Graph {
        let mut graph = Graph::titled(format!("{} {}", plan.name, plan.version));
        graph.add_part("stream", std::iter::once(&plan.source).chain(&plan.decode).map(ModuleBox::of_module));
        let last = graph.boxes.len() - 1;
        graph.edges.extend((0..last).map(|from| Edge::next(from, from + 1, String::new())));
        let fails = match (&plan.handle, pipeline) {
            (Handle::Batch(batch), _) => {
                graph.add_batches(batch, last);
                graph.boxes.len() - 1
            }
            (Handle::Pipeline(how), Some(pipeline)) => {
                graph.edges.push(Edge::next(last, last + 1, how_many(&how.parallel)));
                graph.append(Graph::of_pipeline(pipeline));
                // What is in the background is no longer the stream's.
                last + pipeline.resume_at()
            }
            (Handle::Pipeline(_), None) => last,
        };
        if let Some(letters) = &plan.dead_letter {
            let (name, about) = (letters.topic.to_string(), "topic".to_owned());
            let topic = ModuleBox { name, about, anchor: "dead-letters".to_owned(), group: 0, standing: None };
            graph.add_part("dead letters", std::iter::once(topic));
            let to = graph.boxes.len() - 1;
            graph.edges.push(Edge { kind: EdgeKind::Control, ..Edge::next(fails, to, "failed".to_owned()) });
        }
        graph
    }

    /// The modules of a batch. They have a node for the records, which are here those of the box `last`.
    fn add_batches(&mut self, batch: &PerBatch, last: usize) {
        let mut modules = Graph::of(&batch.flow);
        let records = modules.boxes.iter().position(|one| one.name == SOURCE);
        let records = records.expect("the flow of a batch has a node for the records");
        modules.boxes.remove(records);
        let first = self.boxes.len();
        let place = |at: usize| match at {
            _ if at == records => last,
            _ if at > records => first + at - 1,
            _ => first + at,
        };
        let edges = modules.edges.into_iter().map(|edge| Edge { from: place(edge.from), to: place(edge.to), ..edge });
        self.edges.extend(edges);
        self.add_part(&format!("batches of up to {}", human::rows(batch.rows.get())), modules.boxes.into_iter());
    }

    /// Another graph, behind this one.
    fn append(&mut self, other: Graph) {
        let (boxes, groups) = (self.boxes.len(), self.groups.len());
        self.boxes.extend(other.boxes.into_iter().map(|one| ModuleBox { group: one.group + groups, ..one }));
        self.groups.extend(other.groups.into_iter().map(|group| Group {
            boxes: group.boxes.iter().map(|at| at + boxes).collect(),
            after: if group.after.is_empty() {
                vec![groups - 1]
            } else {
                group.after.iter().map(|at| at + groups).collect()
            },
            ..group
        }));
        let edges = other.edges.into_iter();
        self.edges.extend(edges.map(|edge| Edge { from: edge.from + boxes, to: edge.to + boxes, ..edge }));
    }
}

impl ModuleBox {
    fn of_module(module: &Module) -> ModuleBox {
        ModuleBox::named(&module.id, module.entry.kind, module.module.as_str())
    }
}

/// `by key, 1,000 at a time`.
fn how_many(parallel: &Parallel) -> String {
    let order = match parallel.ordering {
        Ordering::Key => "by key",
        Ordering::Partition => "by partition",
        Ordering::Unordered => "in no order",
    };
    format!("{order}, {} at a time", human::grouped(parallel.max_in_flight.get() as u64))
}
