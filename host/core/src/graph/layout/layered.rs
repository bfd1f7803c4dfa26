//! What hangs together, in layers.
//!
//! The steps of the method, a file each: [`rank`] gives every box its layer, [`order`] says who stands beside whom, and
//! [`place`] how far from the left. A line that spans several layers gets a bend in each of those between; the text on a
//! line is such a bend too, so that nothing is ever written over anything.

use super::{Point, Rect, Route, Size, order, place, rank};

#[derive(Debug, Default)]
pub(super) struct Graph {
    /// The children first, as the caller has put them in.
    pub(super) vertices: Vec<Vertex>,
    edges: Vec<(usize, usize, Edge)>,
    pub(super) precedences: Vec<(usize, usize)>,
}

#[derive(Debug)]
pub(super) struct Vertex {
    pub(super) size: Size,
    pub(super) role: Role,
    pub(super) layer: usize,
    /// Its middle, from the left.
    pub(super) x: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Lines meet it anywhere.
    Box,
    /// Lines meet it at its ports.
    Frame,
    /// A line comes in from above.
    Entry,
    /// A line goes out below.
    Exit,
    /// A line goes through, or the text on it stands here.
    Bend,
}

/// A line from vertex to vertex; from or to the border if it has none.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) from: Option<usize>,
    pub(super) to: Option<usize>,
    /// Where it meets them, from their middle; open if it may meet them anywhere.
    pub(super) from_shift: Option<f64>,
    pub(super) to_shift: Option<f64>,
    pub(super) label: Option<Size>,
}

/// A line from one layer to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arc {
    pub(super) from: usize,
    pub(super) to: usize,
    pub(super) from_shift: f64,
    pub(super) to_shift: f64,
}

/// The arcs of an edge, from its upper end to its lower.
#[derive(Debug)]
struct Chain {
    arcs: Vec<usize>,
    label: Option<usize>,
    /// Whether the edge goes upwards.
    is_reversed: bool,
    open_from: bool,
    open_to: bool,
}

pub(super) struct Drawn {
    pub(super) size: Size,
    pub(super) children: Vec<Point>,
    pub(super) routes: Vec<Route>,
}

const BEND_WIDTH: f64 = 10.0;
/// Between two layers, at least and at most: lines that go far aside get more room.
const GAP: (f64, f64) = (24.0, 84.0);
const GAP_PER_ASIDE: f64 = 0.14;
/// Between the lines that meet a box.
const SPREAD: f64 = 22.0;

impl Vertex {
    pub(super) fn child(size: Size, is_frame: bool) -> Vertex {
        Vertex { size, role: if is_frame { Role::Frame } else { Role::Box }, layer: 0, x: 0.0 }
    }

    fn bend(label: Option<Size>, layer: usize) -> Vertex {
        let size = label.unwrap_or(Size { width: BEND_WIDTH, height: 0.0 });
        Vertex { size, role: Role::Bend, layer, x: 0.0 }
    }

    fn port(role: Role) -> Vertex {
        Vertex { size: Size { width: BEND_WIDTH, height: 0.0 }, role, layer: 0, x: 0.0 }
    }
}

impl Graph {
    /// All children must be in before.
    pub(super) fn add_edge(&mut self, edge: Edge) {
        let from = edge.from.unwrap_or_else(|| self.add_port(Role::Entry));
        let to = edge.to.unwrap_or_else(|| self.add_port(Role::Exit));
        self.edges.push((from, to, edge));
    }

    fn add_port(&mut self, role: Role) -> usize {
        self.vertices.push(Vertex::port(role));
        self.vertices.len() - 1
    }

    pub(super) fn draw(mut self) -> Drawn {
        let downwards = self.rank();
        let (arcs, chains) = self.bend(&downwards);
        let layers = order::layers(&self.vertices, &arcs);
        place::across(&mut self.vertices, &layers, &arcs);
        Drawing { vertices: self.vertices, arcs, chains, layers }.finish()
    }

