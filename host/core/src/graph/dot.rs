//! In the language of Graphviz.

use super::{Edge, EdgeKind, Graph, GroupKind, Standing};

impl Graph {
    /// In the language of Graphviz.
    #[must_use]
    pub fn dot(&self) -> String {
        let graph = self.legible();
        let mut text = format!("digraph {} {{\n", quoted(std::slice::from_ref(&graph.title)));
        text.push_str("  graph [rankdir=TB, fontname=\"sans-serif\", fontsize=11, nodesep=0.4]\n");
        text.push_str("  node [shape=box, style=\"rounded,filled\", fillcolor=\"#ffffff\", color=\"#8c959f\", ");
        text.push_str("fontname=\"sans-serif\", fontsize=11]\n");
        text.push_str("  edge [fontname=\"sans-serif\", fontsize=9, color=\"#59636e\"]\n");
        graph.dot_frame(&mut text, None, 1);
        graph.edges.iter().for_each(|edge| text.push_str(&line(edge)));
        text.push_str("}\n");
        text
    }

    /// What is in a frame, or outside of all.
    fn dot_frame(&self, text: &mut String, frame: Option<usize>, depth: usize) {
        let indent = "  ".repeat(depth);
        for (place, one) in self.boxes.iter().enumerate().filter(|(place, _)| self.frame_of(*place) == frame) {
            let standing = one.standing.as_ref();
            let lines: Vec<String> =
                [one.name.clone(), one.about.clone()].into_iter().chain(standing.map(sign_and_line)).collect();
            let colours = standing.map(|standing| {
                let (fill, ink) = standing.mark.colours();
                format!(", fillcolor=\"{fill}\", color=\"{ink}\"")
            });
            text.push_str(&format!("{indent}m{place} [label={}{}]\n", quoted(&lines), colours.unwrap_or_default()));
        }
        let inner = self.groups.iter().enumerate().filter(|(_, group)| group.is_framed());
        for (place, group) in inner.filter(|(place, _)| self.frame_around(*place) == frame) {
            let lines: Vec<String> =
                std::iter::once(group.heading()).chain(group.standing.as_ref().map(sign_and_line)).collect();
            let ink = group.standing.as_ref().map_or("#8c959f", |standing| standing.mark.colours().1);
            let style = if group.kind == GroupKind::Loop { "rounded,dashed" } else { "rounded" };
            text.push_str(&format!("{indent}subgraph cluster_{place} {{\n"));
            text.push_str(&format!("{indent}  label={}; style=\"{style}\"; color=\"{ink}\";\n", quoted(&lines)));
            self.dot_frame(text, Some(place), depth + 1);
            text.push_str(&format!("{indent}}}\n"));
        }
    }
}

fn sign_and_line(standing: &Standing) -> String {
    format!("{} {}", standing.mark.sign(), standing.line())
}

fn line(edge: &Edge) -> String {
    let style = match edge.kind {
        EdgeKind::Data | EdgeKind::Next => "",
        EdgeKind::Kept => ", style=bold",
        EdgeKind::Control => ", style=dashed",
        EdgeKind::Boundary => ", style=\"bold,dashed\"",
    };
    format!("  m{} -> m{} [label={}{style}]\n", edge.from, edge.to, quoted(&edge.lines()))
}

/// Lines as one string. Backslashes are escapes to Graphviz, so they are doubled.
fn quoted(lines: &[String]) -> String {
    let escaped = |line: &String| {
        let plain: String = line.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
        plain.replace('\\', "\\\\").replace('"', "\\\"")
    };
    format!("\"{}\"", lines.iter().map(escaped).collect::<Vec<_>>().join("\\n"))
}
