//! What has to end before what may start.
//!
//! Control edges and their orders become plain "starts after the end of" here, once, when a plan is made; the scheduler
//! and the check of globals then need to know no orders at all.
//!
//! The rules (design, "Valve"):
//! 1. A sub flow starts after every sub flow that an edge brings it from.
//! 2. The orders of the edges that leave one sub flow ascend. An order has finished when every sub flow that its edges
//!    dominate has ended: those that cannot be reached but through them.
//! 3. A merge belongs to the sub flow where its paths part: it starts after the last order that leads to it has
//!    finished, and ends before any higher one begins.

use std::collections::{BTreeMap, BTreeSet};

/// A control edge between two sub flows, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) order: u32,
}

/// For each of `count` sub flows those that must have ended before it starts. `edges` form no cycle.
pub(crate) fn starts_after(count: usize, edges: &[Edge]) -> Vec<BTreeSet<usize>> {
    let graph = Graph { count, edges };
    let mut after = vec![BTreeSet::new(); count];
    for edge in edges {
        after[edge.to].insert(edge.from);
    }
    for leaving in graph.by_sub_flow().values() {
        barriers(&graph, leaving, &mut after);
        merges(&graph, leaving, &mut after);
    }
    after
}

/// The same, with what follows from it: all that has ended when a sub flow starts. Each sub flow has a higher index
/// than those it waits for.
pub(crate) fn closure(after: &[BTreeSet<usize>]) -> Vec<BTreeSet<usize>> {
    let mut all: Vec<BTreeSet<usize>> = Vec::with_capacity(after.len());
    for direct in after {
        let mut ended = direct.clone();
        direct.iter().for_each(|before| ended.extend(&all[*before]));
        all.push(ended);
    }
    all
}

/// Rule 2: what an order starts waits for all that the lower ones dominate together, the merges between them too.
fn barriers(graph: &Graph<'_>, leaving: &Orders, after: &mut [BTreeSet<usize>]) {
    let mut lower: Vec<Edge> = Vec::new();
    for edges in leaving.values() {
        let dominated = graph.dominated(&lower);
        for edge in edges {
            after[edge.to].extend(&dominated);
        }
        lower.extend(edges);
    }
}

/// Rule 3, its first half; the second follows from rule 2.
fn merges(graph: &Graph<'_>, leaving: &Orders, after: &mut [BTreeSet<usize>]) {
    let all: Vec<Edge> = leaving.values().flatten().copied().collect();
    let by_order: Vec<_> = leaving.values().map(|edges| (graph.dominated(edges), graph.reached(edges))).collect();
    for merge in graph.dominated(&all) {
        if by_order.iter().any(|(dominated, _)| dominated.contains(&merge)) {
            continue;
        }
        let last = by_order.iter().rev().find(|(_, reached)| reached.contains(&merge));
        if let Some((dominated, _)) = last {
            after[merge].extend(dominated);
        }
    }
}

/// The edges that leave one sub flow, by order.
type Orders = BTreeMap<u32, Vec<Edge>>;

struct Graph<'a> {
    count: usize,
    edges: &'a [Edge],
}

impl Graph<'_> {
    fn by_sub_flow(&self) -> BTreeMap<usize, Orders> {
        let mut leaving: BTreeMap<usize, Orders> = BTreeMap::new();
        for edge in self.edges {
            leaving.entry(edge.from).or_default().entry(edge.order).or_default().push(*edge);
        }
        leaving
    }

    /// The sub flows that no root reaches without one of `gates`.
    fn dominated(&self, gates: &[Edge]) -> BTreeSet<usize> {
        let roots = (0..self.count).filter(|index| self.edges.iter().all(|edge| edge.to != *index));
        let free = self.spread(roots.collect(), gates);
        (0..self.count).filter(|index| !free.contains(index)).collect()
    }

    /// The sub flows that `edges` lead to, directly or not.
    fn reached(&self, edges: &[Edge]) -> BTreeSet<usize> {
        self.spread(edges.iter().map(|edge| edge.to).collect(), &[])
    }

    fn spread(&self, from: Vec<usize>, without: &[Edge]) -> BTreeSet<usize> {
        let mut reached: BTreeSet<usize> = from.iter().copied().collect();
        let mut open = from;
        while let Some(index) = open.pop() {
            let leaving = self.edges.iter().filter(|edge| edge.from == index && !without.contains(edge));
            for edge in leaving {
                if reached.insert(edge.to) {
                    open.push(edge.to);
                }
            }
        }
        reached
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Edges are `(from, to, order)`.
    fn check(edges: &[(usize, usize, u32)], expect: &[&[usize]]) {
        let edges: Vec<Edge> = edges.iter().map(|&(from, to, order)| Edge { from, to, order }).collect();
        let after: Vec<Vec<usize>> =
            starts_after(expect.len(), &edges).into_iter().map(|set| set.into_iter().collect()).collect();
        assert_eq!(after, expect);
    }

    #[test]
    fn a_higher_order_waits_for_all_that_the_lower_dominates() {
        // 0 -1-> 1 -> 2, and 0 -2-> 3.
        check(&[(0, 1, 1), (1, 2, 1), (0, 3, 2)], &[&[], &[0], &[1], &[0, 1, 2]]);
    }

    #[test]
    fn equal_orders_run_in_parallel_and_are_a_barrier_together() {
        check(&[(0, 1, 1), (0, 2, 1), (0, 3, 2)], &[&[], &[0], &[0], &[0, 1, 2]]);
    }

    #[test]
    fn a_merge_runs_after_the_last_order_that_leads_to_it_and_before_a_higher_one() {
        // 0 -1-> 1 -> 4, 0 -2-> 2 -> 4, 0 -2-> 3, and 0 -3-> 5.
        check(
            &[(0, 1, 1), (0, 2, 2), (0, 3, 2), (1, 4, 1), (2, 4, 1), (0, 5, 3)],
            &[&[], &[0], &[0, 1], &[0, 1], &[1, 2, 3], &[0, 1, 2, 3, 4]],
        );
    }

    #[test]
    fn a_merge_of_roots_belongs_to_neither() {
        // 0 -1-> 2 <- 1, and 0 -2-> 3: 2 can be reached without order 1 of 0.
        check(&[(0, 2, 1), (1, 2, 1), (0, 3, 2)], &[&[], &[], &[0, 1], &[0]]);
    }

    #[test]
    fn a_branch_that_leads_into_a_lower_order_goes_first() {
        // 0 -1-> 1, 0 -2-> 2 -> 1.
        check(&[(0, 1, 1), (0, 2, 2), (2, 1, 1)], &[&[], &[0, 2], &[0]]);
    }
}
