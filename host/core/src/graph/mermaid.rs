//! As a Mermaid flowchart: for Markdown pages that draw it.

use std::fmt::Write;

use super::{Edge, EdgeKind, Graph, Standing};

impl Graph {
    /// As a Mermaid flowchart.
    #[must_use]
    pub fn mermaid(&self) -> String {
        let graph = self.legible();
        let mut text = format!("---\ntitle: {}\n---\nflowchart TB\n", quoted(&graph.title));
        graph.mermaid_frame(&mut text, None, 1);
        for edge in &graph.edges {
            text.push_str(&line(edge));
        }
        for mark in graph.marks() {
            let (fill, ink) = mark.colours();
            let class = mark.class();
            text.push_str(&format!("  classDef {class} fill:{fill},stroke:{ink},color:#1b1f24\n"));
            let members = graph.boxes.iter().enumerate();
            let members: Vec<String> = members
                .filter(|(_, one)| one.standing.as_ref().is_some_and(|standing| standing.mark == mark))
                .map(|(place, _)| format!("m{place}"))
                .collect();
            if !members.is_empty() {
                text.push_str(&format!("  class {} {class}\n", members.join(",")));
            }
        }
        text
    }

    /// What is in a frame, or outside of all.
    fn mermaid_frame(&self, text: &mut String, frame: Option<usize>, depth: usize) {
        let indent = "  ".repeat(depth);
        for (place, one) in self.boxes.iter().enumerate().filter(|(place, _)| self.frame_of(*place) == frame) {
            let standing = one.standing.as_ref().map(|standing| format!("<br>{}", escaped(&sign_and_line(standing))));
            let label = format!("{}<br>{}{}", escaped(&one.name), escaped(&one.about), standing.unwrap_or_default());
            text.push_str(&format!("{indent}m{place}[\"{label}\"]\n"));
        }
        let inner = self.groups.iter().enumerate().filter(|(_, group)| group.is_framed());
        for (place, group) in inner.filter(|(place, _)| self.frame_around(*place) == frame) {
            let standing = group.standing.as_ref().map(|standing| format!(" {}", sign_and_line(standing)));
            let heading = format!("{}{}", group.heading(), standing.unwrap_or_default());
            text.push_str(&format!("{indent}subgraph g{place}[\"{}\"]\n", escaped(&heading)));
            self.mermaid_frame(text, Some(place), depth + 1);
            text.push_str(&format!("{indent}end\n"));
        }
    }
}

fn sign_and_line(standing: &Standing) -> String {
    format!("{} {}", standing.mark.sign(), standing.line())
}

fn line(edge: &Edge) -> String {
    let label = edge.lines().iter().map(|line| escaped(line)).collect::<Vec<_>>().join("<br>");
    let (from, to) = (edge.from, edge.to);
    match edge.kind {
        EdgeKind::Next if label.is_empty() => format!("  m{from} --> m{to}\n"),
        EdgeKind::Data | EdgeKind::Next => format!("  m{from} -- \"{label}\" --> m{to}\n"),
        EdgeKind::Kept => format!("  m{from} == \"{label}\" ==> m{to}\n"),
        EdgeKind::Control | EdgeKind::Boundary => format!("  m{from} -. \"{label}\" .-> m{to}\n"),
    }
}

/// As a string of YAML.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is plain data")
}

/// Whatever Mermaid or HTML could take for its own becomes a number between `#` and `;`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '#' | '&' | '<' | '>' | '`' | '\\' | ';' | '*' | '~' | '$' => {
                write!(escaped, "#{};", u32::from(character)).expect("writing to a string does not fail");
            }
            control if control.is_control() => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}