    /// Gives every vertex its layer; says of every edge whether it goes downwards.
    fn rank(&mut self) -> Vec<bool> {
        let of_edge = |(from, to, edge): &(usize, usize, Edge)| rank::Constraint {
            above: *from,
            below: *to,
            layers: if edge.label.is_some() { 2 } else { 1 },
        };
        let of_precedence =
            |(above, below): &(usize, usize)| rank::Constraint { above: *above, below: *below, layers: 2 };
        let constraints: Vec<_> =
            self.edges.iter().map(of_edge).chain(self.precedences.iter().map(of_precedence)).collect();
        let roles: Vec<Role> = self.vertices.iter().map(|vertex| vertex.role).collect();
        let ranks = rank::ranks(&roles, &constraints);
        for (vertex, layer) in self.vertices.iter_mut().zip(ranks) {
            vertex.layer = layer;
        }
        self.edges.iter().map(|(from, to, _)| self.vertices[*from].layer <= self.vertices[*to].layer).collect()
    }

    /// Cuts every edge into arcs from layer to layer.
    fn bend(&mut self, downwards: &[bool]) -> (Vec<Arc>, Vec<Chain>) {
        let (mut arcs, mut chains) = (Vec::new(), Vec::new());
        for ((from, to, edge), downwards) in self.edges.iter().zip(downwards) {
            let (mut upper, mut lower) = ((*from, edge.from_shift), (*to, edge.to_shift));
            if !downwards {
                // It meets the frames where it can from this side.
                (upper, lower) = ((*to, None), (*from, None));
            }
            let (top, bottom) = (self.vertices[upper.0].layer, self.vertices[lower.0].layer);
            // A text stands close to where its line comes from, beside those of the other lines from there.
            let label_layer = edge.label.map(|_| if *downwards { top + 1 } else { bottom - 1 });
            let mut chain = Chain {
                arcs: Vec::new(),
                label: None,
                is_reversed: !downwards,
                open_from: upper.1.is_none(),
                open_to: lower.1.is_none(),
            };
            let mut last = (upper.0, upper.1.unwrap_or_default());
            for layer in top + 1..bottom {
                let is_label = label_layer == Some(layer);
                self.vertices.push(Vertex::bend(edge.label.filter(|_| is_label), layer));
                let bend = self.vertices.len() - 1;
                if is_label {
                    chain.label = Some(bend);
                }
                chain.arcs.push(arcs.len());
                arcs.push(Arc { from: last.0, to: bend, from_shift: last.1, to_shift: 0.0 });
                last = (bend, 0.0);
            }
            chain.arcs.push(arcs.len());
            arcs.push(Arc { from: last.0, to: lower.0, from_shift: last.1, to_shift: lower.1.unwrap_or_default() });
            chains.push(chain);
        }
        (arcs, chains)
    }
}

/// Every vertex stands where it stands from the left.
struct Drawing {
    vertices: Vec<Vertex>,
    arcs: Vec<Arc>,
    chains: Vec<Chain>,
    layers: Vec<Vec<usize>>,
}

impl Drawing {
    fn finish(mut self) -> Drawn {
        self.spread();
        let tops = self.tops();
        let heights: Vec<f64> = self.layers.iter().map(|layer| self.height(layer)).collect();
        let width = self.vertices.iter().map(|vertex| vertex.x + vertex.size.width / 2.0).fold(0.0, f64::max);
        let height = tops.last().zip(heights.last()).map_or(0.0, |(top, height)| top + height);
        let children = self.vertices.iter().filter(|vertex| matches!(vertex.role, Role::Box | Role::Frame));
        Drawn {
            size: Size { width, height },
            children: children.map(|vertex| vertex.corner(tops[vertex.layer], 0.0)).collect(),
            routes: self.chains.iter().map(|chain| self.route(chain, &tops, &heights)).collect(),
        }
    }

