//! The items of loops: JSON values, kept one a line.

use std::fs;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use pype_plugin::{Error, ErrorKind, Result};
use serde_json::Value;

use super::io;
use crate::durable;

/// Writes items to `path`, whole and durable, and gives the size of the file.
///
/// # Errors
/// The file cannot be written.
pub fn write_items(items: &[Value], path: &Path) -> Result<u64> {
    let write = || -> std::io::Result<u64> {
        let mut file = tempfile::NamedTempFile::new_in(durable::folder_of(path))?;
        let mut lines = BufWriter::new(file.as_file_mut());
        for item in items {
            serde_json::to_writer(&mut lines, item)?;
            lines.write_all(b"\n")?;
        }
        lines.flush()?;
        drop(lines);
        let bytes = file.as_file().metadata()?.len();
        durable::settle(file, path)?;
        Ok(bytes)
    };
    write().map_err(|cause| io("write", path, cause))
}

/// Reads what [`write_items`] wrote.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn read_items(path: &Path) -> Result<Vec<Value>> {
    let lines = BufReader::new(fs::File::open(path).map_err(|cause| io("read", path, cause))?).lines();
    let item = |(at, line): (usize, std::io::Result<String>)| {
        let line = line.map_err(|cause| io("read", path, cause))?;
        serde_json::from_str(&line).map_err(|cause| {
            let message = format!("{}:{}: not an item: {cause}", path.display(), at + 1);
            Error::new(ErrorKind::Data, "bad-items", message)
        })
    };
    lines.enumerate().map(item).collect()
}
