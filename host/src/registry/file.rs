//! A registry file as text: read whole, changed under a lock, replaced by rename.
//!
//! What is rewritten is the JSON itself, not the catalog that was parsed from it, so entries that this pype cannot
//! read stay as they are.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::RegistryError;
use crate::durable;

/// The entries of a registry file by name, valid or not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Modules(Map<String, Value>);

impl Modules {
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, RegistryError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map(Self).map_err(|cause| RegistryError::Malformed {
            path: path.to_owned(),
            line: cause.line(),
            column: cause.column().max(1),
            cause: without_place(&cause.to_string()),
        })
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(super) fn insert(&mut self, name: &str, entry: Value) {
        self.0.insert(name.to_owned(), entry);
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.shift_remove(name);
    }

    /// The modules, valid or not.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().filter(|(name, _)| *name != "_metadata").map(|(name, entry)| (name.as_str(), entry))
    }

    /// Sorted, so that two registrations change different lines.
    pub(super) fn to_text(&self) -> String {
        let mut sorted = self.0.clone();
        sorted.sort_keys();
        let text = serde_json::to_string_pretty(&sorted).expect("JSON values are plain data");
        text + "\n"
    }
}

/// The file's text; none if there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, RegistryError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RegistryError::Io { doing: "read", path: path.to_owned(), source }),
    }
}

/// Reads, changes and replaces the file while no other process does. An error of `change` leaves it as it was.
pub(super) fn update<T>(
    path: &Path,
    change: impl FnOnce(&mut Modules) -> Result<T, RegistryError>,
) -> Result<T, RegistryError> {
    // A registry that is a link is written where the link leads.
    let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let failed = |doing| move |source| RegistryError::Io { doing, path: path.clone(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(failed("write"))?;
    // The lock is a file of its own: the registry itself is replaced, and a lock on the old one would guard nothing.
    // It stays, because removing it while somebody waits for it would let two in.
    let lock = File::create(folder.join(".modules.json.lock")).map_err(failed("lock"))?;
    lock.lock().map_err(failed("lock"))?;
    let old = read(path)?;
    let mut modules = Modules::parse(path, old.as_deref().unwrap_or_default())?;
    let changed = change(&mut modules)?;
    let text = modules.to_text();
    if old.as_deref() != Some(&text) {
        durable::replace(path, &text).map_err(failed("write"))?;
    }
    Ok(changed)
}

/// `serde_json` ends its messages with the place, which we give before them.
fn without_place(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;

    use super::*;

    #[test]
    fn parallel_updates_lose_nothing() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("registry/modules.json");
        std::thread::scope(|scope| {
            for number in 0..16 {
                let path = &path;
                scope.spawn(move || {
                    update(path, |modules| {
                        modules.insert(&format!("module_{number}"), json!({}));
                        Ok(())
                    })
                    .expect("updated");
                });
            }
        });
        let text = read(&path).expect("readable").expect("there");
        assert_eq!(Modules::parse(&path, &text).expect("valid").iter().count(), 16);
        let left = fs::read_dir(path.parent().expect("a parent")).expect("a folder").count();
        assert_eq!(left, 2, "only the registry and its lock remain");
    }

    #[test]
    fn what_is_malformed_is_not_overwritten() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("modules.json");
        for (text, place, cause) in [
            ("{\n  \"a\": {,\n", (2, 9), "key must be a string"),
            ("[]", (1, 1), "invalid type: sequence, expected a map"),
        ] {
            fs::write(&path, text).expect("written");
            let error = update(&path, |_| Ok(())).expect_err("refused");
            let RegistryError::Malformed { line, column, cause: found, .. } = &error else { panic!("{error}") };
            assert_eq!(((*line, *column), found.as_str()), (place, cause));
            assert!(error.hint().contains("nothing was written"), "{}", error.hint());
            assert_eq!(fs::read_to_string(&path).expect("readable"), text);
        }
    }

    #[test]
    fn a_change_that_fails_changes_nothing_and_permissions_stay() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let path = folder.path().join("modules.json");
        fs::write(&path, "{\"odd\": 1}").expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("permissions set");
        let failed: Result<(), _> = update(&path, |modules| {
            modules.insert("new", json!({}));
            Err(RegistryError::Missing { path: "x".into() })
        });
        assert!(failed.is_err());
        assert_eq!(fs::read_to_string(&path).expect("readable"), "{\"odd\": 1}");
        update(&path, |modules| {
            modules.insert("new", json!({}));
            Ok(())
        })
        .expect("updated");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "{\n  \"new\": {},\n  \"odd\": 1\n}\n");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
    }
}
