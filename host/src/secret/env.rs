//! Secrets in the environment of the process, and what keeps them there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::process::Command;

use super::{Answers, Lack};

const PREFIX: &str = "PYPE_SECRET_";

pub(super) fn ask(names: &BTreeSet<&str>, variable: &dyn Fn(&str) -> Option<OsString>) -> Answers {
    let answer = |name: &str| {
        let asked = variable_of(name);
        let help = format!("set the environment variable {asked}, or choose another origin with `--secrets`");
        let absent = || Lack::absent(format!("the secret `{name}` is not there: `{asked}` is not set"), &help);
        let value = variable(&asked).ok_or_else(absent)?;
        value.into_string().map_err(|_| Lack::unusable(format!("the secret `{name}` is not text"), &help))
    };
    names.iter().map(|name| ((*name).to_owned(), answer(name))).collect()
}

/// `db.password` → `PYPE_SECRET_DB_PASSWORD`.
fn variable_of(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('.', "_"))
}

/// What `{{env.NAME}}` stands for: the variable, unless it holds a secret. Nobody would know to mask that.
pub fn environment(name: &str) -> Option<String> {
    if is_secret(name) { None } else { std::env::var(name).ok() }
}

/// The variables of this process that hold secrets. Whoever is started would inherit them.
pub fn variables() -> Vec<String> {
    std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| is_secret(name)).collect()
}

/// Keeps secrets out of a child's environment.
pub fn conceal(command: &mut Command) -> &mut Command {
    variables().into_iter().fold(command, |command, name| command.env_remove(name))
}

fn is_secret(variable: &str) -> bool {
    variable.starts_with(PREFIX) || variable == "VAULT_TOKEN"
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_name_is_a_variable() {
        let variable = |name: &str| match name {
            "PYPE_SECRET_DB_PASSWORD" => Some("hunter2".into()),
            "PYPE_SECRET_RAW" => Some(OsString::from_vec(vec![0xff])),
            _ => None,
        };
        let answers = ask(&BTreeSet::from(["db.password", "raw", "db.user"]), &variable);
        assert_eq!(answers["db.password"], Ok("hunter2".to_owned()));
        let lack = |name: &str| answers[name].clone().expect_err("there is no such secret").message;
        assert_eq!(lack("raw"), "the secret `raw` is not text");
        assert_eq!(lack("db.user"), "the secret `db.user` is not there: `PYPE_SECRET_DB_USER` is not set");
    }

    #[test]
    fn templates_do_not_get_at_secrets_another_way() {
        assert!(is_secret("PYPE_SECRET_X") && is_secret("VAULT_TOKEN"));
        assert!(environment("PATH").is_some());
        assert_eq!(environment("VAULT_TOKEN"), None);
    }
}
