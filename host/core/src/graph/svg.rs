//! As SVG: one picture with all it needs, for light and dark surroundings.

use std::fmt::Write;

use super::layout::{Block, Diagram, Link, Point, Rect, Route, Size};
use super::text::{escaped, shortened, width};
use super::{Edge, EdgeKind, Graph, Group, GroupKind, ModuleBox, Standing};

const NAME_SIZE: f64 = 13.0;
const ABOUT_SIZE: f64 = 11.0;
const HEADING_SIZE: f64 = 12.0;
const LABEL_SIZE: f64 = 10.5;
const LABEL_LINE: f64 = 14.0;
const LINE: f64 = 17.0;
const PADDING: f64 = 12.0;
/// The disc with a state's sign.
const DISC: f64 = 9.0;
const NARROWEST: f64 = 110.0;
/// Of names, headings and labels at most so many characters are shown; a hint has the rest.
const SHOWN: usize = 40;

impl Graph {
    /// As SVG.
    #[must_use]
    pub fn svg(&self) -> String {
        self.legible().draw(false)
    }

    /// The same as part of a page: a box leads to what the page says of it under `module-ID`, in a picture of sub flows
    /// under `sub-flow-NUMBER`.
    #[must_use]
    pub fn linked_svg(&self) -> String {
        self.legible().draw(true)
    }

    fn draw(&self, linked: bool) -> String {
        let (diagram, frames) = self.diagram();
        let picture = diagram.picture();
        let Size { width, height } = picture.size;
        let title = escaped(&self.title);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"pype-graph\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" role=\"group\" aria-label=\"The graph of {title}\">\n\
             <title>{title}</title>\n<style>\n{}</style>\n\
             <defs><marker id=\"pype-tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"tip\" d=\"M0 0L8 4L0 8z\"/></marker></defs>\n\
             <rect class=\"page\" width=\"100%\" height=\"100%\"/>\n",
            include_str!("style.css")
        );
        let framed = self.outside_in(&frames);
        framed.iter().for_each(|(group, frame)| svg.push_str(&group.frame(&picture.blocks[*frame])));
        for (edge, route) in self.edges.iter().zip(&picture.routes) {
            svg.push_str(&self.line(edge, route));
        }
        framed.iter().for_each(|(group, frame)| svg.push_str(&group.title(&picture.blocks[*frame])));
        for (place, rect) in self.boxes.iter().zip(&picture.blocks) {
            svg.push_str(&place.draw(rect, linked));
        }
        for (edge, route) in self.edges.iter().zip(&picture.routes) {
            svg.push_str(&label(edge, route));
        }
        svg.push_str("</svg>\n");
        svg
    }

    /// The boxes first, then the frames; of each group the place of its frame.
    pub(super) fn diagram(&self) -> (Diagram, Vec<Option<usize>>) {
        let framed = self.groups.iter().scan(self.boxes.len(), |next, group| {
            let place = group.is_framed().then_some(*next);
            *next += usize::from(group.is_framed());
            Some(place)
        });
        let frames: Vec<Option<usize>> = framed.collect();
        let boxes = self.boxes.iter().enumerate().map(|(place, one)| Block {
            parent: self.frame_of(place).and_then(|group| frames[group]),
            size: one.size(),
            is_frame: false,
        });
        let groups =
            self.groups.iter().enumerate().filter(|(_, group)| group.is_framed()).map(|(place, group)| Block {
                parent: self.frame_around(place).and_then(|around| frames[around]),
                size: group.title_size(),
                is_frame: true,
            });
        let block = |group: usize| frames[group].or_else(|| self.groups[group].boxes.first().copied());
        let after = self.groups.iter().enumerate().flat_map(|(place, group)| {
            let pair = move |before: &usize| Some((block(*before)?, block(place)?));
            group.after.iter().filter_map(pair).collect::<Vec<_>>()
        });
        let link = |edge: &Edge| Link { from: edge.from, to: edge.to, label: label_size(edge) };
        let diagram = Diagram {
            blocks: boxes.chain(groups).collect(),
            links: self.edges.iter().map(link).collect(),
            precedences: after.collect(),
        };
        (diagram, frames)
    }

    /// The groups with frames, and these: the outer ones first, as the inner ones lie on them.
    fn outside_in(&self, frames: &[Option<usize>]) -> Vec<(&Group, usize)> {
        let depth = |place: usize| std::iter::successors(Some(place), |group| self.groups[*group].within).count();
        let mut places: Vec<usize> = (0..self.groups.len()).collect();
        places.sort_by_key(|place| depth(*place));
        places.into_iter().filter_map(|place| Some((&self.groups[place], frames[place]?))).collect()
    }

    fn line(&self, edge: &Edge, route: &Route) -> String {
        let kind = match edge.kind {
            EdgeKind::Data | EdgeKind::Next => "data",
            EdgeKind::Kept => "kept",
            EdgeKind::Control => "control",
            EdgeKind::Boundary => "kept control",
        };
        let idle = self.boxes[edge.to].standing.as_ref().is_some_and(|standing| !standing.mark.has_run());
        let dim = if idle { " dim" } else { "" };
        let path = path(&route.points);
        format!("<g class=\"{kind}{dim}\"><path class=\"line\" marker-end=\"url(#pype-tip)\" d=\"{path}\"/></g>\n")
    }
}

