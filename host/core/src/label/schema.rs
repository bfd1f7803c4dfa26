//! The JSON Schema of a rule: what an editor, or the host before a run, can say of one without reading it.

use serde_json::{Value, json};

use super::operator::{Operand, Operator};
use super::rule::Rule;

impl Rule {
    /// The JSON Schema (2020-12) of what [`Rule::read`] reads. `nested` is the schema of rules in the rule: a reference
    /// to where this one is put. It takes all that is a rule; what it lets pass and is none (a malformed text, an
    /// operand of another operator, a range in which nothing lies) is for reading to refuse.
    #[must_use]
    pub fn json_schema(nested: &Value) -> Value {
        let list = |about: &str| json!({"type": "array", "items": nested, "description": about});
        json!({
            "description": "A rule over labels: one of `all: […]`, `any: […]`, `not: {…}`, `match: {key, op, …}`, or text.",
            "anyOf": [
                {"type": "string", "description": "The rule as text: `tier in (gold, silver) and not beta`."},
                branch("all", &list("Every one of these rules is met.")),
                branch("any", &list("One of these rules is met.")),
                branch("not", nested),
                branch("match", &matched()),
            ]
        })
    }
}

fn branch(key: &str, rule: &Value) -> Value {
    json!({"type": "object", "properties": {key: rule}, "required": [key], "additionalProperties": false})
}

fn matched() -> Value {
    json!({
        "type": "object",
        "description": "What is asked of one label.",
        "properties": {
            "key": {"type": "string", "description": "The name of the label."},
            "op": {
                "type": "string",
                "description": format!("The operator: {}.", Operator::ALL.map(Operator::name).join(", ")),
                "pattern": pattern(Operator::ALL),
            },
            "value": {
                "type": ["string", "number", "boolean", "null"],
                "description": "What `eq`, `ne`, `gt`, `gte`, `lt` and `lte` compare with.",
            },
            "values": {
                "type": "array",
                "items": {"type": ["string", "number", "boolean", "null"]},
                "description": "What `in` and `notin` compare with.",
            },
            "range": range(),
        },
        "required": ["key", "op"],
        "additionalProperties": false,
        "allOf": Operator::ALL.into_iter().filter_map(needs).collect::<Vec<_>>(),
    })
}

fn range() -> Value {
    let bound = json!({"type": ["string", "number", "null"], "description": "Left out or null, this side is open."});
    let sides = json!({"low": {"type": "boolean"}, "high": {"type": "boolean"}});
    json!({
        "type": "object",
        "description": "What `between` and `notbetween` compare with.",
        "properties": {
            "low": bound,
            "high": bound,
            "inclusive": {
                "description": "Whether the bounds themselves lie in the range: both, or each. True when left out.",
                "anyOf": [
                    {"type": "boolean"},
                    {"type": "object", "properties": sides, "additionalProperties": false}
                ]
            }
        },
        "additionalProperties": false,
    })
}

/// With this operator, its operand.
fn needs(operator: Operator) -> Option<Value> {
    let key = operator.operand().key()?;
    let mut then = json!({"required": [key]});
    if let Operand::Ordered(_) = operator.operand() {
        then["properties"] = json!({key: {"type": ["string", "number"]}});
    }
    let is_it = json!({"properties": {"op": {"pattern": pattern([operator])}}, "required": ["op"]});
    Some(json!({"if": is_it, "then": then}))
}

/// The names in whatever case, for which the patterns of JSON Schema have no flag.
fn pattern(operators: impl IntoIterator<Item = Operator>) -> String {
    let any_case = |name: &str| name.chars().map(|c| format!("[{c}{}]", c.to_ascii_uppercase())).collect::<String>();
    let names: Vec<String> = operators.into_iter().map(|operator| any_case(operator.name())).collect();
    format!("^(?:{})$", names.join("|"))
}
