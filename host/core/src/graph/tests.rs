use super::layout::Rect;
use super::*;

fn module(name: &str, group: usize) -> ModuleBox {
    let id = name.parse().expect("a name");
    ModuleBox { group, ..ModuleBox::named(&id, ModuleKind::Solo, "m") }
}

fn group(number: usize, boxes: &[usize], within: Option<usize>) -> Group {
    Group {
        name: format!("g{number}"),
        within,
        kind: if boxes.is_empty() { GroupKind::Loop } else { GroupKind::SubFlow },
        boxes: boxes.to_vec(),
        after: Vec::new(),
        standing: None,
    }
}

/// `list` → loop { `get`, loop { `page` → `save` } }.
fn nested() -> Graph {
    let edge = |from, to, label: &str, kind| Edge { from, to, kind, label: label.to_owned(), volume: None };
    Graph {
        title: "nested".to_owned(),
        groups: vec![
            group(0, &[0], None),
            group(1, &[], None),
            group(2, &[1], Some(1)),
            group(3, &[], Some(1)),
            group(4, &[2, 3], Some(3)),
        ],
        boxes: vec![module("list", 0), module("get", 2), module("page", 4), module("save", 4)],
        edges: vec![
            edge(0, 1, "1|iterate:months", EdgeKind::Control),
            edge(1, 2, "1|iterate:pages", EdgeKind::Control),
            edge(2, 3, "data → input", EdgeKind::Data),
        ],
    }
}

#[test]
fn loops_stand_around_what_runs_in_them() {
    let text = nested().mermaid();
    let expect = "\
---
title: \"nested\"
---
flowchart TB
  m0[\"list<br>m · solo\"]
  subgraph g1[\"loop over g1\"]
    m1[\"get<br>m · solo\"]
    subgraph g3[\"loop over g3\"]
      subgraph g4[\"sub flow g4\"]
        m2[\"page<br>m · solo\"]
        m3[\"save<br>m · solo\"]
      end
    end
  end
  m0 -. \"1|iterate:months\" .-> m1
  m1 -. \"1|iterate:pages\" .-> m2
  m2 -- \"data → input\" --> m3
";
    assert_eq!(text, expect);
    assert_eq!(nested().dot().matches("subgraph cluster_").count(), 3);
}

#[test]
fn frames_of_loops_nest() {
    let (diagram, frames) = nested().diagram();
    let picture = diagram.picture();
    let frame = |group: usize| picture.blocks[frames[group].expect("it has a frame")];
    let holds = |outer: Rect, inner: Rect| {
        outer.at.x < inner.at.x
            && outer.at.y < inner.at.y
            && inner.at.x + inner.size.width < outer.at.x + outer.size.width
            && inner.at.y + inner.size.height < outer.at.y + outer.size.height
    };
    assert!(holds(frame(1), frame(3)) && holds(frame(3), frame(4)));
    assert!(holds(frame(4), picture.blocks[2]) && holds(frame(4), picture.blocks[3]));
    assert!(holds(frame(1), picture.blocks[1]) && !holds(frame(1), picture.blocks[0]));
}
