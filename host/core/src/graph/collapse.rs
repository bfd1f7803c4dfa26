//! A picture of a very large plan: sub flows instead of modules.

use std::collections::HashMap;

use super::{Edge, EdgeKind, Graph, Group, GroupKind, ModuleBox};
use crate::human;
use crate::run::history::Volume;

/// So many modules can still be told apart.
const MODULES: usize = 400;

impl Graph {
    /// The same, or, if it has too many modules, one with a box for each sub flow.
    pub(super) fn legible(&self) -> Graph {
        if self.boxes.len() <= MODULES { self.clone() } else { self.collapsed() }
    }

    fn collapsed(&self) -> Graph {
        let mut groups = self.groups.clone();
        let mut boxes = Vec::new();
        for (place, group) in groups.iter_mut().enumerate().filter(|(_, group)| group.kind != GroupKind::Loop) {
            let whole = self.whole(group, place);
            group.boxes = vec![boxes.len()];
            boxes.push(whole);
        }
        let place = |of: usize| groups[self.boxes[of].group].boxes[0];
        let mut joined: Vec<Edge> = Vec::new();
        let mut known: HashMap<(usize, usize, EdgeKind), usize> = HashMap::new();
        for edge in &self.edges {
            let (from, to) = (place(edge.from), place(edge.to));
            if from == to {
                continue;
            }
            match known.get(&(from, to, edge.kind)) {
                Some(at) => joined[*at].join(edge),
                None => {
                    known.insert((from, to, edge.kind), joined.len());
                    joined.push(Edge { from, to, ..edge.clone() });
                }
            }
        }
        Graph { title: self.title.clone(), groups, boxes, edges: joined }
    }

    fn whole(&self, group: &Group, place: usize) -> ModuleBox {
        ModuleBox {
            name: group.name.clone(),
            about: human::counted(group.boxes.len() as u64, "module"),
            anchor: format!("sub-flow-{place}"),
            group: place,
            standing: group.standing.clone(),
        }
    }
}

impl Edge {
    fn join(&mut self, other: &Edge) {
        if !self.label.split(", ").any(|label| label == other.label) {
            self.label = format!("{}, {}", self.label, other.label);
        }
        self.volume = match (self.volume, other.volume) {
            (Some(one), Some(more)) => Some(Volume::and(one, more)),
            (known, None) | (None, known) => known,
        };
    }
}
