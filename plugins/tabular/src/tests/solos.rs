//! Each solo: what it announces.

use serde_json::json;

use super::*;
use crate::solos::list_files::ListFilesSolo;
use crate::testing::folder;

fn listed(pattern: &str) -> Done {
    testing::solo::<ListFilesSolo>(json!({ "path": pattern })).run()
}

#[test]
fn files_are_listed_in_order() {
    let folder = folder("list-files");
    let [b, a, plain] = ["b.tar.gz", "a.csv", "plain"].map(|name| folder.write(name, name));
    folder.write(".hidden.csv", "x");
    std::fs::create_dir(folder.file("sub.csv")).expect("made");
    let done = listed(&folder.file("*"));
    assert_eq!(done.result, Ok(()));
    let expect = [
        json!({ "path": a, "name": "a.csv", "stem": "a", "size": 5 }),
        json!({ "path": b, "name": "b.tar.gz", "stem": "b.tar", "size": 8 }),
        json!({ "path": plain, "name": "plain", "stem": "plain", "size": 5 }),
    ];
    assert_eq!(done.lists["files"], expect);
    assert_eq!(done.globals["count"], 3);
    assert_eq!(listed(&plain).lists["files"], expect[2..]);
}

#[test]
fn no_match_is_an_empty_list() {
    let folder = folder("list-no-files");
    for pattern in ["*.csv", "missing.csv", "nowhere/*.csv"] {
        let done = listed(&folder.file(pattern));
        assert_eq!(done.result, Ok(()), "{pattern}");
        assert_eq!((&done.lists["files"], &done.globals["count"]), (&Vec::new(), &json!(0)), "{pattern}");
    }
}

#[test]
fn a_pattern_that_is_none_is_refused() {
    let folder = folder("list-refused");
    let (kind, message, hint) = refusal(listed(&folder.file("")));
    assert_eq!(kind, ErrorKind::Config);
    assert!(message.contains("is a folder") && hint.contains('*'), "{message}; {hint}");
    assert!(refusal(listed(&folder.file("a["))).1.contains("cannot read the pattern"));
}
