//! The third step: how far from the left, so that lines run upright where they can.
//!
//! Every vertex wants to stand where its lines are upright, on the mean. A layer as a whole is then put where the squares of
//! what each is off are least, with the order and the distances kept: a regression that only rises, solved by pooling
//! neighbours (R. Barlow and others, *Statistical Inference under Order Restrictions*, 1972). That long lines weigh more is from
//! E. Gansner, E. Koutsofios, S. North and K. Vo, *A technique for drawing directed graphs* (1993).

use super::layered::{Arc, Role, Vertex};

const ROUNDS: usize = 16;
/// Between two boxes, and beside a line.
const BOXES_APART: f64 = 28.0;
const LINES_APART: f64 = 12.0;
/// What a line weighs between two boxes, a box and a bend, two bends.
const WEIGHTS: [f64; 3] = [1.0, 2.0, 8.0];
/// What it weighs to stay where one is.
const AT_REST: f64 = 0.1;

/// Sets the `x` of all vertices; the leftmost begins at 0.
pub(super) fn across(vertices: &mut [Vertex], layers: &[Vec<usize>], arcs: &[Arc]) {
    for layer in layers {
        let wishes: Vec<Wish> = layer.iter().map(|_| Wish { x: 0.0, weight: 1.0 }).collect();
        settle(vertices, layer, &wishes);
    }
    let hanging = Hanging::new(vertices.len(), arcs);
    for round in 0..ROUNDS {
        for layer in layers {
            let wishes: Vec<Wish> = layer.iter().map(|vertex| hanging.wish(vertices, *vertex, [true, false])).collect();
            settle(vertices, layer, &wishes);
        }
        let both = round + 1 == ROUNDS;
        for layer in layers.iter().rev() {
            let wishes: Vec<Wish> = layer.iter().map(|vertex| hanging.wish(vertices, *vertex, [both, true])).collect();
            settle(vertices, layer, &wishes);
        }
    }
    let left = vertices.iter().map(|vertex| vertex.x - vertex.size.width / 2.0).fold(f64::INFINITY, f64::min);
    vertices.iter_mut().for_each(|vertex| vertex.x -= left);
}

/// Where a vertex wants to stand, and how much.
#[derive(Debug, Clone, Copy)]
struct Wish {
    x: f64,
    weight: f64,
}

struct Hanging<'a> {
    arcs: &'a [Arc],
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
}

impl<'a> Hanging<'a> {
    fn new(vertices: usize, arcs: &'a [Arc]) -> Self {
        let mut above = vec![Vec::new(); vertices];
        let mut below = above.clone();
        for (at, arc) in arcs.iter().enumerate() {
            above[arc.to].push(at);
            below[arc.from].push(at);
        }
        Hanging { arcs, above, below }
    }

    /// From what is above, from what is below, or from both.
    fn wish(&self, vertices: &[Vertex], vertex: usize, [from_above, from_below]: [bool; 2]) -> Wish {
        let upper = self.above[vertex].iter().filter(|_| from_above).map(|arc| {
            let arc = self.arcs[*arc];
            (vertices[arc.from].x + arc.from_shift - arc.to_shift, weight(vertices, arc))
        });
        let lower = self.below[vertex].iter().filter(|_| from_below).map(|arc| {
            let arc = self.arcs[*arc];
            (vertices[arc.to].x + arc.to_shift - arc.from_shift, weight(vertices, arc))
        });
        let all = upper.chain(lower);
        let (sum, weight) = all.fold((0.0, 0.0), |(sum, all), (x, weight)| (sum + x * weight, all + weight));
        if weight == 0.0 {
            return Wish { x: vertices[vertex].x, weight: AT_REST };
        }
        Wish { x: sum / weight, weight }
    }
}

fn weight(vertices: &[Vertex], arc: Arc) -> f64 {
    let bends = [arc.from, arc.to].iter().filter(|end| vertices[**end].role == Role::Bend).count();
    WEIGHTS[bends]
}

/// Neighbours that are as close as they may be, and move as one.
struct Pool {
    first: usize,
    sum: f64,
    weight: f64,
}

impl Pool {
    fn mean(&self) -> f64 {
        self.sum / self.weight
    }
}

fn settle(vertices: &mut [Vertex], layer: &[usize], wishes: &[Wish]) {
    let mut pools: Vec<Pool> = Vec::with_capacity(layer.len());
    let mut offsets = Vec::with_capacity(layer.len());
    let mut offset = 0.0;
    for (at, (vertex, wish)) in layer.iter().zip(wishes).enumerate() {
        if at > 0 {
            offset += distance(&vertices[layer[at - 1]], &vertices[*vertex]);
        }
        offsets.push(offset);
        let mut pool = Pool { first: at, sum: (wish.x - offset) * wish.weight, weight: wish.weight };
        while let Some(before) = pools.pop_if(|before| before.mean() >= pool.mean()) {
            pool = Pool { first: before.first, sum: before.sum + pool.sum, weight: before.weight + pool.weight };
        }
        pools.push(pool);
    }
    let ends = pools.iter().skip(1).map(|pool| pool.first).chain([layer.len()]);
    for (pool, end) in pools.iter().zip(ends) {
        for at in pool.first..end {
            vertices[layer[at]].x = pool.mean() + offsets[at];
        }
    }
}

fn distance(left: &Vertex, right: &Vertex) -> f64 {
    let is_line = |vertex: &Vertex| matches!(vertex.role, Role::Bend | Role::Entry | Role::Exit);
    let apart = if is_line(left) || is_line(right) { LINES_APART } else { BOXES_APART };
    (left.size.width + right.size.width) / 2.0 + apart
}
