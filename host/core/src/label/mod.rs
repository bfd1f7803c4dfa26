//! Rules over labels: which modules, flows or records are meant.
//!
//! A [`Rule`] is a tree of `all`, `any`, `not` and tests of one label each. There are three ways to make one, which
//! give the same rule:
//!
//! ```
//! use pype_core::document::{Source, parse};
//! use pype_core::label::{Rule, label};
//!
//! let built = label("tier").is_in(["gold", "silver"]) & !label("beta").is_set() & label("age").between(1, 5);
//! let text: Rule = "tier in (gold, silver) and not beta and age between 1 and 5".parse()?;
//! let source = Source::new("rule.yaml", "
//! all:
//!   - match: {key: tier, op: in, values: [gold, silver]}
//!   - not: {all: [{match: {key: beta, op: exists}}, {match: {key: beta, op: notin, values: [null, false]}}]}
//!   - match: {key: age, op: between, range: {low: 1, high: 5}}
//! ");
//! let read = Rule::read(&source, &parse(&source).expect("it is YAML")).expect("it is a rule");
//! assert!(built == text && text == read);
//! # Ok::<(), pype_core::label::TextError>(())
//! ```
//!
//! # What a test says
//!
//! Labels are plain values. Numbers compare by value (`1.0` equals `1`), texts by the order of their characters' code
//! points. A boolean, null, a list or a mapping has no order, and nothing equals a value of another kind: `true` is not
//! `1`, `"1"` is not `1`. A label of another kind than the test asks for is no failure, the test is just not met.
//!
//! | operator | in text | met if | key missing |
//! |---|---|---|---|
//! | `eq` | `tier = gold` | the label has this value | no |
//! | `gt` `gte` `lt` `lte` | `size >= 3` | the label is of the same kind and stands so | no |
//! | `in` | `tier in (gold, silver)` | it has one of these values | no |
//! | `between` | `age between 1 and 5`, `age between [1, 5)` | it lies in the range; a null bound is open | no |
//! | `exists` | `tier exists` | there is such a label, be it null | no |
//! | `ne` | `tier != gold` | `eq` is not met | **yes** |
//! | `notin` | `tier not in (gold)` | `in` is not met | **yes** |
//! | `notbetween` | `age not between 1 and 5` | `between` is not met | **yes** |
//!
//! Operators and the words of the text form may be in any case, keys and values may not.
//!
//! # The text form
//!
//! `not` binds closest, then `and`, then `or`; parentheses group. A key alone, as in `not beta`, is met if there is
//! such a label and it is neither `false` nor null; it stands for `beta exists and beta not in (null, false)`. `true`
//! and `false` alone are the rules that are always and never met, `all: []` and `any: []` in YAML. Words of letters,
//! digits and `_ - . / : @ +` need no quotes unless they are words of the language or would be read as something else
//! than text. `'it''s'` and `"a \"b\"\n"` are quoted texts. Numbers, `true`, `false` and `null` are recognised as in
//! YAML.
//!
//! Rules are kept flat: an `all` in an `all` becomes part of it, an `all` of one rule is that rule, and so for `any`;
//! two `not` in a row vanish. None of this changes what meets a rule.

mod build;
mod interval;
mod operator;
mod print;
mod rule;
mod schema;
mod serial;
mod text;
mod token;
mod value;
mod yaml;

pub use build::{Label, label};
pub use interval::{Interval, IntervalError};
pub use operator::Test;
pub use rule::{Branch, Rule, select};
pub use text::TextError;
pub use value::{Literal, Ordered};

/// Deeper than any rule that a person writes. A rule from outside is no deeper, so walking it cannot exhaust the stack.
const MAX_DEPTH: usize = 48;
