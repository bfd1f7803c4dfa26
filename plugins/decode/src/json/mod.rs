//! `json_decode`: members of JSON objects as columns.

mod field;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::Field as ArrowField;
use pype_plugin::prelude::*;
use pype_plugin::{Inputs, Outputs};
use serde_json::Map;

use self::field::{Field, FieldSpec};
use crate::column::{Cell, Column, ColumnType};
use crate::decoding::{self, Reason, Rows, present};
use crate::keep::Keep;

/// Configs of `json_decode`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The columns and their types: `str`, `int`, `float`, `bool`, `timestamp` (an RFC 3339 text), `timestamp_s`,
    /// `timestamp_ms`, `timestamp_us`, `timestamp_ns` (a whole number since 1970) and `json` (anything, as JSON text). With
    /// `?` behind it (`str?`) a member may be null or missing. `{type: int, from: other}` takes the member of another name;
    /// a name that begins with `/` is a JSON pointer (`/address/city`).
    #[schemars(with = "BTreeMap<String, FieldSpec>")]
    fields: Map<String, Value>,
    /// A column for the members that no field takes, as one JSON object. Without it they are dropped.
    #[serde(default)]
    extra: Option<String>,
    /// Columns of the record that stay: `topic`, `partition`, `offset`, `timestamp`, `key`, `headers`.
    #[serde(default)]
    keep: Keep,
}

/// Values as JSON objects. A row is rejected as a whole, with all that is wrong with it.
pub(crate) struct JsonDecode {
    plan: Arc<Plan>,
    keep: Keep,
}

impl Mod for JsonDecode {
    const NAME: &str = "json_decode";
    const DESCRIPTION: &str = "Gives members of JSON objects as columns; what does not fit leaves at `errors`.";
    const CATEGORY: &str = "Decode";
    const INPUTS: &[&str] = decoding::INPUTS;
    const OUTPUTS: &[&str] = decoding::OUTPUTS;
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        let plan = Plan::of(&config)?;
        Ok(Self { keep: config.keep.checked(&plan.columns())?, plan: Arc::new(plan) })
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        decoding::decode(inputs, Objects::of(self.plan.clone()), &self.keep, ctx).await
    }
}

/// What is taken from each object.
struct Plan {
    fields: Vec<Field>,
    extra: Option<String>,
    /// The members that fields take, or parts of them.
    taken: HashSet<String>,
}

impl Plan {
    fn of(config: &Config) -> Result<Self> {
        let fields = config.fields.iter().map(|(name, spec)| Field::of(name, spec)).collect::<Result<Vec<_>>>()?;
        if fields.is_empty() && config.extra.is_none() {
            let message = "`fields` names no column";
            return Err(Error::new(ErrorKind::Config, "no-columns", message).hint("name one: `fields: {id: int}`"));
        }
        if let Some(extra) = config.extra.as_ref().filter(|extra| config.fields.contains_key(*extra)) {
            let message = format!("two columns would be called `{extra}`: one of `fields`, and `extra`");
            return Err(Error::new(ErrorKind::Config, "duplicate-column", message));
        }
        let taken = fields.iter().map(Field::member).collect();
        Ok(Self { fields, extra: config.extra.clone(), taken })
    }

    fn columns(&self) -> Vec<ArrowField> {
        let extra = self.extra.iter().map(|name| ArrowField::new(name, ColumnType::Text.data_type(), false));
        self.fields.iter().map(Field::column).chain(extra).collect()
    }

    /// The members that no field takes, as JSON text.
    fn rest(&self, object: &Map<String, Value>) -> String {
        let rest = object.iter().filter(|(name, _)| !self.taken.contains(*name));
        Value::Object(rest.map(|(name, value)| (name.clone(), value.clone())).collect()).to_string()
    }
}

struct Objects {
    plan: Arc<Plan>,
    columns: Vec<Column>,
    extra: Column,
}

impl Objects {
    fn of(plan: Arc<Plan>) -> Self {
        let columns = plan.fields.iter().map(|field| field.column_type().column()).collect();
        Self { plan, columns, extra: ColumnType::Text.column() }
    }

    /// The cells of an object, or all that is wrong with it.
    fn cells<'a>(&self, object: &'a Value) -> Result<Vec<Cell<'a>>, Reason> {
        let mut wrong = Vec::new();
        let cells = self.plan.fields.iter().map(|field| {
            field.cell(object).unwrap_or_else(|reason| {
                wrong.push(reason);
                Cell::Null
            })
        });
        let cells = cells.collect();
        if wrong.is_empty() { Ok(cells) } else { Err(wrong.join("; ")) }
    }
}

impl Rows for Objects {
    fn fields(&self) -> Vec<ArrowField> {
        self.plan.columns()
    }

    fn push(&mut self, value: Option<&[u8]>) -> Result<(), Reason> {
        let value =
            serde_json::from_slice(present(value)?).map_err(|error| format!("the value is not JSON: {error}"))?;
        let Value::Object(object) = &value else {
            return Err(format!("the value should be an object, but is {}", field::shown(&value)));
        };
        let cells = self.cells(&value)?;
        self.columns.iter_mut().zip(&cells).for_each(|(column, cell)| column.push(cell));
        if self.plan.extra.is_some() {
            self.extra.push(&Cell::Text(self.plan.rest(object).into()));
        }
        Ok(())
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        let mut columns: Vec<_> = self.columns.iter_mut().map(Column::finish).collect();
        if self.plan.extra.is_some() {
            columns.push(self.extra.finish());
        }
        columns
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, Int64Type, TimestampMicrosecondType};
    use pype_plugin::testing::module;
    use serde_json::json;

