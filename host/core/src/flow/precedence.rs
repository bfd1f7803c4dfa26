//! What has to end before what may start.
//!
//! Control edges and their orders become plain "starts after the end of" here, once, when a plan is made; the scheduler
//! and the check of globals then need to know no orders at all.
//!
//! The rules (design, "Valve"):
//! 1. A sub flow starts after every sub flow that an edge brings it from.
//! 2. The orders of the edges that leave one sub flow ascend. An order has finished when every sub flow that its edges
//!    dominate has ended: those that cannot be reached but through them. What a `start` edge leads to is not waited for.
//! 3. A merge belongs to the sub flow where its paths part: it starts after the last order that leads to it has
//!    finished, and ends before any higher one begins.
//!
//! Waiting is transitive: a sub flow ends, in whichever state, only after all that it waits for. So of what has to be
//! waited for only the last are named, and a chain of ten thousand sub flows costs ten thousand names.

use std::collections::{BTreeMap, BTreeSet};

/// A control edge between two sub flows, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) order: u32,
    /// Nobody waits for what it leads to.
    pub(crate) starts: bool,
}

/// For each of `count` sub flows the last of those that must have ended before it starts. `edges` form no cycle.
pub(crate) fn starts_after(count: usize, edges: &[Edge]) -> Vec<BTreeSet<usize>> {
    let graph = Graph::new(count, edges);
    let mut after = vec![BTreeSet::new(); count];
    for edge in edges {
        after[edge.to].insert(edge.from);
    }
    for (source, orders) in graph.with_several_orders() {
        let domain = graph.domain(source);
        barriers(&graph, &orders, &domain, &mut after);
        merges(&graph, &domain, &mut after);
    }
    after
}

/// All that must have ended when `reader` starts, given what each waits for directly.
pub(crate) fn all_before(reader: usize, after: impl Fn(usize) -> Vec<usize>) -> BTreeSet<usize> {
    let mut ended = BTreeSet::new();
    let mut open = after(reader);
    while let Some(index) = open.pop() {
        if ended.insert(index) {
            open.extend(after(index));
        }
    }
    ended
}

/// Rule 2. Whatever an order starts waits for the last of what the lower orders dominate.
fn barriers(graph: &Graph<'_>, orders: &Orders, domain: &Domain, after: &mut [BTreeSet<usize>]) {
    let mut lower: BTreeSet<usize> = BTreeSet::new();
    let by_order = domain.by_order(|place| Some(place.highest));
    for (order, targets) in orders {
        for target in targets {
            after[*target].extend(&lower);
        }
        let Some(ends_with) = by_order.get(order) else { continue };
        // A target of this order has waited for the lower ones itself.
        if targets.iter().any(|target| ends_with.contains(target)) {
            lower.clear();
        }
        lower.extend(graph.last_of(ends_with));
    }
}

/// Rule 3, its first half; the second follows from rule 2.
fn merges(graph: &Graph<'_>, domain: &Domain, after: &mut [BTreeSet<usize>]) {
    let by_order = domain.by_order(|place| (place.lowest == place.highest).then_some(place.highest));
    let last: BTreeMap<u32, Vec<usize>> =
        by_order.iter().map(|(order, branch)| (*order, graph.last_of(branch))).collect();
    for (index, merge) in domain.0.iter().filter(|(_, place)| place.lowest < place.highest) {
        after[*index].extend(last.get(&merge.highest).into_iter().flatten());
    }
}

/// The targets of the edges that leave one sub flow, by order.
type Orders = BTreeMap<u32, Vec<usize>>;

/// The sub flows that one of them dominates: no root reaches them but through it.
struct Domain(BTreeMap<usize, Place>);

/// How a sub flow is reached from the one that dominates it.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The lowest order among the first edges of the ways to it.
    lowest: u32,
    /// The highest.
    highest: u32,
    /// Whether every way to it goes through a `start` edge.
    started: bool,
}

