use proptest::prelude::*;

use super::*;

fn block(parent: Option<usize>, is_frame: bool) -> Block {
    let size = if is_frame { Size { width: 90.0, height: 30.0 } } else { Size { width: 80.0, height: 40.0 } };
    Block { parent, size, is_frame }
}

fn boxes(count: usize) -> Vec<Block> {
    (0..count).map(|_| block(None, false)).collect()
}

fn link(from: usize, to: usize) -> Link {
    Link { from, to, label: Some(Size { width: 50.0, height: 14.0 }) }
}

impl Rect {
    fn right(&self) -> f64 {
        self.at.x + self.size.width
    }

    fn bottom(&self) -> f64 {
        self.at.y + self.size.height
    }
}

fn overlap(one: &Rect, other: &Rect) -> bool {
    let slack = 0.01;
    one.at.x + slack < other.right()
        && other.at.x + slack < one.right()
        && one.at.y + slack < other.bottom()
        && other.at.y + slack < one.bottom()
}

fn contains(outer: &Rect, inner: &Rect) -> bool {
    let slack = 0.01;
    outer.at.x <= inner.at.x + slack
        && outer.at.y <= inner.at.y + slack
        && inner.right() <= outer.right() + slack
        && inner.bottom() <= outer.bottom() + slack
}

/// Nothing over anything, everything within what it belongs to, and every line from its box to its box.
#[track_caller]
fn check(diagram: &Diagram) {
    let picture = diagram.picture();
    let page = Rect { at: Point::default(), size: picture.size };
    for (id, rect) in picture.blocks.iter().enumerate() {
        let parent = diagram.blocks[id].parent.map_or(&page, |parent| &picture.blocks[parent]);
        assert!(contains(parent, rect), "{id} at {rect:?} leaves {parent:?}");
        for (other, other_rect) in picture.blocks.iter().enumerate().skip(id + 1) {
            let nested = diagram.around(id).contains(&other) || diagram.around(other).contains(&id);
            assert!(nested || !overlap(rect, other_rect), "{id} at {rect:?} and {other} at {other_rect:?}");
        }
    }
    for (link, route) in diagram.links.iter().zip(&picture.routes) {
        check_route(diagram, &picture, link, route);
    }
    let labels: Vec<&Rect> = picture.routes.iter().filter_map(|route| route.label.as_ref()).collect();
    for (at, label) in labels.iter().enumerate() {
        assert!(labels.iter().skip(at + 1).all(|other| !overlap(label, other)), "two labels at {label:?}");
    }
}

#[track_caller]
fn check_route(diagram: &Diagram, picture: &Picture, link: &Link, route: &Route) {
    let (first, last) = (route.points.first().expect("it starts"), route.points.last().expect("it ends"));
    let (from, to) = (&picture.blocks[link.from], &picture.blocks[link.to]);
    assert!((first.y - from.bottom()).abs() < 0.01 && (from.at.x..=from.right()).contains(&first.x), "{link:?}");
    assert!((last.y - to.at.y).abs() < 0.01 && (to.at.x..=to.right()).contains(&last.x), "{link:?}");
    let label = route.label.as_ref().expect("it has a text");
    let boxes = picture.blocks.iter().zip(&diagram.blocks).filter(|(_, block)| !block.is_frame);
    boxes.for_each(|(rect, _)| assert!(!overlap(rect, label), "a text at {label:?} over {rect:?}"));
    for ends in route.points.windows(2) {
        assert!(ends[0].y <= ends[1].y + 0.01, "{link:?} turns back at {ends:?}");
    }
}

#[test]
fn a_chain_is_a_straight_line() {
    let diagram = Diagram { blocks: boxes(3), links: vec![link(0, 1), link(1, 2)], precedences: Vec::new() };
    check(&diagram);
    let picture = diagram.picture();
    let middles: Vec<f64> = picture.blocks.iter().map(|rect| rect.centre().x).collect();
    assert!(middles.windows(2).all(|two| (two[0] - two[1]).abs() < 0.01), "{middles:?}");
}

#[test]
fn what_hangs_on_nothing_fills_the_page() {
    let diagram = Diagram { blocks: boxes(100), ..Diagram::default() };
    check(&diagram);
    let size = diagram.picture().size;
    assert!((1.0..3.0).contains(&(size.width / size.height)), "{size:?}");
}

#[test]
fn a_precedence_is_kept_without_a_line() {
    let diagram = Diagram { blocks: boxes(2), links: Vec::new(), precedences: vec![(1, 0)] };
    let picture = diagram.picture();
    assert!(picture.blocks[1].bottom() < picture.blocks[0].at.y);
}

#[test]
fn lines_in_a_circle_are_drawn_too() {
    let diagram = Diagram { blocks: boxes(3), links: vec![link(0, 1), link(1, 2), link(2, 0)], ..Diagram::default() };
    assert!(diagram.picture().routes.iter().all(|route| route.points.len() >= 2));
}

#[test]
fn an_order_without_crossings_is_found() {
    let links = vec![link(0, 5), link(1, 4), link(2, 3)];
    let picture = Diagram { blocks: boxes(6), links, precedences: vec![(0, 3), (0, 4)] }.picture();
    let order = |ids: [usize; 3]| {
        let mut ids = ids;
        ids.sort_by(|one, other| picture.blocks[*one].at.x.total_cmp(&picture.blocks[*other].at.x));
        ids
    };
    let below = order([0, 1, 2]).map(|above| 5 - above);
    assert_eq!(order([3, 4, 5]), below);
}

/// Boxes in frames in frames, and lines that go from lower to higher numbers.
fn diagrams() -> impl Strategy<Value = Diagram> {
    let frames = proptest::collection::vec(any::<prop::sample::Index>(), 0..5);
    let boxes = proptest::collection::vec(any::<prop::sample::Index>(), 1..24);
    let links = proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..40);
    (frames, boxes, links).prop_map(|(frames, boxes, links)| {
        let mut blocks: Vec<Block> = Vec::new();
        for parent in &frames {
            let parent = parent.index(blocks.len() + 1).checked_sub(1);
            blocks.push(block(parent, true));
        }
        // In the order of their frames, so that no lines between frames go in a circle.
        let mut parents: Vec<usize> = boxes.iter().map(|parent| parent.index(frames.len() + 1)).collect();
        parents.sort_by_key(|parent| way_in(&blocks, *parent));
        blocks.extend(parents.into_iter().map(|parent| block(parent.checked_sub(1), false)));
        let first = frames.len();
        let pick = |index: &prop::sample::Index| first + index.index(boxes.len());
        let ends = links.iter().map(|(one, other)| (pick(one).min(pick(other)), pick(one).max(pick(other))));
        let links = ends.filter(|(from, to)| from != to).map(|(from, to)| link(from, to)).collect();
        Diagram { blocks, links, precedences: Vec::new() }
    })
}

/// The frames around, the outermost first.
fn way_in(blocks: &[Block], parent: usize) -> Vec<usize> {
    let inner = std::iter::successors(parent.checked_sub(1), |frame| blocks[*frame].parent);
    let mut way: Vec<usize> = inner.collect();
    way.reverse();
    way
}

proptest! {
    #[test]
    fn nothing_is_over_anything(diagram in diagrams()) {
        check(&diagram);
    }
}

#[test]
fn three_hundred_boxes_are_placed() {
    let links = (1..300).flat_map(|to| [link(to / 3, to), link(to / 2, to)]).filter(|link| link.from != link.to);
    check(&Diagram { blocks: boxes(300), links: links.collect(), precedences: Vec::new() });
}
