//! `storage_write`, `storage_read`, `storage_delete` and `dead_letter`: objects in a folder, or in S3 and its like.

use std::fs::File;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use pype_plugin::prelude::*;
use serde_json::json;

use crate::key;

/// A store, and where in it.
struct Store {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Of a folder.
    root: Option<PathBuf>,
    url: String,
}

impl Store {
    /// The store at a URL: `file:./uploads`, `file:///srv/uploads`, `s3://bucket/prefix`. A relative path starts at the
    /// folder of the pipeline.
    fn open(url: &str, node: &Context) -> Result<Self> {
        let refuse = |why: String| Error::new(ErrorKind::Config, "bad-url", format!("`url`: {why}"));
        if let Some(path) = url.strip_prefix("file:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let root = node.folder().join(path);
            std::fs::create_dir_all(&root)?;
            let root = root.canonicalize()?;
            let objects = object_store::local::LocalFileSystem::new_with_prefix(&root)
                .map_err(|error| refuse(error.to_string()))?
                .with_automatic_cleanup(false);
            return Ok(Self { objects: Arc::new(objects), prefix: Path::default(), root: Some(root), url: url.into() });
        }
        let parsed = url::Url::parse(url).map_err(|error| refuse(format!("`{url}` is no URL: {error}")))?;
        // Credentials and endpoints are where all tools of the kind have them: AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, ….
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let options = variables
            .filter(|(name, _)| name.starts_with("AWS_"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value));
        let (objects, prefix) =
            object_store::parse_url_opts(&parsed, options).map_err(|error| refuse(error.to_string()))?;
        Ok(Self { objects: Arc::from(objects), prefix, root: None, url: url.into() })
    }

    /// The same, on a thread where it may block.
    async fn opened(url: &str, node: &Context) -> Result<Self> {
        let (url, opening) = (url.to_owned(), node.clone());
        node.run_blocking(move || Self::open(&url, &opening)).await
    }

    /// Writes an object, whole or not at all. In a folder it is on the disk then.
    async fn write(&self, name: &str, content: PutPayload, node: &Context) -> Result<()> {
        let object = self.object(name, node).await?;
        self.objects.put(&object, content).await.map_err(|error| self.failed("write", name, error))?;
        self.settle(name, node).await
    }

    /// The object of a name.
    async fn object(&self, name: &str, node: &Context) -> Result<Path> {
        let key = key::parse(name)?;
        if let Some(root) = self.root.clone() {
            let name = name.to_owned();
            node.run_blocking(move || stays_inside(&root, &name)).await?;
        }
        Ok(self.prefix.parts().chain(key.parts()).collect())
    }

    /// Waits until an object of a folder is on the disk, and every folder on the way to it. Other stores have it when they say
    /// so.
    async fn settle(&self, name: &str, node: &Context) -> Result<()> {
        let Some(root) = self.root.clone() else { return Ok(()) };
        let path = root.join(name);
        let settle = move || {
            let mut folders = path.ancestors().take_while(|folder| folder.starts_with(&root));
            folders.try_for_each(|path| Ok(File::open(path)?.sync_all()?))
        };
        node.run_blocking(settle).await
    }

    fn uri(&self, name: &str) -> String {
        format!("{}/{name}", self.url.trim_end_matches('/'))
    }

    fn failed(&self, doing: &str, name: &str, error: object_store::Error) -> Error {
        let (kind, code, retryable) = match &error {
            object_store::Error::NotFound { .. } => (ErrorKind::NotFound, "no-such-object", false),
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => {
                (ErrorKind::Data, "object-exists", false)
            }
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                (ErrorKind::Io, "storage-denied", false)
            }
            object_store::Error::InvalidPath { .. }
            | object_store::Error::NotSupported { .. }
            | object_store::Error::NotImplemented { .. } => (ErrorKind::Unsupported, "storage-unsupported", false),
            _ => (ErrorKind::Unavailable, "storage-failed", true),
        };
        let message = format!("cannot {doing} `{}`", self.uri(name));
        Error::new(kind, code, message).retryable(retryable).caused_by(error)
    }
}

/// A link that somebody put into the folder must not lead out of it.
fn stays_inside(root: &FilePath, name: &str) -> Result<()> {
    let mut path = root.to_owned();
    for part in name.split('/') {
        path.push(part);
        let is_link = path.symlink_metadata().is_ok_and(|file| file.file_type().is_symlink());
        if is_link && !path.canonicalize().is_ok_and(|target| target.starts_with(root)) {
            let message = format!("`{name}` leads out of the store, over a link");
            return Err(Error::new(ErrorKind::Data, "bad-key", message));
        }
    }
    Ok(())
}

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
    () => {
        const CATEGORY: &'static str = "Storage";
        const PACKAGES: &'static [&'static str] = &["object_store"];
        type Config = Config;

        async fn open(config: Config, node: &Context) -> Result<Self> {
            Ok(Self { store: Store::opened(&config.url, node).await?, config })
        }
    };
}

pub(crate) struct StorageWrite {
    store: Store,
    config: Config,
}

impl Execute for StorageWrite {
    const NAME: &'static str = "storage_write";
    const DESCRIPTION: &'static str = "Writes a field to an object, whole or not at all";

    on_a_store!();

    async fn execute(&self, mut ctx: PipelineContext, next: Next, node: &Context) -> Result<Value> {
        let name: String = ctx.get(&self.config.key)?;
        let content: Bytes = ctx.get(&self.config.content)?;
        let size = content.len();
        let content = PutPayload::from_bytes(bytes::Bytes::from_owner(content));
        self.store.write(&name, content, node).await?;
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

    on_a_store!();

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

    on_a_store!();

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
