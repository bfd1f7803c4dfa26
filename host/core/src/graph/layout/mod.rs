//! Where the boxes and lines of a diagram go: top to bottom, nothing over anything else.
//!
//! The method is the layered one of K. Sugiyama, S. Tagawa and M. Toda, *Methods for visual understanding of hierarchical
//! system structures* (IEEE Transactions on Systems, Man, and Cybernetics 11(2), 1981). Frames are laid out from the inside
//! outwards: to what is around it, a frame is a box like any other. A line that crosses a frame's border is cut there into
//! pieces that meet at a port of the frame, so that inside and outside may be settled one after the other.

mod layered;
mod level;
mod order;
mod place;
mod rank;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use self::level::{Arrangement, Child, Level, Piece};

/// What is to be drawn.
#[derive(Debug, Default)]
pub(crate) struct Diagram {
    pub(crate) blocks: Vec<Block>,
    pub(crate) links: Vec<Link>,
    /// Of two blocks the first stands above the second, if nothing speaks against it.
    pub(crate) precedences: Vec<(usize, usize)>,
}

/// A box, or a frame around boxes.
#[derive(Debug)]
pub(crate) struct Block {
    /// The frame around it.
    pub(crate) parent: Option<usize>,
    /// Of a box its size; of a frame the room that its title needs.
    pub(crate) size: Size,
    pub(crate) is_frame: bool,
}

/// A line from one box to another.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// The size of the text on it.
    pub(crate) label: Option<Size>,
}

/// In pixels.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Size {
    pub(crate) width: f64,
    pub(crate) height: f64,
}

/// From the left, and from the top.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Rect {
    pub(crate) at: Point,
    pub(crate) size: Size,
}

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Picture {
    pub(crate) size: Size,
    /// As many as there are blocks.
    pub(crate) blocks: Vec<Rect>,
    /// As many as there are links.
    pub(crate) routes: Vec<Route>,
}

/// The way of a line. Between two points it is straight if one is above the other, or else bends from upright to upright.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Route {
    pub(crate) points: Vec<Point>,
    pub(crate) label: Option<Rect>,
}

/// Between a frame and what is in it.
const PADDING: f64 = 16.0;
/// Around the whole.
const MARGIN: f64 = 12.0;

impl Point {
    pub(crate) fn shifted(self, by: Point) -> Point {
        Point { x: self.x + by.x, y: self.y + by.y }
    }
}

impl Rect {
    pub(crate) fn centre(&self) -> Point {
        Point { x: self.at.x + self.size.width / 2.0, y: self.at.y + self.size.height / 2.0 }
    }
}

impl Diagram {
    /// Settles where everything goes.
    pub(crate) fn picture(&self) -> Picture {
        let levels = self.levels();
        let mut drawing = Drawing::new(self);
        for frame in self.inside_out() {
            let level = levels.get(&frame);
            drawing.settle(frame, level.unwrap_or(&Pieces::default()));
        }
        drawing.finish(&levels)
    }

    /// Every frame after those within it; last the page itself.
    fn inside_out(&self) -> Vec<Option<usize>> {
        let mut frames: Vec<usize> = (0..self.blocks.len()).filter(|block| self.blocks[*block].is_frame).collect();
        frames.sort_by_key(|frame| std::cmp::Reverse(self.around(*frame).len()));
        frames.into_iter().map(Some).chain([None]).collect()
    }

    /// The frames around a block, the innermost first.
    fn around(&self, block: usize) -> Vec<usize> {
        std::iter::successors(self.blocks[block].parent, |frame| self.blocks[*frame].parent).collect()
    }

    /// What of links and precedences belongs to which frame.
    fn levels(&self) -> BTreeMap<Option<usize>, Pieces> {
        let mut levels: BTreeMap<Option<usize>, Pieces> = BTreeMap::new();
        for (link, Link { from, to, label }) in self.links.iter().enumerate() {
            let Some(meeting) = self.meeting(*from, *to) else { continue };
            let left = meeting.left.into_iter().map(|(inner, frame)| (Some(frame), Some(inner), None, None));
            let through = (meeting.frame, Some(meeting.from), Some(meeting.to), *label);
            let entered =
                meeting.entered.into_iter().rev().map(|(inner, frame)| (Some(frame), None, Some(inner), None));
            for (step, (frame, from, to, label)) in left.chain([through]).chain(entered).enumerate() {
                levels.entry(frame).or_default().pieces.push(Piece { link, step, from, to, label });
            }
        }
        for (above, below) in &self.precedences {
            if let Some(meeting) = self.meeting(*above, *below) {
                levels.entry(meeting.frame).or_default().precedences.push((meeting.from, meeting.to));
            }
        }
        levels
    }

    /// None if one is in the other, or both are one.
    fn meeting(&self, from: usize, to: usize) -> Option<Meeting> {
        let (around_from, around_to) = (self.around(from), self.around(to));
        let common =
            around_from.iter().rev().zip(around_to.iter().rev()).take_while(|(one, other)| one == other).count();
        let left = crossed(from, &around_from[..around_from.len() - common]);
        let entered = crossed(to, &around_to[..around_to.len() - common]);
        let outermost = |crossed: &[(usize, usize)], block| crossed.last().map_or(block, |(_, frame)| *frame);
        let (from, to) = (outermost(&left, from), outermost(&entered, to));
        let frame = around_from.get(around_from.len() - common).copied();
        (from != to).then_some(Meeting { frame, from, to, left, entered })
    }
}

