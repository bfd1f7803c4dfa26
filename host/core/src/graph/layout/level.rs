//! One frame: what hangs together is layered, and what does not is put side by side.

use std::collections::HashMap;

use petgraph::unionfind::UnionFind;

use super::layered::{self, Vertex};
use super::{Point, Rect, Route, Size};

/// What is in a frame, and what runs between.
pub(super) struct Level<'a> {
    pub(super) children: Vec<Child>,
    pub(super) pieces: &'a [Piece],
    /// Of two children the first stands above the second.
    pub(super) precedences: &'a [(usize, usize)],
    /// Where a line crosses the border of a child that is a frame, from its left.
    pub(super) ports: &'a HashMap<(usize, usize), f64>,
}

pub(super) struct Child {
    pub(super) id: usize,
    pub(super) size: Size,
    pub(super) is_frame: bool,
}

/// A line, as far as it runs in one frame: from child to child, from the frame's upper border to a child, or from a child
/// to its lower border.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) link: usize,
    /// Which of the line's pieces it is.
    pub(super) step: usize,
    pub(super) from: Option<usize>,
    pub(super) to: Option<usize>,
    pub(super) label: Option<Size>,
}

/// A frame from within; its left upper corner is 0, 0.
#[derive(Debug, Default)]
pub(super) struct Arrangement {
    pub(super) size: Size,
    pub(super) children: Vec<(usize, Point)>,
    /// As many as there are pieces.
    pub(super) routes: Vec<Route>,
}

/// Between what does not hang together.
const APART: f64 = 28.0;
/// How much wider than high it is put together.
const SHAPE: f64 = 1.8;

/// Places in [`Level::children`], [`Level::pieces`] and [`Level::precedences`] that hang together.
#[derive(Debug, Default)]
struct Component {
    children: Vec<usize>,
    pieces: Vec<usize>,
    precedences: Vec<(usize, usize)>,
    reaches_the_border: bool,
}

impl Level<'_> {
    pub(super) fn arrange(&self) -> Arrangement {
        let mut components = self.components();
        // Only what stands at the left has nothing below it, and can reach the lower border.
        components.sort_by_key(|component| !component.reaches_the_border);
        let arranged: Vec<_> = components.iter().map(|component| self.layer(component)).collect();
        let sizes: Vec<Size> = arranged.iter().map(|one| one.size).collect();
        let fixed = components.iter().filter(|component| component.reaches_the_border).count();
        let (places, size) = packed(&sizes, fixed);
        let mut whole = Arrangement { size, children: Vec::new(), routes: vec![Route::default(); self.pieces.len()] };
        for ((component, part), place) in components.iter().zip(arranged).zip(places) {
            whole.children.extend(part.children.into_iter().map(|(child, at)| (child, at.shifted(place))));
            for (piece, mut route) in component.pieces.iter().zip(part.routes) {
                route.shift(place);
                if self.pieces[*piece].to.is_none() {
                    route.points.extend(route.points.last().map(|last| Point { x: last.x, y: size.height }));
                }
                whole.routes[*piece] = route;
            }
        }
        whole
    }

    fn components(&self) -> Vec<Component> {
        let places: HashMap<usize, usize> =
            self.children.iter().enumerate().map(|(at, child)| (child.id, at)).collect();
        let place = |id: &usize| places[id];
        // One more than there are children: the border.
        let border = self.children.len();
        let mut union = UnionFind::new(border + 1);
        for piece in self.pieces {
            union.union(piece.from.as_ref().map_or(border, place), piece.to.as_ref().map_or(border, place));
        }
        for (above, below) in self.precedences {
            union.union(place(above), place(below));
        }
        let mut numbers: HashMap<usize, usize> = HashMap::new();
        let mut components: Vec<Component> = Vec::new();
        for child in 0..self.children.len() {
            let number = *numbers.entry(union.find(child)).or_insert_with(|| {
                components.push(Component::default());
                components.len() - 1
            });
            components[number].children.push(child);
            components[number].reaches_the_border = union.equiv(child, border);
        }
        let number_of = |id: &usize| numbers[&union.find(place(id))];
        for (at, piece) in self.pieces.iter().enumerate() {
            if let Some(child) = piece.from.as_ref().or(piece.to.as_ref()) {
                components[number_of(child)].pieces.push(at);
            }
        }
        for (above, below) in self.precedences {
            components[number_of(above)].precedences.push((place(above), place(below)));
        }
        components
    }

    fn layer(&self, component: &Component) -> Arrangement {
        let mut inner = HashMap::new();
        let mut graph = layered::Graph::default();
        for (at, child) in component.children.iter().enumerate() {
            inner.insert(self.children[*child].id, at);
            let Child { size, is_frame, .. } = self.children[*child];
            graph.vertices.push(Vertex::child(size, is_frame));
        }
        let index: HashMap<usize, usize> =
            component.children.iter().enumerate().map(|(at, child)| (*child, at)).collect();
        for piece in component.pieces.iter().map(|piece| &self.pieces[*piece]) {
            graph.add_edge(layered::Edge {
                from: piece.from.map(|child| inner[&child]),
                to: piece.to.map(|child| inner[&child]),
                from_shift: self.shift(piece.from, piece.link),
                to_shift: self.shift(piece.to, piece.link),
                label: piece.label,
            });
        }
        let precedences = component.precedences.iter();
        graph.precedences = precedences.map(|(above, below)| (index[above], index[below])).collect();
        let drawn = graph.draw();
        let ids = component.children.iter().map(|child| self.children[*child].id);
        Arrangement { size: drawn.size, children: ids.zip(drawn.children).collect(), routes: drawn.routes }
    }

    /// Where a line meets a frame, from the frame's middle; a box it may meet anywhere.
    fn shift(&self, child: Option<usize>, link: usize) -> Option<f64> {
        let child = child?;
        let port = self.ports.get(&(child, link))?;
        let width = self.children.iter().find(|one| one.id == child)?.size.width;
        Some(port - width / 2.0)
    }
}

/// Puts boxes side by side, in lines as they fill a page: the first `fixed` at the very left, the rest beside them.
fn packed(sizes: &[Size], fixed: usize) -> (Vec<Point>, Size) {
    let area: f64 = sizes.iter().map(|size| (size.width + APART) * (size.height + APART)).sum();
    let widest = sizes.iter().map(|size| size.width).fold(0.0, f64::max);
    let page = (area * SHAPE).sqrt().max(widest);
    let mut places = Vec::with_capacity(sizes.len());
    let mut whole = Rect::default();
    let (mut left, mut at, mut line) = (0.0, Point::default(), 0.0);
    for (number, size) in sizes.iter().enumerate() {
        if at.x > left && at.x + size.width > page.max(left + widest) {
            at = Point { x: left, y: at.y + line + APART };
            line = 0.0;
        }
        places.push(at);
        whole.size.width = whole.size.width.max(at.x + size.width);
        whole.size.height = whole.size.height.max(at.y + size.height);
        at.x += size.width + APART;
        line = f64::max(line, size.height);
        if number + 1 == fixed {
            left = at.x;
        }
    }
    (places, whole.size)
}
