//! `text_decode`: the value as it is, if it is text.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_array::builder::StringBuilder;
use arrow_schema::{DataType, Field};
use pype_plugin::prelude::*;
use pype_plugin::{Inputs, Outputs};

use crate::decoding::{self, Reason, Rows};
use crate::keep::Keep;

/// Configs of `text_decode`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What the column is called.
    #[serde(default = "text")]
    column: String,
    /// Columns of the record that stay: `topic`, `partition`, `offset`, `timestamp`, `key`, `headers`.
    #[serde(default)]
    keep: Keep,
}

fn text() -> String {
    "text".to_owned()
}

/// Values as UTF-8. A record without a value has none in its row.
pub(crate) struct TextDecode {
    column: String,
    keep: Keep,
}

impl Mod for TextDecode {
    const NAME: &str = "text_decode";
    const DESCRIPTION: &str = "Gives the values of records as text; what is not UTF-8 leaves at `errors`.";
    const CATEGORY: &str = "Decode";
    const INPUTS: &[&str] = decoding::INPUTS;
    const OUTPUTS: &[&str] = decoding::OUTPUTS;
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        let keep = config.keep.checked(&Texts::new(&config.column).fields())?;
        Ok(Self { column: config.column, keep })
    }

    async fn run(&mut self, inputs: Inputs, ctx: &Context) -> Result<Outputs> {
        decoding::decode(inputs, Texts::new(&self.column), &self.keep, ctx).await
    }
}

struct Texts {
    column: String,
    texts: StringBuilder,
}

impl Texts {
    fn new(column: &str) -> Self {
        Self { column: column.to_owned(), texts: StringBuilder::new() }
    }
}

impl Rows for Texts {
    fn fields(&self) -> Vec<Field> {
        vec![Field::new(&self.column, DataType::Utf8, true)]
    }

    fn push(&mut self, value: Option<&[u8]>) -> Result<(), Reason> {
        let text = value.map(std::str::from_utf8).transpose();
        self.texts.append_option(text.map_err(|error| format!("the value is not UTF-8: {error}"))?);
        Ok(())
    }

    fn finish(&mut self) -> Vec<ArrayRef> {
        vec![Arc::new(self.texts.finish())]
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use serde_json::json;

    use super::*;
    use crate::testing::{Given, decoded};

    #[test]
    fn text_stays_text_and_the_rest_is_rejected() {
        let given = [Given::value("añ"), Given::value(b"a\xff"), Given::none(), Given::value("")];
        let done = decoded::<TextDecode>(json!({"column": "line", "keep": ["offset"]}), &given);
        assert_eq!(done.names(), ["line", "offset"]);
        let texts: Vec<_> = done.rows.column(0).as_string::<i32>().iter().collect();
        assert_eq!(texts, [Some("añ"), None, Some("")]);
        assert_eq!(done.offsets(), [0, 2, 3]);
        assert_eq!(done.errors.len(), 1);
        assert!(done.errors[0].starts_with("1: the value is not UTF-8: invalid utf-8 sequence"), "{:?}", done.errors);
    }
}
