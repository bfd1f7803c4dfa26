//! An object store: S3 and its like.
//!
//! A file is gathered in memory and put in one request that only succeeds if there is no object of its name. Nothing is ever
//! half there, so there is nothing to sweep. There are no locks either: that one pype at a time writes a stream is for its operator to
//! see to. Two of them would put their files under other names, unless the last sequences agree.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use pype_plugin::{Error, ErrorKind, Result};
use tokio::runtime::Handle;

use super::{Content, Listed, Published, compare};
use crate::bucket::Finished;
use crate::footer::Footer;
use crate::identity::Identity;
use crate::place::last_sequence;

/// How many files are on their way at a time.
const PUTS: usize = 8;
/// The end of a file that most footers fit into.
const FOOTER_BYTES: u64 = 64 * 1024;

/// A prefix of a bucket.
pub(crate) struct Objects {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
    runtime: Handle,
}

impl Objects {
    /// The bucket and prefix of a URL, with the usual `AWS_…` variables.
    pub(crate) fn open(url: &str, runtime: Handle) -> Result<Self> {
        let refuse = |why: String| Error::new(ErrorKind::Config, "bad-root", format!("`root`: {why}"));
        let parsed = url::Url::parse(url).map_err(|error| refuse(format!("`{url}` is no URL: {error}")))?;
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let options = variables
            .filter(|(name, _)| name.starts_with("AWS_"))
            .map(|(name, value)| (name.to_ascii_lowercase(), value));
        let (store, prefix) =
            object_store::parse_url_opts(&parsed, options).map_err(|error| refuse(error.to_string()))?;
        Ok(Self::new(Arc::from(store), prefix, url, runtime))
    }

    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: Path, url: &str, runtime: Handle) -> Self {
        Self { store, prefix, url: url.trim_end_matches('/').to_owned(), runtime }
    }

    pub(crate) fn uri(&self, key: &str) -> String {
        format!("{}/{key}", self.url)
    }

    pub(crate) fn list(&self, identity: &Identity) -> Result<Vec<Listed>> {
        let tag = identity.tag();
        let listed = self.store.list(Some(&self.prefix)).try_filter_map(|object| {
            let last = object.location.filename().and_then(|name| last_sequence(name, &tag));
            let listed = last.map(|last| Listed { key: self.key(&object.location), last });
            async { Ok(listed) }
        });
        self.runtime.block_on(listed.try_collect()).map_err(|error| self.failed("list", "", error))
    }

    pub(crate) fn footer(&self, key: &str) -> Result<Footer> {
        let unreadable = |why: String| {
            let message = format!("cannot tell which events are in `{}`: {why}", self.uri(key));
            Error::new(ErrorKind::Data, "unreadable-file", message)
                .hint("move the object away; its events come again if their stream still has them unacknowledged")
        };
        let mut wanted = FOOTER_BYTES;
        loop {
            let (end, size) = self.runtime.block_on(self.end_of(key, wanted))?;
            match metadata(&end, size) {
                Ok(metadata) => return Footer::of(&metadata).map_err(unreadable),
                Err(ParquetError::NeedMoreData(more)) if more as u64 > wanted && wanted < size => wanted = more as u64,
                Err(error) => return Err(unreadable(error.to_string())),
            }
        }
    }

    pub(crate) fn publish<'a>(&self, files: impl Iterator<Item = &'a Finished>) -> Vec<Result<Published>> {
        let files: Vec<_> = files.collect();
        // The futures are made here: a closure that borrows from its argument is not general enough for a stream.
        let puts: Vec<_> = files.iter().map(|file| self.put(file)).collect();
        let put: Vec<_> = self.runtime.block_on(stream::iter(puts).buffered(PUTS).collect());
        let answer = |(file, is_new): (&&Finished, Result<bool>)| match is_new? {
            true => Ok(Published::New),
            false => compare(file, &self.footer(&file.key)?, &self.uri(&file.key)),
        };
        files.iter().zip(put).map(answer).collect()
    }

    /// Puts an object if there is none of its name: whether it did.
    async fn put(&self, file: &Finished) -> Result<bool> {
        let Content::Memory(content) = &file.content else { unreachable!("files of an object store are in memory") };
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&self.path(&file.key), PutPayload::from_bytes(content.clone()), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(self.failed("write", &file.key, error)),
        }
    }

    /// The last bytes of an object, and its size.
    async fn end_of(&self, key: &str, bytes: u64) -> Result<(Bytes, u64)> {
        let failed = |error| self.failed("read", key, error);
        let path = self.path(key);
        let size = self.store.head(&path).await.map_err(failed)?.size;
        let range = GetRange::Bounded(size.saturating_sub(bytes)..size);
        let options = GetOptions { range: Some(range), ..GetOptions::default() };
        let end = self.store.get_opts(&path, options).await.map_err(failed)?;
        Ok((end.bytes().await.map_err(failed)?, size))
    }

    /// Keys are made of parts that are names of objects as they are.
    fn path(&self, key: &str) -> Path {
        let key = Path::parse(key).expect("a key has no empty part, no `..` and no control character");
        self.prefix.parts().chain(key.parts()).collect()
    }

    fn key(&self, path: &Path) -> String {
        let parts = path.prefix_match(&self.prefix).into_iter().flatten();
        parts.map(|part| part.as_ref().to_owned()).collect::<Vec<_>>().join("/")
    }

    fn failed(&self, doing: &str, key: &str, cause: object_store::Error) -> Error {
        let (kind, code, retryable) = match &cause {
            object_store::Error::NotFound { .. } => (ErrorKind::NotFound, "no-such-object", false),
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                (ErrorKind::Io, "storage-denied", false)
            }
            object_store::Error::NotSupported { .. } | object_store::Error::NotImplemented { .. } => {
                (ErrorKind::Unsupported, "storage-unsupported", false)
            }
            _ => (ErrorKind::Unavailable, "storage-failed", true),
        };
        Error::new(kind, code, format!("cannot {doing} `{}`", self.uri(key))).retryable(retryable).caused_by(cause)
    }
}

fn metadata(end: &Bytes, size: u64) -> Result<ParquetMetaData, ParquetError> {
    let mut reader = ParquetMetaDataReader::new();
    reader.try_parse_sized(end, size)?;
    reader.finish()
}