impl Group {
    fn heading_line(&self) -> String {
        shortened(&self.heading(), SHOWN)
    }

    fn title_size(&self) -> Size {
        let note = self.standing.as_ref().map_or(0.0, |standing| 3.0 * DISC + width(&standing.line(), ABOUT_SIZE));
        let heading = width(&self.heading_line(), HEADING_SIZE);
        let height = if self.standing.is_some() { 2.0 * LINE + PADDING + 4.0 } else { LINE + PADDING + 4.0 };
        Size { width: heading.max(note), height }
    }

    fn class(&self) -> &'static str {
        self.standing.as_ref().map_or("", |standing| standing.mark.class())
    }

    fn frame(&self, rect: &Rect) -> String {
        let Rect { at, size } = rect;
        let kind = if self.kind == GroupKind::Loop { "frame loop" } else { "frame" };
        format!(
            "<rect class=\"{kind}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"10\"/>\n",
            at.x, at.y, size.width, size.height,
        )
    }

    /// Over the lines, which may come in through it.
    fn title(&self, rect: &Rect) -> String {
        let (x, y) = (rect.at.x + PADDING, rect.at.y + PADDING + 8.0);
        let mut svg = format!(
            "<g class=\"{}\"><title>{}</title><text class=\"heading\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>",
            self.class(),
            escaped(&self.heading()),
            escaped(&self.heading_line()),
        );
        if let Some(standing) = &self.standing {
            svg.push_str(&sign(standing, Point { x: x + DISC, y: y + LINE - 4.0 }));
            let (x, line) = (x + 2.5 * DISC, escaped(&standing.line()));
            write!(svg, "<text class=\"note over\" x=\"{x:.1}\" y=\"{:.1}\">{line}</text>", y + LINE)
                .expect("a string");
        }
        svg.push_str("</g>\n");
        svg
    }
}

impl ModuleBox {
    fn lines(&self) -> (String, String, Option<String>) {
        let note = self.standing.as_ref().map(|standing| shortened(&standing.line(), SHOWN));
        (shortened(&self.name, SHOWN), shortened(&self.about, SHOWN), note)
    }

    fn size(&self) -> Size {
        let (name, about, note) = self.lines();
        let sign = if note.is_some() { 2.0 * DISC + 8.0 } else { 0.0 };
        let note_width = note.as_deref().map_or(0.0, |note| width(note, ABOUT_SIZE));
        let text = (width(&name, NAME_SIZE) * 1.06 + sign).max(width(&about, ABOUT_SIZE)).max(note_width);
        let lines = if note.is_some() { 3.0 } else { 2.0 };
        Size { width: (text + 2.0 * PADDING).max(NARROWEST), height: lines * LINE + PADDING }
    }

