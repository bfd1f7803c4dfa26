//! What `iter.*` stands for.

use std::sync::Arc;

use serde_json::{Map, Value};

/// One turn of a loop.
#[derive(Debug, Clone, PartialEq)]
pub struct Iteration {
    /// `iter.item`: what this turn is about.
    pub item: Value,
    /// `iter.index`: how many turns came before it.
    pub index: u64,
    /// `iter.outer`: the turn of the loop around this one.
    pub outer: Option<Arc<Iteration>>,
}

impl Iteration {
    /// What templates reach into.
    pub(super) fn to_json(&self) -> Value {
        let mut values = Map::new();
        values.insert("item".to_owned(), self.item.clone());
        values.insert("index".to_owned(), self.index.into());
        if let Some(outer) = &self.outer {
            values.insert("outer".to_owned(), outer.to_json());
        }
        Value::Object(values)
    }
}

/// How many loops a dotted name asks for, without `iter.` before it: `item` for one, `outer.item` for two. `None` if
/// it is no name of a loop.
pub(crate) fn depth(name: &str) -> Option<usize> {
    let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
    match first {
        "item" => Some(1),
        "index" => rest.is_none().then_some(1),
        "outer" => Some(1 + depth(rest?)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_how_many_loops_it_asks_for() {
        let depths = ["item", "item.a.b", "index", "outer.index", "outer.outer.item.x"].map(depth);
        assert_eq!(depths, [Some(1), Some(1), Some(1), Some(2), Some(3)]);
        assert_eq!(["", "items", "index.x", "outer", "outer.x"].map(depth), [None; 5]);
    }
}
