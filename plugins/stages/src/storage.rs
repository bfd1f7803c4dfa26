//! `storage_write`, `storage_read`, `storage_delete` and `dead_letter`: objects in a folder, or in S3 and its like.

use object_store::{ObjectStoreExt, PutPayload};
use pype_plugin::prelude::*;
use serde_json::json;

use crate::store::Store;

/// Where objects are, and how they are called.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The store: `file:./uploads`, from the pipeline's folder, or `s3://bucket/prefix` with the usual `AWS_…` variables.
    url: String,
    /// The field with the object's name.
    #[serde(default = "file_path")]
    key: String,
    /// The field with its content.
    #[serde(default = "file_content")]
    content: String,
}

fn file_path() -> String {
    "file_path".to_owned()
}

fn file_content() -> String {
    "file_content".to_owned()
}

/// What the stages on a store have in common.
macro_rules! on_a_store {
    ($config:ty) => {
        const CATEGORY: &'static str = "Storage";
        const PACKAGES: &'static [&'static str] = &["object_store"];
        type Config = $config;

        async fn open(config: $config, node: &Context) -> Result<Self> {
            Ok(Self { store: Store::opened(&config.url, node).await?, config })
        }
    };
}

/// What is written, and where.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteConfig {
    /// The store: `file:./uploads`, from the pipeline's folder, or `s3://bucket/prefix` with the usual `AWS_…` variables.
    url: String,
    /// The field with the object's name.
    #[serde(default = "file_path")]
    key: String,
    /// The field with its content.
    #[serde(default = "file_content")]
    content: String,
    /// The field with the fencing token of a lock: who comes with a smaller one than was there before is refused.
    #[serde(default)]
    fence: Option<String>,
}

pub(crate) struct StorageWrite {
    store: Store,
    config: WriteConfig,
}

impl Execute for StorageWrite {
    const NAME: &'static str = "storage_write";
    const DESCRIPTION: &'static str = "Writes a field to an object, whole or not at all";

    on_a_store!(WriteConfig);

    async fn execute(&self, mut ctx: PipelineContext, next: Next, node: &Context) -> Result<Value> {
        let name: String = ctx.get(&self.config.key)?;
        let content: Bytes = ctx.get(&self.config.content)?;
        let size = content.len();
        let content = bytes::Bytes::from_owner(content);
        match &self.config.fence {
            None => self.store.write(&name, content.into(), node).await?,
            Some(fence) => self.store.write_fenced(&name, content, ctx.get(fence)?, node).await?,
        }
        ctx.set("stored_at", self.store.uri(&name))?;
        ctx.set("stored_bytes", size)?;
        next.run(ctx).await
    }
}

pub(crate) struct StorageRead {
    store: Store,
    config: Config,
}

impl Execute for StorageRead {
    const NAME: &'static str = "storage_read";
    const DESCRIPTION: &'static str = "Reads an object into a field";

    on_a_store!(Config);

    async fn execute(&self, mut ctx: PipelineContext, next: Next, node: &Context) -> Result<Value> {
        let name: String = ctx.get(&self.config.key)?;
        let object = self.store.object(&name, node).await?;
        let failed = |error| self.store.failed("read", &name, error);
        let content = self.store.objects.get(&object).await.map_err(failed)?.bytes().await.map_err(failed)?;
        ctx.set_bytes(&self.config.content, Bytes::from_owner(content))?;
        next.run(ctx).await
    }
}

pub(crate) struct StorageDelete {
    store: Store,
    config: Config,
}

impl Execute for StorageDelete {
    const NAME: &'static str = "storage_delete";
    const DESCRIPTION: &'static str = "Deletes an object; one that is not there is a warning";

    on_a_store!(Config);

    async fn execute(&self, ctx: PipelineContext, next: Next, node: &Context) -> Result<Value> {
        let name: String = ctx.get(&self.config.key)?;
        let object = self.store.object(&name, node).await?;
        match self.store.objects.delete(&object).await {
            Ok(()) => {}
            Err(object_store::Error::NotFound { .. }) => tracing::warn!("`{}` is not there", self.store.uri(&name)),
            Err(error) => return Err(self.store.failed("delete", &name, error)),
        }
        next.run(ctx).await
    }
}

/// Where dead letters go.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeadLetterConfig {
    /// The store: `file:./dead`, from the pipeline's folder, or `s3://bucket/prefix`.
    url: String,
}

pub(crate) struct DeadLetter {
    store: Store,
}

