use polars::prelude::{DataFrame, IntoColumn, NamedFrom, Series};
use serde_json::json;

use super::*;

fn table(rows: i64) -> DataFrame {
    let numbers = Series::new("n".into(), (0..rows).collect::<Vec<_>>());
    let texts =
        Series::new("t".into(), (0..rows).map(|row| (row % 3 > 0).then(|| row.to_string())).collect::<Vec<_>>());
    DataFrame::new(rows.unsigned_abs() as usize, vec![numbers.into_column(), texts.into_column()]).expect("a table")
}

fn frame(table: DataFrame) -> Frame {
    let schema = pype_plugin::ArrowSchema::of_polars(table.schema());
    Frame::from_batches(schema, pype_plugin::ArrowArray::of_polars(table))
}

#[tokio::test]
async fn what_is_kept_is_the_same_in_memory_and_in_a_file() {
    pype_plugin::host::adopt_runtime(tokio::runtime::Handle::current());
    let folder = tempfile::tempdir().expect("a folder");
    for (threshold, rows) in [(1_000_000, 0), (1_000_000, 300_000), (10, 0), (10, 300_000)] {
        let policy = Policy { spill_threshold_rows: threshold, ram: RamLimit::none() };
        let kept = policy.keep(frame(table(rows)), folder.path()).await.expect("kept");
        assert_eq!(kept.rows(), rows.unsigned_abs());
        assert_eq!(matches!(kept, Kept::File(_)), rows > threshold as i64);
        for _ in 0..2 {
            let back = kept.frame().collect().await.expect("readable");
            assert!(back.equals_missing(&table(rows)), "{threshold} {rows}: {back}");
        }
    }
    // The files went with their readers.
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0);
}

#[tokio::test]
async fn rows_become_items_and_items_survive_a_file() {
    pype_plugin::host::adopt_runtime(tokio::runtime::Handle::current());
    let items = items_of(frame(table(3))).await.expect("items");
    assert_eq!(items, [json!({"n": 0, "t": null}), json!({"n": 1, "t": "1"}), json!({"n": 2, "t": "2"})]);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("items.ndjson");
    write_items(&items, &path).expect("written");
    assert_eq!(read_items(&path).expect("readable"), items);
}

#[tokio::test]
async fn a_checkpoint_is_whole_or_not_there() {
    pype_plugin::host::adopt_runtime(tokio::runtime::Handle::current());
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a.parquet");
    let stored = store(frame(table(5)), &path).await.expect("written");
    assert_eq!(stored, Stored { rows: 5, bytes: std::fs::metadata(&path).expect("there").len() });
    let head = ParquetRows::head_as_json(&path, 2).expect("readable");
    assert_eq!(head, [json!({"n": 0, "t": null}), json!({"n": 1, "t": "1"})]);
    assert!(store(frame(table(5)), &folder.path().join("no/such/folder.parquet")).await.is_err());
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 1);
}
