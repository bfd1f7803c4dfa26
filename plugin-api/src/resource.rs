//! What a module reads and writes outside the flow, for those who decide whether its work must be done again.

use std::fs::{self, Metadata};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// A file, a table, an object, as it is at the moment. Two that are equal are taken to have the same content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// Where it is. Of a local file, its path.
    pub uri: String,
    /// Its bytes, if they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// When it was last changed: an RFC 3339 time, or another text that is a new one after every change. Of a local
    /// file, the seconds since 1970 with nine decimals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// A tag that its store changes with its content.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

impl Resource {
    /// The local file or directory at `path`, as it is at the moment. A directory says whether names came or went, not
    /// whether the files in it changed.
    ///
    /// # Errors
    /// There is none (`not-found`), or it cannot be looked at (`io`).
    pub fn file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let facts = fs::metadata(path).and_then(|metadata| Ok((size(&metadata), metadata.modified()?)));
        let (size, modified) = facts.map_err(|cause| unreadable(path, cause))?;
        Ok(Self { uri: path.to_string_lossy().into_owned(), size, modified: Some(timestamp(modified)), etag: None })
    }
}

/// What a module reports of its configs. None: it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// What it reads.
    pub inputs: Option<Vec<Resource>>,
    /// What it has written, as far as it is there.
    pub outputs: Option<Vec<Resource>>,
}

/// A directory's own size means nothing.
fn size(metadata: &Metadata) -> Option<u64> {
    metadata.is_file().then_some(metadata.len())
}

fn timestamp(time: SystemTime) -> String {
    let (sign, distance) = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => ("", after),
        Err(before) => ("-", before.duration()),
    };
    format!("{sign}{}.{:09}", distance.as_secs(), distance.subsec_nanos())
}

fn unreadable(path: &Path, cause: std::io::Error) -> Error {
    let error = Error::from(cause);
    let message = match error.kind {
        ErrorKind::NotFound => format!("there is no file `{}`", path.display()),
        _ => format!("cannot look at `{}`: {}", path.display(), error.message),
    };
    error.message(message)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_file_is_another_resource_once_its_size_or_its_time_changes() {
        let folder = std::env::temp_dir().join(format!("pype-resource-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("made");
        let path = folder.join("a.csv");
        fs::write(&path, "abc").expect("written");
        let time = UNIX_EPOCH + Duration::new(7, 42);
        let touch = |time| fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(time));
        touch(time).expect("touched");
        let first = Resource::file(&path).expect("there");
        let expect = Resource {
            uri: path.to_string_lossy().into_owned(),
            size: Some(3),
            modified: Some("7.000000042".to_owned()),
            etag: None,
        };
        assert_eq!(first, expect);
        assert_eq!(Resource::file(&path), Ok(first.clone()));
        touch(UNIX_EPOCH - Duration::new(1, 1)).expect("touched");
        assert_eq!(Resource::file(&path).expect("there").modified.as_deref(), Some("-1.000000001"));
        assert_eq!(Resource::file(&folder).expect("a directory").size, None);
        fs::remove_dir_all(&folder).expect("made by this test");
        let gone = Resource::file(&path).expect_err("gone");
        assert_eq!((gone.kind, gone.code.as_str()), (ErrorKind::NotFound, "not-found"));
        assert_eq!(gone.message, format!("there is no file `{}`", path.display()));
    }
}
