//! The sink `__name__`, a plugin for pype.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use pype_plugin::prelude::*;

/// What a flow says under `configs`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The file to write.
    #[schemars(extend("format" = "path"))]
    output_path: PathBuf,
}

/// Writes a line that says what came: replace `write` and `commit` by what takes your data out.
struct __Name__ {
    target: PathBuf,
    part: PathBuf,
}

impl Sink for __Name__ {
    const NAME: &str = "__name__";
    const DESCRIPTION: &str = "Writes how many rows of which columns came";
    type Config = Config;

    async fn open(Config { output_path: target }: Config, _ctx: &Context) -> Result<Self> {
        let part = target.with_added_extension(format!("{}.part", std::process::id()));
        Ok(Self { target, part })
    }

    /// The file has another name yet: nobody must see it before all goes well.
    async fn write(&mut self, mut inputs: Inputs, _ctx: &Context) -> Result<()> {
        let frame = inputs.take("input")?;
        let schema = frame.arrow_schema().await?;
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let mut rows = 0;
        while let Some(batch) = frame.next_record_batch(&schema).await? {
            rows += batch.num_rows();
        }
        let mut file = File::create(&self.part)?;
        writeln!(file, "{rows} rows of {}", names.join(", "))?;
        Ok(file.sync_all()?)
    }

    /// Now it appears, whole.
    async fn commit(&mut self, _ctx: &Context) -> Result<Vec<Commit>> {
        fs::rename(&self.part, &self.target)?;
        let uri = format!("file:{}", self.target.display());
        Ok(vec![Commit { rows: Some(1), bytes: Some(fs::metadata(&self.target)?.len()), uri: Some(uri) }])
    }

    /// Also called if the run failed: what was not committed goes.
    async fn close(&mut self, _ctx: &Context) -> Result<()> {
        if self.part.exists() {
            fs::remove_file(&self.part)?;
        }
        Ok(())
    }
}

export_plugin! { sinks: [__Name__] }

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, RecordBatch};
    use pype_plugin::testing;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_says_what_came() {
        let path = std::env::temp_dir().join(format!("__name__-{}.txt", std::process::id()));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..5));
        let batch = RecordBatch::try_from_iter([("a", numbers.clone()), ("b", numbers)]).expect("a batch");
        let input = Frame::from_record_batches(batch.schema(), [batch]);
        let done = testing::sink::<__Name__>(json!({"output_path": path})).input("input", input).run();
        assert_eq!(done.result, Ok(()));
        assert_eq!(fs::read_to_string(&path).expect("a file"), "5 rows of a, b\n");
        fs::remove_file(path).expect("removed");
    }
}