impl Domain {
    /// Those that are waited for, by the order that `of` names for them.
    fn by_order(&self, of: impl Fn(&Place) -> Option<u32>) -> BTreeMap<u32, BTreeSet<usize>> {
        let mut by_order: BTreeMap<u32, BTreeSet<usize>> = BTreeMap::new();
        for (index, place) in self.0.iter().filter(|(_, place)| !place.started) {
            if let Some(order) = of(place) {
                by_order.entry(order).or_default().insert(*index);
            }
        }
        by_order
    }
}

struct Graph<'a> {
    leaving: Vec<Vec<&'a Edge>>,
    entering: Vec<Vec<&'a Edge>>,
    /// Where each stands in a topological order.
    position: Vec<usize>,
    /// Which ones each dominates with no other between.
    dominates: Vec<Vec<usize>>,
}

impl<'a> Graph<'a> {
    fn new(count: usize, edges: &'a [Edge]) -> Self {
        let mut leaving = vec![Vec::new(); count];
        let mut entering = vec![Vec::new(); count];
        for edge in edges {
            leaving[edge.from].push(edge);
            entering[edge.to].push(edge);
        }
        let sorted = sorted(&leaving, &entering);
        let mut position = vec![0; count];
        sorted.iter().enumerate().for_each(|(place, index)| position[*index] = place);
        let dominates = dominators(&sorted, &entering, &position);
        Graph { leaving, entering, position, dominates }
    }

    fn with_several_orders(&self) -> impl Iterator<Item = (usize, Orders)> {
        let orders = self.leaving.iter().map(|edges| {
            let mut orders = Orders::new();
            edges.iter().for_each(|edge| orders.entry(edge.order).or_default().push(edge.to));
            orders
        });
        orders.enumerate().filter(|(_, orders)| orders.len() > 1)
    }

    fn domain(&self, source: usize) -> Domain {
        let mut members = Vec::new();
        let mut open = self.dominates[source].clone();
        while let Some(index) = open.pop() {
            members.push(index);
            open.extend(&self.dominates[index]);
        }
        members.sort_by_key(|index| self.position[*index]);
        let mut domain = Domain(BTreeMap::new());
        for index in members {
            let ways = self.entering[index].iter().map(|edge| match edge.from == source {
                true => Place { lowest: edge.order, highest: edge.order, started: edge.starts },
                false => {
                    let before = domain.0[&edge.from];
                    Place { started: before.started || edge.starts, ..before }
                }
            });
            let place = ways.reduce(Place::or).expect("what is dominated is reached");
            domain.0.insert(index, place);
        }
        domain
    }

    /// Those of `set` with no edge to another of it.
    fn last_of(&self, set: &BTreeSet<usize>) -> Vec<usize> {
        let leads_on = |index: &usize| self.leaving[*index].iter().any(|edge| set.contains(&edge.to));
        set.iter().copied().filter(|index| !leads_on(index)).collect()
    }
}

impl Place {
    fn or(self, other: Place) -> Place {
        Place {
            lowest: self.lowest.min(other.lowest),
            highest: self.highest.max(other.highest),
            started: self.started && other.started,
        }
    }
}

fn sorted(leaving: &[Vec<&Edge>], entering: &[Vec<&Edge>]) -> Vec<usize> {
    let mut waits: Vec<usize> = entering.iter().map(Vec::len).collect();
    let mut sorted: Vec<usize> = (0..waits.len()).filter(|index| waits[*index] == 0).collect();
    let mut next = 0;
    while let Some(index) = sorted.get(next).copied() {
        next += 1;
        for edge in &leaving[index] {
            waits[edge.to] -= 1;
            if waits[edge.to] == 0 {
                sorted.push(edge.to);
            }
        }
    }
    sorted
}

