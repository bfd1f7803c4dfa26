//! `validate`: holds the context to a JSON Schema.

use jsonschema::Validator;
use pype_plugin::prelude::*;
use serde_json::Map;

pub(crate) struct Validate {
    validator: Validator,
}

/// What the context must be.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// A JSON Schema for the fields that are JSON, as one object: `{required: [email], properties: {email: {format: email}}}`.
    schema: Value,
}

impl Execute for Validate {
    const NAME: &'static str = "validate";
    const DESCRIPTION: &'static str = "Refuses contexts that do not fit a JSON Schema";
    const CATEGORY: &'static str = "Control";
    const PACKAGES: &'static [&'static str] = &["jsonschema"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        let options = jsonschema::options().should_validate_formats(true);
        let validator = options.build(&config.schema).map_err(|error| {
            Error::new(ErrorKind::Config, "bad-schema", format!("`schema` is no JSON Schema: {error}"))
        })?;
        Ok(Self { validator })
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, _: &Context) -> Result<Value> {
        let mut fields = Map::new();
        for name in ctx.names() {
            if let Some(pype_plugin::Field::Json(value)) = ctx.field(&name)? {
                fields.insert(name, value);
            }
        }
        let fields = Value::Object(fields);
        // Where, and what is asked; values may be secret.
        let wrong: Vec<String> = self.validator.iter_errors(&fields).map(|error| problem(&error)).collect();
        if wrong.is_empty() {
            return next.run(ctx).await;
        }
        Err(Error::new(ErrorKind::Data, "invalid-context", format!("the context is not valid: {}", wrong.join("; "))))
    }
}

fn problem(error: &jsonschema::ValidationError<'_>) -> String {
    let place = error.instance_path().to_string();
    let place = if place.is_empty() { "the context".to_owned() } else { format!("`{}`", &place[1..]) };
    format!("{place}: {}", error.masked())
}

#[cfg(test)]
mod tests {
    use pype_plugin::testing::stage;
    use serde_json::json;

    use super::*;

    #[test]
    fn contexts_that_do_not_fit_are_refused_with_all_that_is_wrong() {
        let schema = json!({"required": ["size"], "properties": {"name": {"maxLength": 3}, "size": {"minimum": 1}}});
        let test = |name: &str| stage::<Validate>(json!({ "schema": schema })).field("name", json!(name));
        assert!(test("abc").field("size", json!(1)).run().result.is_ok());
        let error = test("secret").run().result.expect_err("refused");
        assert!(error.message.contains("`name`") && error.message.contains("size"), "{error}");
        assert!(!error.message.contains("secret"), "{error}");
        let error = stage::<Validate>(json!({"schema": {"type": 7}})).run().result.expect_err("refused");
        assert_eq!(error.code, "bad-schema");
    }
}
