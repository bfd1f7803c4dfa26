//! Loops: which sub flows each of them holds.
//!
//! A loop stands where its ITERATE edge stood: control enters it from the sub flow that has the items, and it has ended
//! when all items have. What the edge led to, and all that is reached from there, runs within. So nothing can leave, and
//! control may not enter: that is checked here. Data may, out of a checkpoint: it is there before the loop begins.

use std::collections::BTreeSet;

/// An ITERATE edge between two groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loop {
    /// Which edge it is.
    pub(super) edge: usize,
    pub(super) from: usize,
    pub(super) to: usize,
}

/// An edge that enters a loop from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Intruder {
    /// Which edge.
    pub(super) edge: usize,
    /// The loop, by its place.
    pub(super) into: usize,
}

/// Who runs in which loop.
#[derive(Debug)]
pub(super) struct Scopes {
    /// For each group the innermost loop, by its place.
    pub(super) of_groups: Vec<Option<usize>>,
    /// The same of each loop.
    pub(super) of_loops: Vec<Option<usize>>,
}

/// Finds the scopes of `loops` among `count` groups. `edges` are all control edges, as (from, to) by group; those that
/// `bring_data` may enter.
///
/// # Errors
/// All edges that enter a loop from outside.
pub(super) fn find(
    count: usize,
    edges: &[(usize, usize)],
    loops: &[Loop],
    bring_data: impl Fn(usize) -> bool,
) -> Result<Scopes, Vec<Intruder>> {
    let mut leaving = vec![Vec::new(); count];
    edges.iter().for_each(|(from, to)| leaving[*from].push(*to));
    let bodies: Vec<BTreeSet<usize>> = loops.iter().map(|one| reached(one.to, &leaving)).collect();
    let mut intruders = Vec::new();
    for (into, body) in bodies.iter().enumerate() {
        let enters = |(_, (from, to)): &(usize, &(usize, usize))| body.contains(to) && !body.contains(from);
        let strangers = edges.iter().enumerate().filter(enters).map(|(edge, _)| edge);
        let strangers = strangers.filter(|edge| *edge != loops[into].edge && !bring_data(*edge));
        intruders.extend(strangers.map(|edge| Intruder { edge, into }));
    }
    if !intruders.is_empty() {
        return Err(intruders);
    }
    // What a loop has kept is one thing per item: nobody outside it reads it.
    for (edge, (from, to)) in edges.iter().enumerate().filter(|(edge, _)| bring_data(*edge)) {
        let left = (0..loops.len()).find(|at| bodies[*at].contains(from) && !bodies[*at].contains(to));
        let strange = (0..loops.len()).find(|at| {
            bodies[*at].contains(to)
                && !bodies[*at].contains(from)
                && bodies.iter().any(|body| {
                    body.contains(from)
                        && body.contains(to)
                        && !body.is_superset(&bodies[*at])
                        && !bodies[*at].is_superset(body)
                })
        });
        intruders.extend(left.or(strange).map(|into| Intruder { edge, into }));
    }
    if !intruders.is_empty() {
        return Err(intruders);
    }
    // Bodies are nested or apart, so the smallest is the innermost.
    let innermost =
        |group: usize| (0..loops.len()).filter(|at| bodies[*at].contains(&group)).min_by_key(|at| bodies[*at].len());
    Ok(Scopes {
        of_groups: (0..count).map(innermost).collect(),
        of_loops: loops.iter().map(|one| innermost(one.from)).collect(),
    })
}

impl Scopes {
    /// The loop that an edge enters to come from one group to another, the outermost; `None` if it enters none.
    pub(super) fn entered(&self, from: usize, to: usize) -> Option<usize> {
        let around = |group: usize| std::iter::successors(self.of_groups[group], |at| self.of_loops[*at]);
        around(to).filter(|at| around(from).all(|other| other != *at)).last()
    }
}

fn reached(from: usize, leaving: &[Vec<usize>]) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(group) = open.pop() {
        if reached.insert(group) {
            open.extend(&leaving[group]);
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_nest_and_what_follows_hangs_outside() {
        // 0 =iterate=> 1 =iterate=> 2 -> 3, 1 -> 4, 0 -> 5.
        let edges = [(0, 1), (1, 2), (2, 3), (1, 4), (0, 5)];
        let loops = [Loop { edge: 0, from: 0, to: 1 }, Loop { edge: 1, from: 1, to: 2 }];
        let scopes = find(6, &edges, &loops, |_| false).expect("nothing enters from outside");
        assert_eq!([scopes.entered(0, 5), scopes.entered(1, 2), scopes.entered(0, 3)], [None, Some(1), Some(0)]);
        assert_eq!(scopes.of_groups, [None, Some(0), Some(1), Some(1), Some(0), None]);
        assert_eq!(scopes.of_loops, [None, Some(0)]);
    }

    #[test]
    fn whatever_enters_a_loop_but_by_its_edge_is_named() {
        // 0 =iterate=> 1 -> 3 <- 2.
        let loops = [Loop { edge: 0, from: 0, to: 1 }];
        let edges = [(0, 1), (1, 3), (2, 3)];
        let found = find(4, &edges, &loops, |_| false).map(|_| ());
        assert_eq!(found, Err(vec![Intruder { edge: 2, into: 0 }]));
        assert!(find(4, &edges, &loops, |edge| edge == 2).is_ok());
        let twice = [Loop { edge: 0, from: 0, to: 1 }, Loop { edge: 1, from: 0, to: 1 }];
        assert!(find(2, &[(0, 1), (0, 1)], &twice, |_| false).is_err());
    }
}
