//! Secrets in a file that belongs to one user.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pype_core::document::{self, Node, Source};

use super::{Answers, Lack, SecretError};

pub(super) fn ask(path: &Path, names: &BTreeSet<&str>) -> Result<Answers, SecretError> {
    let source = Source::new(path, read(path)?);
    let tree = document::parse(&source).map_err(|found| {
        let span = found.iter().find_map(|one| one.span);
        let place =
            span.map_or("its end".to_owned(), |span| format!("line {}, column {}", span.start.line, span.start.column));
        SecretError::Malformed { path: path.to_owned(), place }
    })?;
    Ok(names.iter().map(|name| ((*name).to_owned(), answer(&tree.value, name, path))).collect())
}

/// The text of a file that nobody else may read or write. The file that was looked at is the one that is read.
pub(super) fn read(path: &Path) -> Result<String, SecretError> {
    let failed = |source: io::Error| SecretError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn answer(tree: &Node, name: &str, path: &Path) -> Result<String, Lack> {
    let path = path.display();
    let reached = name.split('.').try_fold(tree, |node, part| match node {
        Node::Map(entries) => entries.iter().find(|(key, _)| key.value == part).map(|(_, value)| &value.value),
        Node::Null | Node::Bool(_) | Node::Int(_) | Node::Float(_) | Node::Str(_) | Node::Seq(_) => None,
    });
    match reached {
        Some(Node::Str(value)) => Ok(value.clone()),
        None => Err(Lack::absent(
            format!("the secret `{name}` is not in `{path}`"),
            format!("add `{}` to `{path}`", nested(name)),
        )),
        Some(other) => Err(Lack::unusable(
            format!("the secret `{name}` in `{path}` must be text, not {}", other.kind()),
            "a number is text in quotes",
        )),
    }
}

/// `a.b` → `a: {b: "…"}`.
fn nested(name: &str) -> String {
    let (outer, last) = name.rsplit_once('.').unwrap_or(("", name));
    let parents = outer.split('.').filter(|part| !part.is_empty()).rev();
    parents.fold(format!("{last}: \"…\""), |inner, part| format!("{part}: {{{inner}}}"))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    fn written(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secrets.yaml");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode is set");
        (folder, path)
    }

    #[test]
    fn a_name_reaches_into_the_mappings() {
        for text in ["db:\n  password: hunter2\n  port: 5432\n", r#"{"db": {"password": "hunter2", "port": 5432}}"#] {
            let (_folder, path) = written(text, 0o600);
            let answers = ask(&path, &BTreeSet::from(["db.password", "db.port", "db.user", "db"])).expect("it is read");
            assert_eq!(answers["db.password"], Ok("hunter2".to_owned()));
            let lack = |name: &str| answers[name].clone().expect_err("it is no secret");
            assert!(lack("db.port").message.ends_with("must be text, not a whole number"));
            assert!(lack("db").message.ends_with("must be text, not a mapping"));
            assert!(lack("db.user").help.starts_with("add `db: {user: \"…\"}` to `"), "{}", lack("db.user").help);
        }
    }

    #[test]
    fn a_file_that_others_may_use_is_refused() {
        for mode in [0o644, 0o640, 0o620, 0o601] {
            let (_folder, path) = written("a: b\n", mode);
            let refused = ask(&path, &BTreeSet::new()).expect_err("others may use it");
            assert_eq!(refused.to_string(), format!("others may use `{}`: its mode is {mode:04o}", path.display()));
            assert_eq!(refused.hint(), format!("chmod 600 {}", path.display()));
        }
    }

    #[test]
    fn a_broken_file_is_not_repeated() {
        let (_folder, path) = written("db:\n  password: \"hunter2\n", 0o600);
        let message = ask(&path, &BTreeSet::new()).expect_err("it is no YAML").to_string();
        assert!(message.contains("is neither YAML nor JSON: see line"), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}
