//! Subjects as NATS has them: parts between dots.

use pype_plugin::prelude::*;

/// Refuses what cannot be published to.
pub(crate) fn check_target(subject: &str) -> Result<()> {
    check(subject)?;
    match subject.split('.').any(|part| part == "*" || part == ">") {
        true => Err(bad(subject, "has a wildcard, and messages go to one subject")),
        false => Ok(()),
    }
}

/// Refuses what cannot be listened to: `*` stands for one part, `>` at the end for one or more.
pub(crate) fn check(subject: &str) -> Result<()> {
    if subject.chars().any(|char| char.is_whitespace() || char.is_control()) {
        return Err(bad(subject, "holds a space"));
    }
    let mut parts = subject.split('.').rev();
    if parts.clone().any(str::is_empty) {
        return Err(bad(subject, "has an empty part"));
    }
    parts.next();
    match parts.any(|part| part == ">") {
        true => Err(bad(subject, "has a `>` before its end")),
        false => Ok(()),
    }
}

fn bad(subject: &str, why: &str) -> Error {
    let message = format!("`subject`: `{}` {why}", subject.escape_debug());
    Error::new(ErrorKind::Config, "bad-subject", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_parts_between_dots() {
        for subject in ["orders", "orders.new", "$KV.a.b-c_d=", "a*b", "é"] {
            assert_eq!((check(subject), check_target(subject)), (Ok(()), Ok(())));
        }
        for (subject, why) in [
            ("", "empty part"),
            ("a..b", "empty part"),
            (".a", "empty part"),
            ("a.", "empty part"),
            ("a b", "space"),
            ("a\r\nPUB b 0", "space"),
            ("a.>.b", "before its end"),
        ] {
            let error = check(subject).expect_err(subject);
            assert!(error.message.contains(why), "{subject}: {error}");
        }
        for subject in ["*", ">", "a.*.b", "a.>"] {
            assert_eq!(check(subject), Ok(()));
            assert!(check_target(subject).expect_err(subject).message.contains("wildcard"));
        }
    }
}