    /// Lets the lines that meet a box meet it side by side, in the order in which they come.
    fn spread(&mut self) {
        let mut below: Vec<Vec<usize>> = vec![Vec::new(); self.vertices.len()];
        let mut above = below.clone();
        for chain in &self.chains {
            let (Some(first), Some(last)) = (chain.arcs.first(), chain.arcs.last()) else { continue };
            if chain.open_from {
                below[self.arcs[*first].from].push(*first);
            }
            if chain.open_to {
                above[self.arcs[*last].to].push(*last);
            }
        }
        for (vertex, mut lines) in below.into_iter().enumerate() {
            lines.sort_by(|one, other| self.x_below(*one).total_cmp(&self.x_below(*other)));
            let count = lines.len();
            for (at, arc) in lines.into_iter().enumerate() {
                self.arcs[arc].from_shift = self.vertices[vertex].shift(at, count);
            }
        }
        for (vertex, mut lines) in above.into_iter().enumerate() {
            lines.sort_by(|one, other| self.x_above(*one).total_cmp(&self.x_above(*other)));
            let count = lines.len();
            for (at, arc) in lines.into_iter().enumerate() {
                self.arcs[arc].to_shift = self.vertices[vertex].shift(at, count);
            }
        }
    }

    fn x_above(&self, arc: usize) -> f64 {
        let arc = self.arcs[arc];
        self.vertices[arc.from].x + arc.from_shift
    }

    fn x_below(&self, arc: usize) -> f64 {
        let arc = self.arcs[arc];
        self.vertices[arc.to].x + arc.to_shift
    }

    /// Where each layer begins.
    fn tops(&self) -> Vec<f64> {
        let mut aside = vec![0.0; self.layers.len()];
        for (at, arc) in self.arcs.iter().enumerate() {
            let layer = self.vertices[arc.from].layer;
            aside[layer] = f64::max(aside[layer], (self.x_above(at) - self.x_below(at)).abs());
        }
        let mut top = 0.0;
        let mut tops = Vec::with_capacity(self.layers.len());
        for (layer, aside) in self.layers.iter().zip(aside) {
            tops.push(top);
            top += self.height(layer) + (aside * GAP_PER_ASIDE).clamp(GAP.0, GAP.1);
        }
        tops
    }

    fn height(&self, layer: &[usize]) -> f64 {
        layer.iter().map(|vertex| self.vertices[*vertex].size.height).fold(0.0, f64::max)
    }

    fn route(&self, chain: &Chain, tops: &[f64], heights: &[f64]) -> Route {
        let mut points = Vec::new();
        for (at, index) in chain.arcs.iter().enumerate() {
            let arc = self.arcs[*index];
            let (from, to) = (&self.vertices[arc.from], &self.vertices[arc.to]);
            let x = self.x_above(*index);
            if at == 0 {
                points.push(Point { x, y: tops[from.layer] + from.size.height });
            }
            if at == 0 || !self.is_on_the_way(chain, at) {
                points.push(Point { x, y: tops[from.layer] + heights[from.layer] });
            }
            if at + 1 == chain.arcs.len() || !self.is_on_the_way(chain, at + 1) {
                points.push(Point { x: self.x_below(*index), y: tops[to.layer] });
            }
        }
        points.dedup();
        if chain.is_reversed {
            points.reverse();
        }
        let label = chain.label.map(|label| {
            let vertex = &self.vertices[label];
            let spare = (heights[vertex.layer] - vertex.size.height) / 2.0;
            Rect { at: vertex.corner(tops[vertex.layer], spare), size: vertex.size }
        });
        Route { points, label }
    }

    /// Whether a line that goes by the bend from which its arc `at` comes passes over it anyway, and meets no box there.
    fn is_on_the_way(&self, chain: &Chain, at: usize) -> bool {
        let bend = &self.vertices[self.arcs[chain.arcs[at]].from];
        let straight = f64::midpoint(self.x_above(chain.arcs[at - 1]), self.x_below(chain.arcs[at]));
        let is_free = self.layers[bend.layer].iter().all(|other| self.vertices[*other].role == Role::Bend);
        is_free && (bend.x - straight).abs() < bend.size.width / 2.0
    }
}

impl Vertex {
    fn corner(&self, top: f64, spare: f64) -> Point {
        Point { x: self.x - self.size.width / 2.0, y: top + spare }
    }

    /// Where from its middle the line `at` of `count` meets it.
    fn shift(&self, at: usize, count: usize) -> f64 {
        let room = (self.size.width - SPREAD).max(0.0);
        let apart = SPREAD.min(room / count as f64);
        (at as f64 - (count as f64 - 1.0) / 2.0) * apart
    }
}