    use super::*;
    use crate::testing::{Given, decoded};

    #[test]
    fn members_become_columns_in_the_order_of_the_fields() {
        let config = json!({
            "fields": {
                "z": "int", "a": "str?", "ratio": "float", "ok": "bool", "at": "timestamp", "ms": "timestamp_ms?",
                "tags": "json?", "city": {"type": "str?", "from": "/address/city"}, "id": {"type": "int", "from": "key"},
            },
            "extra": "rest",
            "keep": ["offset", "key", "headers"],
        });
        let full = json!({
            "a": "x", "z": -7, "ratio": 2, "ok": true, "at": "2025-05-10T12:00:00.000001+02:00", "ms": 1500,
            "tags": [1, {"b": null}], "address": {"city": "Oslo", "zip": 1}, "key": 5, "more": {"y": 1}, "most": null,
        });
        let bare = json!({"z": 1, "ratio": 0.5, "ok": false, "at": "1970-01-01T00:00:00Z", "a": null, "key": 6});
        let done = decoded::<JsonDecode>(config, &[Given::value(full.to_string()), Given::value(bare.to_string())]);
        assert_eq!(done.errors, [""; 0]);
        let names = ["z", "a", "ratio", "ok", "at", "ms", "tags", "city", "id", "rest", "offset", "key", "headers"];
        assert_eq!(done.names(), names);
        let column = |name| done.rows.column_by_name(name).expect(name);
        assert_eq!(column("z").as_primitive::<Int64Type>().values(), &[-7, 1]);
        assert_eq!(column("ratio").as_primitive::<Float64Type>().values(), &[2.0, 0.5]);
        let at = column("at").as_primitive::<TimestampMicrosecondType>();
        assert_eq!((at.values().as_ref(), at.timezone()), ([1_746_871_200_000_001, 0].as_slice(), Some("UTC")));
        assert_eq!(
            column("ms").as_primitive::<TimestampMicrosecondType>().iter().collect::<Vec<_>>(),
            [Some(1_500_000), None]
        );
        let text = |name| column(name).as_string::<i32>().iter().collect::<Vec<_>>();
        assert_eq!(text("a"), [Some("x"), None]);
        assert_eq!(text("tags"), [Some(r#"[1,{"b":null}]"#), None]);
        assert_eq!(text("city"), [Some("Oslo"), None]);
        assert_eq!(text("rest"), [Some(r#"{"more":{"y":1},"most":null}"#), Some("{}")]);
        assert_eq!(column("key").as_binary::<i32>().value(1), b"k");
        assert_eq!(column("headers").as_list::<i32>().len(), 2);
    }

    #[test]
    fn what_does_not_fit_says_what_and_where() {
        let config = json!({"fields": {"n": "int", "at": "timestamp?", "t": "str?"}});
        let check = |value: &str, expect: &str| {
            let done = decoded::<JsonDecode>(config.clone(), &[Given::value(r#"{"n":1}"#), Given::value(value)]);
            assert_eq!(done.errors, [format!("1: {expect}")], "{value}");
            assert_eq!(done.offsets(), [0]);
        };
        check(r#"{"n":1.5}"#, "`n` should be int, but is the number `1.5`");
        check(r#"{"n":18446744073709551615}"#, "`n` should be int, but is the number `18446744073709551615`");
        check("{}", "`n` should be int, but is missing");
        check(r#"{"n":null}"#, "`n` should be int, but is null");
        check(
            r#"{"n":"7","t":[1]}"#,
            "`n` should be int, but is the text `7`; `t` should be str, but is the array `[1]`",
        );
        check(r#"{"n":1,"at":"yesterday"}"#, "`at` should be timestamp, but is the text `yesterday`");
        check(r#"{"n":1,"at":7}"#, "`at` should be timestamp, but is the number `7`");
        check("[]", "the value should be an object, but is the array `[]`");
        check("", "the value is not JSON: EOF while parsing a value at line 1 column 0");
        let long = format!(r#"{{"n":"{}"}}"#, "é".repeat(200));
        check(&long, &format!("`n` should be int, but is the text `{}…`", "é".repeat(60)));
    }

    #[test]
    fn configs_that_cannot_be_are_refused() {
        let check = |config: Value, expect: &str| {
            let error = module::<JsonDecode>(config).run().result.expect_err("refused");
            assert_eq!(error.message, expect);
        };
        check(json!({"fields": {"n": "integer"}}), "`fields`: the type of `n` is `integer`, which there is none of");
        check(json!({"fields": {"n": 7}}), "`fields`: `n` should be a type, or `{type: …, from: …}`");
        check(json!({"fields": {}}), "`fields` names no column");
        let both = "two columns would be called `offset`: a decoded one, and one of the record";
        check(json!({"fields": {"offset": "int"}}), both);
        let extra = "two columns would be called `n`: one of `fields`, and `extra`";
        check(json!({"fields": {"n": "int"}, "extra": "n"}), extra);
    }
}
