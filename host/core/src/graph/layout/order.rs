//! The second step: who stands beside whom, so that few lines cross.
//!
//! Layer after layer is sorted by the mean place of what it hangs on, down and up again; of all orders met on the way, the
//! one with the fewest crossings stays.

use super::layered::{Arc, Vertex};

const SWEEPS: usize = 12;

/// The vertices of every layer, from the left.
pub(super) fn layers(vertices: &[Vertex], arcs: &[Arc]) -> Vec<Vec<usize>> {
    let count = vertices.iter().map(|vertex| vertex.layer + 1).max().unwrap_or_default();
    let mut sorting = Sorting::new(vertices, arcs, count);
    let (mut best, mut fewest) = (sorting.layers.clone(), sorting.crossings());
    for sweep in 0..SWEEPS {
        if fewest == 0 {
            break;
        }
        match sweep % 2 {
            0 => (1..count).for_each(|layer| sorting.sort(layer, Side::Above)),
            _ => (0..count.saturating_sub(1)).rev().for_each(|layer| sorting.sort(layer, Side::Below)),
        }
        let crossings = sorting.crossings();
        if crossings < fewest {
            (best, fewest) = (sorting.layers.clone(), crossings);
        }
    }
    best
}

#[derive(Clone, Copy)]
enum Side {
    Above,
    Below,
}

struct Sorting<'a> {
    vertices: &'a [Vertex],
    arcs: &'a [Arc],
    /// Of each vertex, the arcs that come from above, and those that go below.
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
    layers: Vec<Vec<usize>>,
    place: Vec<usize>,
}

impl<'a> Sorting<'a> {
    fn new(vertices: &'a [Vertex], arcs: &'a [Arc], count: usize) -> Self {
        let mut above = vec![Vec::new(); vertices.len()];
        let mut below = above.clone();
        for (at, arc) in arcs.iter().enumerate() {
            above[arc.to].push(at);
            below[arc.from].push(at);
        }
        let mut layers = vec![Vec::new(); count];
        for vertex in in_depth(vertices, arcs, &below) {
            layers[vertices[vertex].layer].push(vertex);
        }
        let mut sorting = Sorting { vertices, arcs, above, below, layers, place: vec![0; vertices.len()] };
        (0..count).for_each(|layer| sorting.number(layer));
        sorting
    }

    fn number(&mut self, layer: usize) {
        for (place, vertex) in self.layers[layer].iter().enumerate() {
            self.place[*vertex] = place;
        }
    }

    fn sort(&mut self, layer: usize, side: Side) {
        let mut keyed: Vec<(f64, usize)> =
            self.layers[layer].iter().map(|vertex| (self.mean(*vertex, side), *vertex)).collect();
        keyed.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        self.layers[layer] = keyed.into_iter().map(|(_, vertex)| vertex).collect();
        self.number(layer);
    }

    /// The mean place of what a vertex hangs on; its own if it hangs on nothing.
    fn mean(&self, vertex: usize, side: Side) -> f64 {
        let arcs = match side {
            Side::Above => &self.above[vertex],
            Side::Below => &self.below[vertex],
        };
        let sum: f64 = arcs.iter().map(|arc| self.at(*arc, side)).sum();
        if arcs.is_empty() { self.place[vertex] as f64 } else { sum / arcs.len() as f64 }
    }

    /// Where an arc ends, in places: a frame is met left or right of its middle.
    fn at(&self, arc: usize, side: Side) -> f64 {
        let arc = self.arcs[arc];
        let (vertex, shift) = match side {
            Side::Above => (arc.from, arc.from_shift),
            Side::Below => (arc.to, arc.to_shift),
        };
        self.place[vertex] as f64 + shift / self.vertices[vertex].size.width.max(1.0)
    }

    fn crossings(&self) -> usize {
        self.layers.iter().map(|layer| self.crossings_below(layer)).sum()
    }

    fn crossings_below(&self, layer: &[usize]) -> usize {
        let mut arcs: Vec<(f64, f64)> = layer
            .iter()
            .flat_map(|vertex| &self.below[*vertex])
            .map(|arc| (self.at(*arc, Side::Above), self.at(*arc, Side::Below)))
            .collect();
        arcs.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1)));
        let mut ends: Vec<f64> = Vec::with_capacity(arcs.len());
        let mut crossings = 0;
        for (_, end) in arcs {
            let at = ends.partition_point(|other| *other <= end);
            crossings += ends.len() - at;
            ends.insert(at, end);
        }
        crossings
    }
}

/// All vertices, each after one it hangs on: what hangs together begins close together.
fn in_depth(vertices: &[Vertex], arcs: &[Arc], below: &[Vec<usize>]) -> Vec<usize> {
    let mut starts: Vec<usize> = (0..vertices.len()).collect();
    starts.sort_by_key(|vertex| vertices[*vertex].layer);
    let mut seen = vec![false; vertices.len()];
    let mut order = Vec::with_capacity(vertices.len());
    for start in starts {
        let mut path = vec![start];
        while let Some(vertex) = path.pop() {
            if std::mem::replace(&mut seen[vertex], true) {
                continue;
            }
            order.push(vertex);
            path.extend(below[vertex].iter().rev().map(|arc| arcs[*arc].to));
        }
    }
    order
}
