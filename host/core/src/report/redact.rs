//! Configs as a report may show them.
//!
//! A plan's configs hold templates, never what they stand for, so a secret that is kept where secrets are kept is not in
//! them. What somebody wrote into the flow itself nevertheless is hidden as far as a name or a URL gives it away.

use serde_json::{Map, Value};

const HIDDEN: &str = "••••••";
/// Parts of keys whose values nobody else is to read.
const SECRET: [&str; 9] =
    ["password", "passwd", "passphrase", "secret", "token", "api_key", "apikey", "access_key", "credential"];

/// The same without what looks like a secret. A template is not one.
pub(super) fn without_secrets(value: &Value) -> Value {
    match value {
        Value::Object(entries) => Value::Object(entries.iter().map(entry).collect::<Map<_, _>>()),
        Value::Array(items) => items.iter().map(without_secrets).collect(),
        Value::String(text) => Value::String(without_password(text)),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain.clone(),
    }
}

fn entry((key, value): (&String, &Value)) -> (String, Value) {
    let lower = key.to_lowercase().replace('-', "_");
    let is_secret = SECRET.iter().any(|part| lower.contains(part));
    let is_plain = value.as_str().is_some_and(|text| !text.contains("{{")) || value.is_number();
    let value = if is_secret && is_plain { Value::from(HIDDEN) } else { without_secrets(value) };
    (key.clone(), value)
}

/// `scheme://user:password@host` without the password.
fn without_password(text: &str) -> String {
    let hidden = || {
        let (scheme, rest) = text.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (account, _) = authority.rsplit_once('@')?;
        let (user, password) = account.split_once(':')?;
        let template = password.contains("{{");
        (!template).then(|| format!("{scheme}://{user}:{HIDDEN}{}", &rest[account.len()..]))
    };
    hidden().unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_hidden() {
        let configs = json!({
            "Password": "hunter2", "aws-secret-access-key": "abc", "token": "{{secret.mail.token}}", "port": 5432,
            "url": "postgres://ana:hunter2@db/orders?a=b@c", "plain": "https://example.org/a@b:c", "list": [{"api_key": 7}],
        });
        let shown = json!({
            "Password": HIDDEN, "aws-secret-access-key": HIDDEN, "token": "{{secret.mail.token}}", "port": 5432,
            "url": format!("postgres://ana:{HIDDEN}@db/orders?a=b@c"), "plain": "https://example.org/a@b:c",
            "list": [{"api_key": HIDDEN}],
        });
        assert_eq!(without_secrets(&configs), shown);
    }
}
