//! Graph questions, by index: what hangs together, what comes first, what goes in a circle.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use petgraph::algo::{has_path_connecting, tarjan_scc};
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::unionfind::UnionFind;

/// `count` things and the arrows between them.
pub(super) struct Topology {
    graph: DiGraph<(), (), usize>,
}

impl Topology {
    pub(super) fn new(count: usize, edges: impl IntoIterator<Item = (usize, usize)>) -> Self {
        let mut graph = DiGraph::default();
        for _ in 0..count {
            graph.add_node(());
        }
        for (from, to) in edges {
            graph.add_edge(NodeIndex::new(from), NodeIndex::new(to), ());
        }
        Topology { graph }
    }

    /// Each after those with an arrow to it, otherwise by index.
    ///
    /// # Errors
    /// A circle, from its lowest index on.
    pub(super) fn sort(&self) -> Result<Vec<usize>, Vec<usize>> {
        let mut waits: Vec<usize> = self.indices().map(|index| self.before(index).count()).collect();
        let mut ready: BinaryHeap<Reverse<usize>> =
            self.indices().filter(|index| waits[*index] == 0).map(Reverse).collect();
        let mut sorted = Vec::with_capacity(waits.len());
        while let Some(Reverse(index)) = ready.pop() {
            sorted.push(index);
            for next in self.behind(index) {
                waits[next] -= 1;
                if waits[next] == 0 {
                    ready.push(Reverse(next));
                }
            }
        }
        if sorted.len() == waits.len() { Ok(sorted) } else { Err(self.circle()) }
    }

    /// For each the lowest index that it hangs together with, whichever way the arrows point.
    pub(super) fn components(&self) -> Vec<usize> {
        let mut sets = UnionFind::<usize>::new(self.graph.node_count());
        for edge in self.graph.raw_edges() {
            sets.union(edge.source().index(), edge.target().index());
        }
        let labels = sets.into_labeling();
        let mut lowest = vec![usize::MAX; labels.len()];
        for (index, label) in labels.iter().enumerate() {
            lowest[*label] = lowest[*label].min(index);
        }
        labels.into_iter().map(|label| lowest[label]).collect()
    }

    pub(super) fn leads_to(&self, from: usize, to: usize) -> bool {
        has_path_connecting(&self.graph, NodeIndex::new(from), NodeIndex::new(to), None)
    }

    fn circle(&self) -> Vec<usize> {
        let knots = tarjan_scc(&self.graph).into_iter().map(|knot| {
            let mut knot: Vec<usize> = knot.into_iter().map(NodeIndex::index).collect();
            knot.sort_unstable();
            knot
        });
        let knot = knots
            .filter(|knot| knot.len() > 1 || self.behind(knot[0]).any(|next| next == knot[0]))
            .min()
            .unwrap_or_default();
        self.walk_round(&knot)
    }

    /// The shortest way from the first of a knot back to it.
    fn walk_round(&self, knot: &[usize]) -> Vec<usize> {
        let Some(&start) = knot.first() else { return Vec::new() };
        let mut ways = std::collections::VecDeque::from([vec![start]]);
        let mut seen = std::collections::BTreeSet::new();
        while let Some(way) = ways.pop_front() {
            let last = way.last().copied().unwrap_or(start);
            for next in self.behind(last).filter(|next| knot.contains(next)) {
                if next == start {
                    return way;
                }
                if seen.insert(next) {
                    ways.push_back([way.as_slice(), &[next]].concat());
                }
            }
        }
        knot.to_vec()
    }

    fn indices(&self) -> std::ops::Range<usize> {
        0..self.graph.node_count()
    }

    fn behind(&self, index: usize) -> impl Iterator<Item = usize> {
        self.graph.neighbors(NodeIndex::new(index)).map(NodeIndex::index)
    }

    fn before(&self, index: usize) -> impl Iterator<Item = usize> {
        let incoming = petgraph::Direction::Incoming;
        self.graph.neighbors_directed(NodeIndex::new(index), incoming).map(NodeIndex::index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_the_document_where_it_may_be() {
        let graph = Topology::new(4, [(3, 0), (0, 2)]);
        assert_eq!(graph.sort(), Ok(vec![1, 3, 0, 2]));
        assert_eq!(graph.components(), [0, 1, 0, 0]);
        assert!(graph.leads_to(3, 2));
        assert!(!graph.leads_to(2, 3));
    }

    #[test]
    fn a_circle_is_named_from_its_first() {
        let graph = Topology::new(5, [(0, 2), (2, 1), (1, 2), (2, 3), (3, 1), (3, 4)]);
        assert_eq!(graph.sort(), Err(vec![1, 2]));
        assert_eq!(Topology::new(1, [(0, 0)]).sort(), Err(vec![0]));
    }
}
