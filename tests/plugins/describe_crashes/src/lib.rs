//! A plugin that crashes when it is asked what is in it.

use std::borrow::Cow;

use pype_plugin::prelude::*;
use schemars::{Schema, SchemaGenerator};

#[derive(Deserialize)]
struct Config {}

impl JsonSchema for Config {
    fn schema_name() -> Cow<'static, str> {
        "Config".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        crash()
    }
}

struct Forgetful;

impl Solo for Forgetful {
    const NAME: &str = "forgetful";
    type Config = Config;

    async fn open(_: Config, _: &Context) -> Result<Self> {
        Ok(Self)
    }

    async fn run(&mut self, _: &Context) -> Result<()> {
        Ok(())
    }
}

export_plugin! { solos: [Forgetful] }

fn crash() -> Schema {
    // SAFETY: none at all; that is the point.
    unsafe { std::ptr::null_mut::<u8>().write_volatile(1) };
    Schema::default()
}