/// The dominator tree, downwards (Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm"); without cycles one pass
/// in topological order does.
fn dominators(sorted: &[usize], entering: &[Vec<&Edge>], position: &[usize]) -> Vec<Vec<usize>> {
    let mut above: Vec<Option<usize>> = vec![None; sorted.len()];
    let mut dominates = vec![Vec::new(); sorted.len()];
    for index in sorted {
        let mut from = entering[*index].iter().map(|edge| Some(edge.from));
        let Some(first) = from.next() else { continue };
        above[*index] = from.fold(first, |one, other| common(one, other, &above, position));
        if let Some(dominator) = above[*index] {
            dominates[dominator].push(*index);
        }
    }
    dominates
}

/// The nearest that dominates both; none where only the run itself does.
fn common(
    mut one: Option<usize>,
    mut other: Option<usize>,
    above: &[Option<usize>],
    position: &[usize],
) -> Option<usize> {
    while let (Some(left), Some(right)) = (one, other) {
        if left == right {
            return one;
        }
        if position[left] > position[right] {
            one = above[left];
        } else {
            other = above[right];
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Edges are `(from, to, order)`.
    #[track_caller]
    fn check(edges: &[(usize, usize, u32)], expect: &[&[usize]]) {
        let edges: Vec<Edge> = edges.iter().map(|&(from, to, order)| Edge { from, to, order, starts: false }).collect();
        check_edges(&edges, expect);
    }

    #[track_caller]
    fn check_edges(edges: &[Edge], expect: &[&[usize]]) {
        let after: Vec<Vec<usize>> =
            starts_after(expect.len(), edges).into_iter().map(|set| set.into_iter().collect()).collect();
        assert_eq!(after, expect);
    }

    #[test]
    fn a_higher_order_waits_for_the_last_that_the_lower_dominates() {
        // 0 -1-> 1 -> 2, and 0 -2-> 3.
        check(&[(0, 1, 1), (1, 2, 1), (0, 3, 2)], &[&[], &[0], &[1], &[0, 2]]);
    }

    #[test]
    fn equal_orders_run_in_parallel_and_are_a_barrier_together() {
        check(&[(0, 1, 1), (0, 2, 1), (0, 3, 2)], &[&[], &[0], &[0], &[0, 1, 2]]);
    }

    #[test]
    fn an_order_that_dominates_nothing_lets_the_next_wait_for_the_one_before() {
        // 0 -1-> 1, 0 -2-> 2 <- 4, 0 -3-> 3: 2 can be reached without 0.
        check(&[(0, 1, 1), (0, 2, 2), (4, 2, 1), (0, 3, 3)], &[&[], &[0], &[0, 1, 4], &[0, 1], &[]]);
    }

    #[test]
    fn a_merge_runs_after_the_last_order_that_leads_to_it_and_before_a_higher_one() {
        // 0 -1-> 1 -> 4, 0 -2-> 2 -> 4, 0 -2-> 3, and 0 -3-> 5.
        check(
            &[(0, 1, 1), (0, 2, 2), (0, 3, 2), (1, 4, 1), (2, 4, 1), (0, 5, 3)],
            &[&[], &[0], &[0, 1], &[0, 1], &[1, 2, 3], &[0, 3, 4]],
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

    #[test]
    fn what_a_start_edge_leads_to_is_not_waited_for() {
        // 0 =1=> 1 -> 2, 0 -1-> 3, and 0 -2-> 4.
        let edge = |from, to, order, starts| Edge { from, to, order, starts };
        check_edges(
            &[edge(0, 1, 1, true), edge(1, 2, 1, false), edge(0, 3, 1, false), edge(0, 4, 2, false)],
            &[&[], &[0], &[1], &[0], &[0, 3]],
        );
    }

    #[test]
    fn ten_thousand_in_a_row_and_ten_thousand_orders_are_no_matter() {
        let chain: Vec<Edge> = (1..10_000).map(|to| Edge { from: to - 1, to, order: 1, starts: false }).collect();
        assert!(starts_after(10_000, &chain).iter().all(|before| before.len() <= 1));
        let star: Vec<Edge> =
            (1..10_000_u32).map(|order| Edge { from: 0, to: order as usize, order, starts: false }).collect();
        assert!(starts_after(10_000, &star).iter().all(|before| before.len() <= 2));
    }
}