impl Execute for DeadLetter {
    const NAME: &'static str = "dead_letter";
    const DESCRIPTION: &'static str = "Keeps the context and the error of what failed for good, as a JSON object";
    const CATEGORY: &'static str = "Storage";
    const PACKAGES: &'static [&'static str] = &["object_store"];
    type Config = DeadLetterConfig;

    async fn open(config: DeadLetterConfig, node: &Context) -> Result<Self> {
        Ok(Self { store: Store::opened(&config.url, node).await? })
    }

    async fn execute(&self, ctx: PipelineContext, next: Next, node: &Context) -> Result<Value> {
        let facts = ctx.facts();
        let mut fields = serde_json::Map::new();
        for name in ctx.names() {
            let shown = match ctx.field(&name)? {
                Some(pype_plugin::Field::Json(value)) => value,
                Some(pype_plugin::Field::Bytes(bytes)) => json!({ "bytes": bytes.len() }),
                None => continue,
            };
            fields.insert(name, shown);
        }
        let error = fields.remove("error");
        let letter = json!({
            "pipeline": facts.pipeline,
            "job_id": facts.job_id,
            "attempt": facts.attempt,
            "error": error,
            "context": { "version": facts.context_version, "fields": fields },
        });
        let name = format!("{}/{}.json", facts.pipeline, facts.job_id.unwrap_or(facts.run_id));
        self.store.write(&name, PutPayload::from(letter.to_string().into_bytes()), node).await?;
        next.run(ctx).await
    }
}

#[cfg(test)]
mod tests {
    use pype_plugin::Field;
    use pype_plugin::testing::{StageDone, stage};

    use super::*;

    fn url(folder: &tempfile::TempDir) -> Value {
        json!({ "url": format!("file://{}", folder.path().display()) })
    }

    fn write(folder: &tempfile::TempDir, name: &str) -> StageDone {
        stage::<StorageWrite>(url(folder)).field("file_path", json!(name)).bytes("file_content", vec![1, 2, 3]).run()
    }

    #[test]
    fn what_is_written_is_read_again_and_deleted() {
        let folder = tempfile::tempdir().expect("a folder");
        let done = write(&folder, "2025/a b.bin");
        let at = format!("file://{}/2025/a b.bin", folder.path().display());
        assert_eq!(done.result, Ok(json!({"file_path": "2025/a b.bin", "stored_at": at, "stored_bytes": 3})));
        assert_eq!(std::fs::read(folder.path().join("2025/a b.bin")).expect("written"), [1, 2, 3]);
        let done = stage::<StorageRead>(url(&folder)).field("file_path", json!("2025/a b.bin")).run();
        assert_eq!(done.went_on_with[0].fields["file_content"], Field::Bytes(vec![1, 2, 3].into()));
        let delete = || stage::<StorageDelete>(url(&folder)).field("file_path", json!("2025/a b.bin")).run();
        assert_eq!((delete().result.is_ok(), delete().log.len()), (true, 1));
        assert!(!folder.path().join("2025/a b.bin").exists());
        let done = stage::<StorageRead>(url(&folder)).field("file_path", json!("2025/a b.bin")).run();
        assert_eq!(done.result.expect_err("it is gone").code, "no-such-object");
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        let (folder, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).expect("made");
        std::os::unix::fs::symlink(outside.path().join("x"), folder.path().join("dangling")).expect("made");
        for name in ["../x", "/x", "link/x", "link", "dangling", "a\0b", "a/../../x"] {
            let error = write(&folder, name).result.expect_err(name);
            assert_eq!(error.code, "bad-key", "{name}: {error}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).expect("there").count(), 0);
    }

    #[test]
    fn an_older_token_writes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |token: u64, content: u8| {
            let config = json!({ "url": url(&folder)["url"], "fence": "token" });
            let test = stage::<StorageWrite>(config).field("file_path", json!("a/b")).field("token", json!(token));
            test.bytes("file_content", vec![content]).run().result.map(drop).map_err(|error| error.code.clone())
        };
        assert_eq!([write(3, 1), write(5, 2), write(5, 3)], [Ok(()), Ok(()), Ok(())]);
        assert_eq!(write(4, 4), Err("stale-token".to_owned()));
        assert_eq!(std::fs::read(folder.path().join("a/b")).expect("written"), [3]);
        // Nobody else may write the tokens.
        let error = super::tests::write(&folder, ".pype-fences/a/b").result.expect_err("refused");
        assert_eq!(error.code, "bad-key");
    }

    #[test]
    fn a_dead_letter_has_the_error_and_the_context_but_for_its_bytes() {
        let folder = tempfile::tempdir().expect("a folder");
        let test = stage::<DeadLetter>(url(&folder)).field("error", json!({"code": "away"})).field("size", json!(7));
        let test = test.bytes("file_content", vec![0; 9]).facts(|facts| {
            facts.pipeline = "upload".to_owned();
            facts.job_id = Some("job-1".to_owned());
        });
        assert!(test.run().result.is_ok());
        let letter = std::fs::read(folder.path().join("upload/job-1.json")).expect("written");
        let letter: Value = serde_json::from_slice(&letter).expect("JSON");
        assert_eq!(letter["error"], json!({"code": "away"}));
        assert_eq!(letter["context"]["fields"], json!({"file_content": {"bytes": 9}, "size": 7}));
    }
}
