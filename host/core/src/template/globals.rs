//! The values that modules announce while they run.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

/// A global was set for a second time. Globals never change, so that readers need not ask when.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("global `{node}__{name}` was set before and cannot change")]
pub struct GlobalSetTwice {
    /// The module.
    pub node: String,
    /// The global.
    pub name: String,
}

/// Globals by module and name, however they are cased. In a loop each item has its own, and sees those from outside.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Globals {
    own: BTreeMap<String, BTreeMap<String, Value>>,
    outer: Option<Arc<Globals>>,
}

impl Globals {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of one item of a loop: none yet, with those from outside the loop behind them.
    #[must_use]
    pub fn within(outer: Arc<Globals>) -> Self {
        Globals { own: BTreeMap::new(), outer: Some(outer) }
    }

    /// Sets one, once.
    ///
    /// # Errors
    /// If it has been set before.
    pub fn set(&mut self, node: &str, name: &str, value: Value) -> Result<(), GlobalSetTwice> {
        let of_node = self.own.entry(node.to_lowercase()).or_default();
        let name_of = name.to_lowercase();
        if of_node.contains_key(&name_of) {
            return Err(GlobalSetTwice { node: node.to_owned(), name: name.to_owned() });
        }
        of_node.insert(name_of, value);
        Ok(())
    }

    /// Forgets what a module has announced: it runs again.
    pub fn forget(&mut self, node: &str) {
        self.own.remove(&node.to_lowercase());
    }

    /// The value of one.
    #[must_use]
    pub fn get(&self, node: &str, name: &str) -> Option<&Value> {
        let (node, name) = (node.to_lowercase(), name.to_lowercase());
        let mut around = std::iter::successors(Some(self), |globals| globals.outer.as_deref());
        around.find_map(|globals| globals.own.get(&node)?.get(&name))
    }

    /// The value that a template name such as `Source_CSV__Row_Count` stands for.
    pub(super) fn resolve(&self, name: &str) -> Option<&Value> {
        split_global(name).find_map(|(node, variable)| self.get(node, variable))
    }
}

/// The ways to read `a__b__c` as module and variable, the longest module id first: both may
/// contain `__` themselves.
pub(crate) fn split_global(name: &str) -> impl Iterator<Item = (&str, &str)> {
    (1..name.len().saturating_sub(2)).rev().filter_map(move |at| {
        let (node, rest) = (name.get(..at)?, name.get(at..)?);
        Some((node, rest.strip_prefix("__")?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_matter_and_a_value_stays() {
        let mut globals = Globals::new();
        globals.set("Src", "Row_Count", Value::from(3)).expect("set for the first time");
        assert_eq!(globals.resolve("SRC__row_count"), Some(&Value::from(3)));
        assert!(globals.set("src", "ROW_COUNT", Value::from(4)).is_err());
        globals.forget("SRC");
        assert_eq!(globals.get("src", "row_count"), None);
    }

    #[test]
    fn an_item_sees_what_is_outside_its_loop_and_keeps_its_own() {
        let mut outer = Globals::new();
        outer.set("a", "x", Value::from(1)).expect("set for the first time");
        let outer = Arc::new(outer);
        let mut item = Globals::within(outer.clone());
        item.set("b", "x", Value::from(2)).expect("set for the first time");
        assert_eq!((item.get("a", "x"), item.get("b", "x")), (Some(&Value::from(1)), Some(&Value::from(2))));
        assert_eq!(Globals::within(outer).get("b", "x"), None);
    }

    #[test]
    fn double_underscores_may_stand_in_ids() {
        let ways: Vec<_> = split_global("a__b__c").collect();
        assert_eq!(ways, [("a__b", "c"), ("a", "b__c")]);
        assert_eq!(split_global("context").count(), 0);
        assert_eq!(split_global("__x").count(), 0);
    }
}
