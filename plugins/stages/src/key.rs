//! Names of objects, from people nobody knows.

use object_store::path::Path;
use pype_plugin::{Error, ErrorKind, Result};

/// As file systems have it.
const LONGEST_PART: usize = 255;
/// As S3 has it.
const LONGEST: usize = 1024;

/// The folder with the fencing tokens of a folder's objects.
pub(crate) const FENCES: &str = ".pype-fences";

/// The object that a name stands for, below the root of a store.
pub(crate) fn parse(name: &str) -> Result<Path> {
    let refuse = |why: &str| {
        let shown: String = name.chars().take(80).flat_map(char::escape_debug).collect();
        Err(Error::new(ErrorKind::Data, "bad-key", format!("`{shown}` cannot be the name of an object: {why}")))
    };
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.starts_with('/') || name.starts_with('\\') {
        return refuse("it is an absolute path");
    }
    if name.len() > LONGEST {
        return refuse("it is longer than 1024 bytes");
    }
    if name.chars().any(char::is_control) {
        return refuse("it holds a control character");
    }
    for part in name.split('/') {
        match part {
            "" => return refuse("a part of it is empty"),
            "." | ".." => return refuse("it leads elsewhere"),
            part if part.len() > LONGEST_PART => return refuse("a part of it is longer than 255 bytes"),
            FENCES => return refuse("fencing tokens are kept there"),
            part if part.contains('\\') => return refuse("it holds a backslash"),
            part if is_reserved(part) => {
                return refuse("`#` and a number end the names of files that are being written");
            }
            _ => {}
        }
    }
    Path::parse(name).or_else(|error| refuse(&error.to_string()))
}

/// What the store of local files calls those that are not whole yet.
fn is_reserved(part: &str) -> bool {
    let end = part.rsplit_once('#').map(|(_, end)| end);
    end.is_some_and(|end| !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_the_root_are_refused() {
        let long = "x".repeat(256);
        let deep = "abcdefg/".repeat(150) + "x";
        for (name, why) in [
            ("../../etc/x", "leads elsewhere"),
            ("a/../b", "leads elsewhere"),
            ("a/./b", "leads elsewhere"),
            ("/etc/passwd", "absolute"),
            ("\\\\server\\share", "absolute"),
            ("a\\..\\b", "backslash"),
            ("a\0b", "control character"),
            ("a\nb", "control character"),
            ("a#1", "being written"),
            ("", "empty"),
            ("a//b", "a part of it is empty"),
            ("a/", "a part of it is empty"),
            (long.as_str(), "longer than 255"),
            (deep.as_str(), "longer than 1024"),
        ] {
            let error = parse(name).expect_err(name);
            assert_eq!((error.code.as_str(), error.kind), ("bad-key", ErrorKind::Data));
            assert!(error.message.contains(why), "{name}: {error}");
        }
        for name in ["a", "uploads/2025/a b.txt", "é/ü.bin", "..a/b..", "100%"] {
            assert_eq!(parse(name).expect(name).to_string(), Path::parse(name).expect(name).to_string());
        }
    }
}
