//! Where objects are: a folder, or S3 and its like.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::path::Path;
use object_store::{
    Attribute, Attributes, GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, UpdateVersion,
};
use pype_plugin::prelude::*;

use crate::key;

/// What an object of S3 says of its fencing token.
const FENCE: Attribute = Attribute::Metadata(std::borrow::Cow::Borrowed("pype-fence"));

/// A store, and where in it.
pub(crate) struct Store {
    pub(crate) objects: Arc<dyn ObjectStore>,
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
    pub(crate) async fn opened(url: &str, node: &Context) -> Result<Self> {
        let (url, opening) = (url.to_owned(), node.clone());
        node.run_blocking(move || Self::open(&url, &opening)).await
    }

    /// Writes an object, whole or not at all. In a folder it is on the disk then.
    pub(crate) async fn write(&self, name: &str, content: PutPayload, node: &Context) -> Result<()> {
        let object = self.object(name, node).await?;
        self.objects.put(&object, content).await.map_err(|error| self.failed("write", name, error))?;
        self.settle(name, node).await
    }

    /// The same, by the owner of a lock: refused if one with a larger token has written the object before.
    pub(crate) async fn write_fenced(
        &self,
        name: &str,
        content: bytes::Bytes,
        token: u64,
        node: &Context,
    ) -> Result<()> {
        let object = self.object(name, node).await?;
        if let Some(root) = self.root.clone() {
            let name = name.to_owned();
            return node.run_blocking(move || write_fenced(&root, &name, &content, token)).await;
        }
        let failed = |error| self.failed("write", name, error);
        loop {
            let head = GetOptions { head: true, ..GetOptions::default() };
            let mode = match self.objects.get_opts(&object, head).await {
                Ok(found) => {
                    let last = found.attributes.get(&FENCE).and_then(|token| token.parse().ok());
                    fenced(name, last, token)?;
                    PutMode::Update(UpdateVersion { e_tag: found.meta.e_tag, version: found.meta.version })
                }
                Err(object_store::Error::NotFound { .. }) => PutMode::Create,
                Err(error) => return Err(failed(error)),
            };
            let attributes = Attributes::from_iter([(FENCE, token.to_string())]);
            let options = PutOptions { mode, attributes, ..PutOptions::default() };
            match self.objects.put_opts(&object, PutPayload::from_bytes(content.clone()), options).await {
                Ok(_) => return Ok(()),
                // Somebody else has written it meanwhile: with which token?
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// The object of a name.
    pub(crate) async fn object(&self, name: &str, node: &Context) -> Result<Path> {
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
        node.run_blocking(move || settle(&root, &path)).await
    }

    pub(crate) fn uri(&self, name: &str) -> String {
        format!("{}/{name}", self.url.trim_end_matches('/'))
    }

    pub(crate) fn failed(&self, doing: &str, name: &str, error: object_store::Error) -> Error {
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

/// Writes a file and its token, which stands in a file of its own that is locked meanwhile: a writer that is paused in
/// between keeps the others waiting.
fn write_fenced(root: &FilePath, name: &str, content: &[u8], token: u64) -> Result<()> {
    let fence_name = format!("{}/{name}", key::FENCES);
    stays_inside(root, &fence_name)?;
    let (path, fence_path) = (root.join(name), root.join(fence_name));
    for path in [&path, &fence_path] {
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
    }
    let mut fence = File::options().read(true).write(true).create(true).truncate(false).open(&fence_path)?;
    fence.lock()?;
    let mut last = String::new();
    fence.read_to_string(&mut last)?;
    let last = match last.trim() {
        "" => None,
        text => Some(text.parse().map_err(|_| damaged_fence(&fence_path))?),
    };
    fenced(name, last, token)?;
    // The token first: who is killed in between has shut out the older ones, and writes again. All have the same length, so
    // that one takes the place of another and there is always one.
    fence.seek(SeekFrom::Start(0))?;
    writeln!(fence, "{token:020}")?;
    fence.sync_all()?;
    let whole_soon = root.join(format!("{name}#{}", std::process::id()));
    let mut file = File::create(&whole_soon)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&whole_soon, &path));
    if let Err(error) = written {
        // It is of no use, and the error is worth more than another.
        drop(fs::remove_file(&whole_soon));
        return Err(error.into());
    }
    settle(root, &path)?;
    settle(root, &fence_path)
}

fn damaged_fence(path: &FilePath) -> Error {
    let message = format!("`{}` holds no fencing token", path.display());
    Error::new(ErrorKind::Data, "damaged-fence", message)
        .hint("remove it once no run is under way that writes this object")
}

/// Refuses a token that is smaller than the last.
fn fenced(name: &str, last: Option<u64>, token: u64) -> Result<()> {
    match last {
        Some(last) if token < last => {
            let message = format!("`{name}` was written with the fencing token {last} since this run got {token}");
            Err(Error::new(ErrorKind::Data, "stale-token", message)
                .hint("its lock ran out: another run has the lock, and what it wrote stays"))
        }
        _ => Ok(()),
    }
}

/// Waits until a file is on the disk, and every folder on the way to it.
fn settle(root: &FilePath, path: &FilePath) -> Result<()> {
    let mut folders = path.ancestors().take_while(|folder| folder.starts_with(root));
    folders.try_for_each(|path| Ok(File::open(path)?.sync_all()?))
}
