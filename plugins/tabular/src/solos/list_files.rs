//! `list_files_solo`: the files of a pattern, for an iteration over them.

use std::fs;
use std::path::Path;

use pype_plugin::prelude::*;

use crate::sources::files::{self, cannot_read};

pub(crate) struct ListFilesSolo {
    config: Config,
}

/// Which files to list.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// A pattern for files: `inbox/*.csv`. Hidden ones are left.
    #[schemars(extend("format" = "path"))]
    path: String,
}

/// A file as an item of the list.
#[derive(Serialize)]
struct Item {
    path: String,
    name: String,
    /// The name without its last extension.
    stem: String,
    size: u64,
}

impl Solo for ListFilesSolo {
    const NAME: &'static str = "list_files_solo";
    const DESCRIPTION: &'static str = "Lists the files that a pattern matches, for an iteration over them";
    const CATEGORY: &'static str = "Files";
    const GLOBALS: &'static [&'static str] = &["count"];
    const LISTS: &'static [&'static str] = &["files"];
    type Config = Config;

    async fn open(config: Config, _ctx: &Context) -> Result<Self> {
        Ok(Self { config })
    }

    async fn run(&mut self, ctx: &Context) -> Result<()> {
        let pattern = self.config.path.clone();
        let list = move || files::matching(&pattern)?.iter().map(|path| Item::of(path)).collect::<Result<Vec<_>>>();
        let files = ctx.run_blocking(list).await?;
        ctx.set_list("files", &files)?;
        ctx.set_global("count", files.len())
    }
}

impl Item {
    fn of(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|error| cannot_read(path, &error))?;
        let part = |part: Option<&std::ffi::OsStr>| files::text(part.unwrap_or_default().as_ref()).map(str::to_owned);
        Ok(Self {
            path: files::text(path)?.to_owned(),
            name: part(path.file_name())?,
            stem: part(path.file_stem())?,
            size: metadata.len(),
        })
    }
}
