//! The first step: everything gets a layer, as high up as what is above it allows.
//!
//! Of edges that go in a circle one at least has to go upwards: those do which lead back to what a walk in depth is
//! still at.

use super::layered::Role;

/// One vertex stands above another, by so many layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Constraint {
    pub(super) above: usize,
    pub(super) below: usize,
    pub(super) layers: usize,
}

/// The layer of every vertex. Lines come in above all boxes and go out below them.
pub(super) fn ranks(roles: &[Role], constraints: &[Constraint]) -> Vec<usize> {
    let order = Walk::of(roles.len(), constraints);
    let constraints: Vec<Constraint> = constraints.iter().map(|one| order.downwards(*one)).collect();
    let mut below = vec![Vec::new(); roles.len()];
    for constraint in &constraints {
        below[constraint.above].push((constraint.below, constraint.layers));
    }
    let first = usize::from(roles.contains(&Role::Entry));
    let mut ranks: Vec<usize> = roles.iter().map(|role| if *role == Role::Entry { 0 } else { first }).collect();
    for vertex in &order.sorted {
        for (other, layers) in &below[*vertex] {
            ranks[*other] = ranks[*other].max(ranks[*vertex] + layers);
        }
    }
    pull_down(&mut ranks, roles, &constraints, &below, &order);
    let others = roles.iter().zip(&ranks).filter(|(role, _)| **role != Role::Exit);
    let bottom = others.map(|(_, rank)| *rank + 1).max().unwrap_or_default();
    let exits = roles.iter().zip(&mut ranks).filter(|(role, _)| **role == Role::Exit);
    exits.for_each(|(_, rank)| *rank = bottom);
    ranks
}

/// What has nothing above it stands right over what is below it.
fn pull_down(
    ranks: &mut [usize],
    roles: &[Role],
    constraints: &[Constraint],
    below: &[Vec<(usize, usize)>],
    order: &Walk,
) {
    let mut is_below = vec![false; roles.len()];
    constraints.iter().for_each(|one| is_below[one.below] = true);
    for vertex in order.sorted.iter().rev() {
        let is_box = matches!(roles[*vertex], Role::Box | Role::Frame);
        // An exit has its layer only later, and none but boxes are above it.
        let others = below[*vertex].iter().filter(|(other, _)| roles[*other] != Role::Exit);
        let room = others.map(|(other, layers)| ranks[*other].saturating_sub(*layers)).min();
        if let Some(room) = room.filter(|_| is_box && !is_below[*vertex]) {
            ranks[*vertex] = room.max(ranks[*vertex]);
        }
    }
}

/// A walk in depth over all vertices, and the order in which it left them, the last first.
struct Walk {
    sorted: Vec<usize>,
    place: Vec<usize>,
}

impl Walk {
    fn of(vertices: usize, constraints: &[Constraint]) -> Walk {
        let mut below = vec![Vec::new(); vertices];
        constraints.iter().for_each(|one| below[one.above].push(one.below));
        let mut seen = vec![false; vertices];
        let mut left = Vec::with_capacity(vertices);
        // The later ones first, so that the result, which is turned round, keeps the order of the document.
        for start in (0..vertices).rev() {
            let mut path = vec![(start, 0)];
            if std::mem::replace(&mut seen[start], true) {
                continue;
            }
            while let Some((vertex, next)) = path.last_mut() {
                match below[*vertex].get(*next) {
                    Some(other) => {
                        *next += 1;
                        if !std::mem::replace(&mut seen[*other], true) {
                            path.push((*other, 0));
                        }
                    }
                    None => {
                        left.push(*vertex);
                        path.pop();
                    }
                }
            }
        }
        left.reverse();
        let mut place = vec![0; vertices];
        left.iter().enumerate().for_each(|(at, vertex)| place[*vertex] = at);
        Walk { sorted: left, place }
    }

    /// The same the other way round, if it goes against the walk.
    fn downwards(&self, one: Constraint) -> Constraint {
        if self.place[one.above] < self.place[one.below] {
            return one;
        }
        Constraint { above: one.below, below: one.above, layers: one.layers }
    }
}