    fn draw(&self, rect: &Rect, linked: bool) -> String {
        let Rect { at, size } = rect;
        let (name, about, note) = self.lines();
        let class = self.standing.as_ref().map_or("", |standing| standing.mark.class());
        let hint = self.standing.as_ref().map_or_else(String::new, |standing| format!("\n{}", hint(standing)));
        let hint = escaped_lines(&format!("{}\n{}{hint}", self.name, self.about));
        let (x, y) = (at.x + PADDING, at.y + PADDING + 9.0);
        let mut inner = format!(
            "<title>{hint}</title><rect class=\"box\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
             rx=\"7\" stroke-width=\"1.5\"/><text class=\"name\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\
             <text class=\"about\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            at.x,
            at.y,
            size.width,
            size.height,
            escaped(&name),
            y + LINE,
            escaped(&about),
        );
        if let Some(standing) = &self.standing {
            let corner = Point { x: at.x + size.width - PADDING - DISC + 2.0, y: at.y + PADDING + 4.0 };
            inner.push_str(&sign(standing, corner));
        }
        if let Some(note) = note {
            let (y, note) = (y + 2.0 * LINE, escaped(&note));
            write!(inner, "<text class=\"note\" x=\"{x:.1}\" y=\"{y:.1}\">{note}</text>").expect("a string");
        }
        match linked {
            true => format!("<g class=\"{class}\"><a href=\"#{}\">{inner}</a></g>\n", escaped(&self.anchor)),
            false => format!("<g class=\"{class}\">{inner}</g>\n"),
        }
    }
}

fn hint(standing: &Standing) -> String {
    let word = [standing.mark.word().to_owned()];
    word.iter().chain(&standing.notes).map(String::as_str).collect::<Vec<_>>().join("\n")
}

/// A hint may have several lines.
fn escaped_lines(text: &str) -> String {
    text.lines().map(escaped).collect::<Vec<_>>().join("&#10;")
}

fn sign(standing: &Standing, at: Point) -> String {
    let (x, y) = (at.x, at.y);
    let sign = standing.mark.sign();
    format!(
        "<circle class=\"disc\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{DISC}\"/>\
         <text class=\"sign\" x=\"{x:.1}\" y=\"{:.1}\">{sign}</text>",
        y + 4.2
    )
}

fn label_lines(edge: &Edge) -> Vec<String> {
    edge.lines().iter().map(|line| shortened(line, SHOWN)).collect()
}

/// None, if nothing is written on it.
fn label_size(edge: &Edge) -> Option<Size> {
    let lines = label_lines(edge);
    if lines.is_empty() {
        return None;
    }
    let widest = lines.iter().map(|line| width(line, LABEL_SIZE)).fold(0.0, f64::max);
    Some(Size { width: widest + 6.0, height: lines.len() as f64 * LABEL_LINE + 2.0 })
}

fn label(edge: &Edge, route: &Route) -> String {
    let Some(rect) = &route.label else { return String::new() };
    let Rect { at, size } = rect;
    let x = rect.centre().x;
    let lines = label_lines(edge).into_iter().enumerate().map(|(at_line, line)| {
        let y = at.y + LABEL_LINE * (at_line as f64 + 1.0) - 3.0;
        format!("<text class=\"label\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(&line))
    });
    format!(
        "<g><title>{}</title><rect class=\"behind\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"3\"/>{}</g>\n",
        escaped_lines(&edge.lines().join("\n")),
        at.x,
        at.y,
        size.width,
        size.height,
        lines.collect::<String>(),
    )
}

/// Straight where it runs upright, and a curve that leaves and arrives upright where it does not.
fn path(points: &[Point]) -> String {
    let mut path = String::new();
    let mut last: Option<Point> = None;
    for point in points {
        let Point { x, y } = *point;
        let piece = match last {
            None => format!("M{x:.1} {y:.1}"),
            Some(from) if (from.x - x).abs() < 0.5 => format!("L{x:.1} {y:.1}"),
            Some(from) => {
                let middle = f64::midpoint(from.y, y);
                format!("C{:.1} {middle:.1} {x:.1} {middle:.1} {x:.1} {y:.1}", from.x)
            }
        };
        path.push_str(&piece);
        last = Some(*point);
    }
    path
}