/// The frames on the way out of `block`, each with what the way comes from.
fn crossed(block: usize, frames: &[usize]) -> Vec<(usize, usize)> {
    let inner = std::iter::once(block).chain(frames.iter().copied());
    inner.zip(frames.iter().copied()).collect()
}

/// Where the ways of two blocks outwards come together.
struct Meeting {
    /// In which frame.
    frame: Option<usize>,
    /// What is, or holds, the one there.
    from: usize,
    /// What is, or holds, the other.
    to: usize,
    /// The frames left on the way, the innermost first, each with what the line comes from.
    left: Vec<(usize, usize)>,
    /// The frames entered, the innermost first, each with what the line goes to.
    entered: Vec<(usize, usize)>,
}

/// What happens in one frame.
#[derive(Debug, Default)]
struct Pieces {
    pieces: Vec<Piece>,
    precedences: Vec<(usize, usize)>,
}

/// What is settled so far: each frame for itself.
struct Drawing<'a> {
    diagram: &'a Diagram,
    sizes: Vec<Size>,
    /// Of each block, within its frame.
    places: Vec<Point>,
    /// The pieces of each frame's lines, within it.
    routes: HashMap<Option<usize>, Vec<Route>>,
    /// Where a line crosses a frame's border, from the frame's left.
    ports: HashMap<(usize, usize), f64>,
    page: Size,
}

impl<'a> Drawing<'a> {
    fn new(diagram: &'a Diagram) -> Self {
        let sizes = diagram.blocks.iter().map(|block| block.size).collect();
        Drawing {
            diagram,
            sizes,
            places: vec![Point::default(); diagram.blocks.len()],
            routes: HashMap::new(),
            ports: HashMap::new(),
            page: Size::default(),
        }
    }

    fn settle(&mut self, frame: Option<usize>, Pieces { pieces, precedences }: &Pieces) {
        let blocks = self.diagram.blocks.iter().enumerate();
        let children = blocks.filter(|(_, block)| block.parent == frame);
        let children =
            children.map(|(id, block)| Child { id, size: self.sizes[id], is_frame: block.is_frame }).collect();
        let level = Level { children, pieces, precedences, ports: &self.ports };
        let arrangement = level.arrange();
        let (shift, size) = match frame {
            None => (Point { x: MARGIN, y: MARGIN }, grown(arrangement.size, 2.0 * MARGIN, 2.0 * MARGIN)),
            Some(frame) => {
                let title = self.sizes[frame];
                let least = title.width.max(arrangement.size.width);
                let shift = Point { x: PADDING + (least - arrangement.size.width) / 2.0, y: title.height };
                let filled = Size { width: least, height: arrangement.size.height };
                (shift, grown(filled, 2.0 * PADDING, title.height + PADDING))
            }
        };
        self.keep(frame, arrangement, shift, size, pieces);
    }

    fn keep(&mut self, frame: Option<usize>, arrangement: Arrangement, shift: Point, size: Size, pieces: &[Piece]) {
        for (child, place) in arrangement.children {
            self.places[child] = place.shifted(shift);
        }
        let mut routes = arrangement.routes;
        for (route, piece) in routes.iter_mut().zip(pieces) {
            route.shift(shift);
            let Some(frame) = frame else { continue };
            if let (None, Some(first)) = (piece.from, route.points.first().copied()) {
                route.points.insert(0, Point { x: first.x, y: 0.0 });
                self.ports.insert((frame, piece.link), first.x);
            }
            if let (None, Some(last)) = (piece.to, route.points.last().copied()) {
                route.points.push(Point { x: last.x, y: size.height });
                self.ports.insert((frame, piece.link), last.x);
            }
        }
        self.routes.insert(frame, routes);
        match frame {
            Some(frame) => self.sizes[frame] = size,
            None => self.page = size,
        }
    }

    /// Puts the frames together.
    fn finish(mut self, levels: &BTreeMap<Option<usize>, Pieces>) -> Picture {
        let corners: Vec<Point> = (0..self.places.len()).map(|block| self.corner(block)).collect();
        let mut steps: Vec<(usize, usize, Route)> = Vec::new();
        for (frame, level) in levels {
            let corner = frame.map_or(Point::default(), |frame| corners[frame]);
            let routes = self.routes.remove(frame).unwrap_or_default();
            for (mut route, piece) in routes.into_iter().zip(&level.pieces) {
                route.shift(corner);
                steps.push((piece.link, piece.step, route));
            }
        }
        steps.sort_by_key(|(link, step, _)| (*link, *step));
        let mut routes = vec![Route::default(); self.diagram.links.len()];
        steps.into_iter().for_each(|(link, _, route)| routes[link].append(route));
        let rect = |(at, size): (&Point, &Size)| Rect { at: *at, size: *size };
        Picture { size: self.page, blocks: corners.iter().zip(&self.sizes).map(rect).collect(), routes }
    }

    fn corner(&self, block: usize) -> Point {
        let around = self.diagram.around(block);
        around.iter().fold(self.places[block], |place, frame| place.shifted(self.places[*frame]))
    }
}

fn grown(size: Size, width: f64, height: f64) -> Size {
    Size { width: size.width + width, height: size.height + height }
}

impl Route {
    fn shift(&mut self, by: Point) {
        self.points.iter_mut().for_each(|point| *point = point.shifted(by));
        if let Some(label) = &mut self.label {
            label.at = label.at.shifted(by);
        }
    }

    fn append(&mut self, next: Route) {
        self.points.extend(next.points);
        self.label = self.label.or(next.label);
    }
}
