//! Modules that take their process down.

use std::path::Path;

use pype_plugin::prelude::*;
use pype_plugin::{Inputs, Outputs};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// `segfault`, `abort`, `exit` or `hang`.
    how: String,
    /// A file: if it is there, all goes well. It is made before the crash.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    unless: Option<String>,
    /// What nobody else should hear.
    #[serde(default)]
    password: String,
}

impl Config {
    fn crash(&self) -> Result<()> {
        if let Some(unless) = &self.unless {
            if Path::new(unless).exists() {
                return Ok(());
            }
            std::fs::write(unless, "")?;
        }
        tracing::info!("about to {} with {}", self.how, self.password);
        // The record is on its way to the host by then.
        std::thread::sleep(std::time::Duration::from_millis(50));
        match self.how.as_str() {
            // SAFETY: there is none; that is what this module is for.
            "segfault" => unsafe { std::ptr::null_mut::<u8>().write_volatile(1) },
            "abort" => std::process::abort(),
            "exit" => std::process::exit(3),
            _ => loop {
                std::thread::park();
            },
        }
        Ok(())
    }
}

pub(crate) struct CrashSolo(Config);

impl Solo for CrashSolo {
    const NAME: &str = "crash_solo";
    const DESCRIPTION: &str = "Takes its process down";
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn run(&mut self, _: &Context) -> Result<()> {
        self.0.crash()
    }
}

pub(crate) struct CrashMod(Config);

impl Mod for CrashMod {
    const NAME: &str = "crash_mod";
    const DESCRIPTION: &str = "Takes its process down, or gives its rows on";
    const INPUTS: &[&str] = &["input"];
    const OUTPUTS: &[&str] = &["output"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn run(&mut self, mut inputs: Inputs, _: &Context) -> Result<Outputs> {
        self.0.crash()?;
        Ok(Outputs::one("output", inputs.take("input")?))
    }
}
