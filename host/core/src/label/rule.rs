//! The tree, and what it means for a set of labels.

use std::collections::BTreeSet;
use std::ops::{BitAnd, BitOr, Not};

use serde_json::{Map, Value};

use super::operator::Test;
use super::value::Literal;
use super::yaml;
use crate::diagnostic::Diagnostics;
use crate::document::{Node, Source, Spanned};

/// A condition on labels. It combines by `&`, `|` and `!`, and prints as text that parses to an equal rule.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule(Branch);

/// The four sorts of rule. Only [`Rule::all`], [`Rule::any`] and `!` make the first three: there is never a branch
/// directly in one of its own sort, nor an `All` or `Any` of exactly one.
#[derive(Debug, Clone, PartialEq)]
pub enum Branch {
    /// Every one is met.
    All(Vec<Rule>),
    /// At least one is met.
    Any(Vec<Rule>),
    /// It is not met.
    Not(Box<Rule>),
    /// One label passes one test.
    Match {
        /// The name of the label.
        key: String,
        /// What is asked of it.
        test: Test,
    },
}

impl Rule {
    /// The rule that is met if all of these are; met by anything if there are none.
    #[must_use]
    pub fn all(rules: impl IntoIterator<Item = Rule>) -> Rule {
        let mut flat = Vec::new();
        for rule in rules {
            match rule.0 {
                Branch::All(inner) => adopt(&mut flat, inner),
                branch @ (Branch::Any(_) | Branch::Not(_) | Branch::Match { .. }) => flat.push(Rule(branch)),
            }
        }
        sole(flat).unwrap_or_else(|flat| Rule(Branch::All(flat)))
    }

    /// The rule that is met if one of these is; met by nothing if there are none.
    #[must_use]
    pub fn any(rules: impl IntoIterator<Item = Rule>) -> Rule {
        let mut flat = Vec::new();
        for rule in rules {
            match rule.0 {
                Branch::Any(inner) => adopt(&mut flat, inner),
                branch @ (Branch::All(_) | Branch::Not(_) | Branch::Match { .. }) => flat.push(Rule(branch)),
            }
        }
        sole(flat).unwrap_or_else(|flat| Rule(Branch::Any(flat)))
    }

    /// Reads a rule from a document: the tree, or its text form where a rule is expected and a text stands.
    ///
    /// # Errors
    /// All that is wrong, each at its place and with its path in the rule, such as `all[1].match.op`.
    pub fn read(source: &Source, node: &Spanned<Node>) -> Result<Rule, Diagnostics> {
        yaml::read(source, node)
    }

    /// Do these labels meet the rule?
    #[must_use]
    pub fn matches(&self, labels: &Map<String, Value>) -> bool {
        match &self.0 {
            Branch::All(rules) => rules.iter().all(|rule| rule.matches(labels)),
            Branch::Any(rules) => rules.iter().any(|rule| rule.matches(labels)),
            Branch::Not(rule) => !rule.matches(labels),
            Branch::Match { key, test } => test.passes(labels.get(key)),
        }
    }

    /// The labels that it asks for.
    #[must_use]
    pub fn keys(&self) -> BTreeSet<&str> {
        match &self.0 {
            Branch::All(rules) | Branch::Any(rules) => rules.iter().flat_map(Rule::keys).collect(),
            Branch::Not(rule) => rule.keys(),
            Branch::Match { key, .. } => BTreeSet::from([key.as_str()]),
        }
    }

    pub(super) fn of(key: impl Into<String>, test: Test) -> Rule {
        Rule(Branch::Match { key: key.into(), test })
    }

    /// What a key alone says in the text form.
    pub(super) fn is_set(key: String) -> Rule {
        Rule::all([Rule::of(key.clone(), Test::Exists), Rule::of(key, Test::NotIn(unset()))])
    }

    /// Which sort of rule it is, and of what: for those who turn rules into something else, such as a query.
    #[must_use]
    pub fn branch(&self) -> &Branch {
        &self.0
    }

    /// How many rules lie within each other, this one counted.
    pub(super) fn depth(&self) -> usize {
        match &self.0 {
            Branch::All(rules) | Branch::Any(rules) => 1 + rules.iter().map(Rule::depth).max().unwrap_or(0),
            Branch::Not(rule) => 1 + rule.depth(),
            Branch::Match { .. } => 1,
        }
    }
}

/// Takes over the rules of a branch; the first without moving each, so that `a & b & c …` stays linear.
fn adopt(flat: &mut Vec<Rule>, inner: Vec<Rule>) {
    if flat.is_empty() {
        *flat = inner;
    } else {
        flat.extend(inner);
    }
}

fn sole(mut rules: Vec<Rule>) -> Result<Rule, Vec<Rule>> {
    match rules.pop() {
        Some(rule) if rules.is_empty() => Ok(rule),
        last => {
            rules.extend(last);
            Err(rules)
        }
    }
}

/// The values of a label that is there and says no.
pub(super) fn unset() -> Vec<Literal> {
    vec![Literal::Null, Literal::Bool(false)]
}

impl BitAnd for Rule {
    type Output = Rule;

    fn bitand(self, other: Rule) -> Rule {
        Rule::all([self, other])
    }
}

impl BitOr for Rule {
    type Output = Rule;

    fn bitor(self, other: Rule) -> Rule {
        Rule::any([self, other])
    }
}

impl Not for Rule {
    type Output = Rule;

    fn not(self) -> Rule {
        match self.0 {
            Branch::Not(rule) => *rule,
            branch @ (Branch::All(_) | Branch::Any(_) | Branch::Match { .. }) => {
                Rule(Branch::Not(Box::new(Rule(branch))))
            }
        }
    }
}

/// The items whose labels meet the rule, in their order. An item is taken only when the next result is asked for.
pub fn select<I: IntoIterator>(
    items: I,
    rule: &Rule,
    labels: impl Fn(&I::Item) -> &Map<String, Value>,
) -> impl Iterator<Item = I::Item> {
    items.into_iter().filter(move |item| rule.matches(labels(item)))
}
