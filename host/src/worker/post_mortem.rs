//! What is kept of a process that died: what it was, what it was told, what it said last. Without secrets.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::secret::Redactor;

/// The folder of post-mortems, in that of a run or of all runs.
pub(crate) const FOLDER: &str = "post-mortem";
/// Of one kind so many are kept, the newest.
const KEPT: usize = 100;

/// All that is known of a process that died.
pub(super) struct PostMortem<'a> {
    /// What the folder's name begins with.
    pub(super) stem: &'a str,
    /// What it was and how it ended.
    pub(super) facts: Map<String, Value>,
    /// What its modules were told.
    pub(super) configs: Value,
    /// What it printed.
    pub(super) printed: String,
    /// Its last records of the log, each a JSON line.
    pub(super) records: Vec<String>,
}

impl PostMortem<'_> {
    /// Writes it into a folder of its own, `STEM_YYYYMMDDThhmmss_NNN`, in `folder`. What of it cannot be written is
    /// missing; the rest is there.
    ///
    /// # Errors
    /// There cannot be such a folder, or nothing can be written into it.
    pub(super) fn write(self, folder: &Path, at: jiff::Timestamp, redactor: &Redactor) -> io::Result<PathBuf> {
        let Self { stem, mut facts, mut configs, printed, records } = self;
        facts.insert("died_at".to_owned(), at.to_string().into());
        redactor.object(&mut facts);
        redactor.value(&mut configs);
        fs::create_dir_all(folder)?;
        make_room(folder, stem);
        let own = own_folder(folder, stem, at)?;
        let pretty = |value: &Value| serde_json::to_string_pretty(value).expect("JSON values are JSON") + "\n";
        let lines: String = records.iter().map(|line| redactor.text(line).into_owned() + "\n").collect();
        let files = [
            ("meta.json", pretty(&Value::Object(facts))),
            ("configs.json", pretty(&configs)),
            ("printed.txt", redactor.text(&printed).into_owned()),
            ("log.jsonl", lines),
        ];
        let written: Vec<_> = files.into_iter().map(|(name, text)| fs::write(own.join(name), text)).collect();
        match written.iter().all(Result::is_err) {
            true => written.into_iter().next().expect("there are several").map(|()| own),
            false => Ok(own),
        }
    }
}

fn own_folder(folder: &Path, stem: &str, at: jiff::Timestamp) -> io::Result<PathBuf> {
    let prefix = format!("{stem}_{}_", at.strftime("%Y%m%dT%H%M%S"));
    let numbers = names(folder).into_iter().filter_map(|name| name.strip_prefix(&prefix)?.parse::<u32>().ok());
    for number in numbers.max().unwrap_or(0) + 1.. {
        let own = folder.join(format!("{prefix}{number:03}"));
        match fs::create_dir(&own) {
            // Somebody else was quicker.
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| own),
        }
    }
    unreachable!("there are more numbers than folders")
}

/// Removes the oldest of this kind, so that there are not too many.
fn make_room(folder: &Path, stem: &str) {
    let prefix = format!("{stem}_");
    let is_one = |name: &String| name.strip_prefix(&prefix).is_some_and(|rest| rest.matches('_').count() == 1);
    let mut all: Vec<String> = names(folder).into_iter().filter(is_one).collect();
    all.sort();
    let excess = (all.len() + 1).saturating_sub(KEPT);
    for name in all.into_iter().take(excess) {
        // One that stays is in nobody's way.
        drop(fs::remove_dir_all(folder.join(name)));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(stem: &str) -> PostMortem<'_> {
        PostMortem {
            stem,
            facts: Map::from_iter([("node".to_owned(), json!("load"))]),
            configs: json!({"url": "ftp://me:hunter2@host"}),
            printed: "free(): invalid pointer of hunter2".to_owned(),
            records: vec![json!({"message": "hello hunter2"}).to_string()],
        }
    }

    #[test]
    fn it_says_what_is_known_but_for_secrets_and_only_the_newest_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("post-mortem");
        let (at, redactor) = (jiff::Timestamp::UNIX_EPOCH, Redactor::of(["hunter2"]));
        let first = of("load").write(&folder, at, &redactor).expect("written");
        assert_eq!(first.file_name().expect("a name"), "load_19700101T000000_001");
        let text = |name: &str| fs::read_to_string(first.join(name)).expect("there");
        let meta: Value = serde_json::from_str(&text("meta.json")).expect("JSON");
        assert_eq!(meta, json!({"node": "load", "died_at": "1970-01-01T00:00:00Z"}));
        assert!(text("configs.json").contains("ftp://me:***@host"));
        assert_eq!(text("printed.txt"), "free(): invalid pointer of ***");
        assert_eq!(text("log.jsonl"), "{\"message\":\"hello ***\"}\n");
        of("load_b").write(&folder, at, &redactor).expect("written");
        for _ in 1..KEPT + 5 {
            of("load").write(&folder, at, &redactor).expect("written");
        }
        let mut all = names(&folder);
        all.sort();
        assert_eq!(all.len(), KEPT + 1);
        assert_eq!(all[0], "load_19700101T000000_006");
        assert!(all.contains(&"load_b_19700101T000000_001".to_owned()));
    }
}
