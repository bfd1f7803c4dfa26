//! What modules report of their configs alone, for a run that is taken up again.

use pype_plugin::Resources;
use serde_json::json;

use super::*;
use crate::mods::filter::FilterMod;
use crate::sinks::csv::CsvSink;
use crate::sinks::json::JsonSink;
use crate::sinks::parquet::ParquetSink;
use crate::sources::csv::CsvSource;
use crate::sources::json::JsonSource;
use crate::sources::parquet::ParquetSource;
use crate::testing::folder;

fn read_by<S: Source>(path: &str) -> Result<Resources> {
    testing::source::<S>(json!({ "file_path": path })).resources()
}

fn written_by<S: Sink>(path: &str) -> Result<Resources> {
    testing::sink::<S>(json!({ "output_path": path })).resources()
}

#[test]
fn a_source_reports_each_of_its_files_in_order() {
    let folder = folder("resources-of-sources");
    let files = ["b.x", "a.x", "empty.x"].map(|name| folder.write(name, if name == "empty.x" { "" } else { "1" }));
    let [b, a, empty] = files.map(|path| Resource::file(path).expect("there"));
    let pattern = folder.file("*.x");
    for read_by in [read_by::<CsvSource>, read_by::<JsonSource>, read_by::<ParquetSource>] {
        let all = Resources { inputs: Some(vec![a.clone(), b.clone(), empty.clone()]), outputs: None };
        assert_eq!(read_by(&pattern), Ok(all));
        assert_eq!(read_by(&b.uri), Ok(Resources { inputs: Some(vec![b.clone()]), outputs: None }));
        let missing = read_by(&folder.file("c.x")).expect_err("not there");
        assert_eq!((missing.kind, missing.code.as_str()), (ErrorKind::NotFound, "no-file"));
    }
}

#[test]
fn a_sink_reports_its_file_once_it_is_there() {
    let folder = folder("resources-of-sinks");
    for (name, written_by) in
        [("c", written_by::<CsvSink> as fn(&str) -> _), ("j", written_by::<JsonSink>), ("p", written_by::<ParquetSink>)]
    {
        let path = folder.file(name);
        assert_eq!(written_by(&path), Ok(Resources { inputs: None, outputs: Some(Vec::new()) }));
        folder.write(name, "1");
        let file = Resource::file(&path).expect("there");
        assert_eq!(written_by(&path), Ok(Resources { inputs: None, outputs: Some(vec![file]) }));
    }
}

#[test]
fn a_mod_reports_nothing() {
    let told = testing::module::<FilterMod>(json!({ "condition": "a > 1" })).resources();
    assert_eq!(told, Ok(Resources::default()));
}
