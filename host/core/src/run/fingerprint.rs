//! What a sub flow was made from: whether what it gave may be used again.
//!
//! A run that is resumed makes the fingerprint of each sub flow anew and compares. Whatever differs is a reason, in words,
//! to run it again; where nothing differs, running it again would give the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::name::NodeId;

/// What a sub flow was made from, module by module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// By module.
    pub nodes: BTreeMap<NodeId, NodeFingerprint>,
    /// The data edges among them and into them, and what is kept of their output: a digest.
    pub wiring: String,
    /// The item that it ran for: a digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
}

/// What a module's work was made from, and what it made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFingerprint {
    /// The module's name.
    pub module: String,
    /// The digest of its library.
    pub library: String,
    /// The configs, filled in: a digest. Secrets enter it hashed with a key that stays on this machine.
    pub configs: String,
    /// What it reads; absent if it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Vec<ResourceState>>,
    /// What it has written, as it was right afterwards; absent if it did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<Vec<ResourceState>>,
    /// Whether it brings in data from outside: without `inputs` nobody knows whether these are the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_source: bool,
}

/// A file, or the like, at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceState {
    /// Which.
    pub uri: String,
    /// Its size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// When it was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// What its store says about its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl Fingerprint {
    /// Why what was made from `before` is not what would be made now; `None` if it is.
    #[must_use]
    pub fn difference(before: &Fingerprint, now: &Fingerprint) -> Option<String> {
        if before.item != now.item {
            return Some("its item is another one".to_owned());
        }
        if before.nodes.keys().ne(now.nodes.keys()) {
            return Some("it has other modules".to_owned());
        }
        let of_nodes = before.nodes.iter().find_map(|(id, before)| {
            let why = before.difference(&now.nodes[id])?;
            Some(format!("`{id}`: {why}"))
        });
        of_nodes.or_else(|| (before.wiring != now.wiring).then(|| "its data edges have changed".to_owned()))
    }
}

impl NodeFingerprint {
    fn difference(&self, now: &NodeFingerprint) -> Option<String> {
        if self.module != now.module {
            return Some(format!("the module was `{}` and is `{}`", self.module, now.module));
        }
        if self.library != now.library {
            return Some("its library has changed".to_owned());
        }
        if self.configs != now.configs {
            return Some("its configs have changed".to_owned());
        }
        match (&self.inputs, &now.inputs) {
            (Some(before), Some(now)) => {
                if let Some(why) = changed("input", before, now) {
                    return Some(why);
                }
            }
            (None, None) if !self.is_source => {}
            (None, _) | (_, None) => return Some("it does not say what it reads".to_owned()),
        }
        match (&self.outputs, &now.outputs) {
            (Some(before), Some(now)) => changed("output", before, now),
            (None, None) => None,
            (None, Some(_)) | (Some(_), None) => Some("it does not say what it writes".to_owned()),
        }
    }
}

fn changed(what: &str, before: &[ResourceState], now: &[ResourceState]) -> Option<String> {
    let gone = before.iter().find(|one| !now.iter().any(|other| other.uri == one.uri));
    if let Some(gone) = gone {
        return Some(format!("its {what} {} is gone", gone.uri));
    }
    now.iter().find_map(|one| match before.iter().find(|other| other.uri == one.uri) {
        None => Some(format!("its {what} {} is new", one.uri)),
        Some(other) if other != one => Some(format!("its {what} {} has changed", one.uri)),
        Some(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(uri: &str, size: u64) -> ResourceState {
        ResourceState { uri: uri.into(), size: Some(size), modified: None, etag: None }
    }

    fn made(change: impl FnOnce(&mut NodeFingerprint)) -> Fingerprint {
        let mut node = NodeFingerprint {
            module: "csv_source".into(),
            library: "aa".into(),
            configs: "bb".into(),
            inputs: Some(vec![file("a.csv", 1)]),
            outputs: None,
            is_source: true,
        };
        change(&mut node);
        Fingerprint {
            nodes: BTreeMap::from([("load".parse().expect("a name"), node)]),
            wiring: "cc".into(),
            item: None,
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut NodeFingerprint), expect: Option<&str>) {
        assert_eq!(Fingerprint::difference(&made(|_| {}), &made(change)).as_deref(), expect);
    }

    #[test]
    fn whatever_differs_is_a_reason() {
        check(|_| {}, None);
        check(|node| node.library = "ab".into(), Some("`load`: its library has changed"));
        check(|node| node.configs = "ab".into(), Some("`load`: its configs have changed"));
        check(|node| node.inputs = Some(vec![file("a.csv", 2)]), Some("`load`: its input a.csv has changed"));
        check(|node| node.inputs = Some(vec![]), Some("`load`: its input a.csv is gone"));
        check(
            |node| node.inputs = Some(vec![file("a.csv", 1), file("b.csv", 1)]),
            Some("`load`: its input b.csv is new"),
        );
        check(|node| node.inputs = None, Some("`load`: it does not say what it reads"));
    }

    #[test]
    fn a_source_that_does_not_say_what_it_reads_is_never_the_same() {
        let unknown = made(|node| node.inputs = None);
        assert_eq!(
            Fingerprint::difference(&unknown, &unknown).as_deref(),
            Some("`load`: it does not say what it reads")
        );
        let solo = made(|node| (node.inputs, node.is_source) = (None, false));
        assert_eq!(Fingerprint::difference(&solo, &solo), None);
    }
}
