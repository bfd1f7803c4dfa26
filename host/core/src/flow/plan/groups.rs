//! Modules that data edges join, and the edges that checkpoints cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::topology::Topology;

/// Sub flows before they have numbers: groups of modules.
#[derive(Debug)]
pub(super) struct Groups {
    /// For each module its group.
    pub(super) of: Vec<usize>,
    /// For each group its modules, in their order.
    pub(super) members: Vec<Vec<usize>>,
    /// The pairs of groups that cut data edges join.
    pub(super) cuts: BTreeSet<(usize, usize)>,
}

/// A data edge that leads round a checkpoint, so that it cuts nothing off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bypass {
    /// Whose output is kept.
    pub(super) checkpoint: usize,
    /// The edge, by its place.
    pub(super) edge: usize,
}

impl Groups {
    /// Groups `count` modules by the data edges that no checkpoint cuts.
    ///
    /// # Errors
    /// For each cut edge whose ends stay together, an edge by which they do.
    pub(super) fn new(
        count: usize,
        edges: &[(usize, usize)],
        is_cut: impl Fn(usize) -> bool,
    ) -> Result<Self, Vec<Bypass>> {
        let whole: Vec<(usize, (usize, usize))> =
            edges.iter().copied().enumerate().filter(|(_, (from, _))| !is_cut(*from)).collect();
        let component = Topology::new(count, whole.iter().map(|(_, ends)| *ends)).components();
        let firsts: Vec<usize> = component.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        let of: Vec<usize> = component.iter().map(|first| firsts.partition_point(|one| one < first)).collect();
        let mut members = vec![Vec::new(); firsts.len()];
        of.iter().enumerate().for_each(|(module, group)| members[*group].push(module));

        let mut cuts = BTreeSet::new();
        let mut bypasses = Vec::new();
        for (from, to) in edges.iter().copied().filter(|(from, _)| is_cut(*from)) {
            if of[from] == of[to] {
                bypasses.extend(way(from, to, &whole).map(|edge| Bypass { checkpoint: from, edge }));
            }
            cuts.insert((of[from], of[to]));
        }
        match bypasses.is_empty() {
            true => Ok(Groups { of, members, cuts }),
            false => Err(bypasses),
        }
    }
}

/// The last edge of a shortest way between two modules, whichever way the edges point.
fn way(from: usize, to: usize, edges: &[(usize, (usize, usize))]) -> Option<usize> {
    let mut beside: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
    for (edge, (one, other)) in edges {
        beside.entry(*one).or_default().push((*edge, *other));
        beside.entry(*other).or_default().push((*edge, *one));
    }
    let mut seen = BTreeSet::from([from]);
    let mut open = VecDeque::from([from]);
    while let Some(module) = open.pop_front() {
        for (edge, next) in beside.get(&module).into_iter().flatten() {
            if *next == to {
                return Some(*edge);
            }
            if seen.insert(*next) {
                open.push_back(*next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_cuts_a_sub_flow_in_two() {
        // 0 -> 1 (kept) -> 2, 1 -> 3, 2 -> 4 <- 3.
        let edges = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4)];
        let groups = Groups::new(5, &edges, |from| from == 1).expect("nothing leads round it");
        assert_eq!(groups.members, [vec![0, 1], vec![2, 3, 4]]);
        assert_eq!(groups.cuts, BTreeSet::from([(0, 1)]));
    }

    #[test]
    fn an_edge_that_leads_round_a_checkpoint_is_named() {
        // 0 -> 1 (kept) -> 2 <- 0.
        let bypass = Groups::new(3, &[(0, 1), (1, 2), (0, 2)], |from| from == 1).err();
        assert_eq!(bypass, Some(vec![Bypass { checkpoint: 1, edge: 2 }]));
    }
}
