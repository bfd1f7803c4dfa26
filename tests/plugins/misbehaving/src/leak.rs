//! A module that tells everybody what it was told in confidence.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pype_plugin::prelude::*;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Confidence {
    /// What nobody else should hear.
    password: String,
    /// Whether to fail, with the password in the error.
    fails: bool,
}

pub(crate) struct LeakSolo(Confidence);

impl Solo for LeakSolo {
    const NAME: &str = "leak_solo";
    const DESCRIPTION: &str = "Writes its password wherever a module can write";
    const GLOBALS: &[&str] = &["password", "connection"];
    type Config = Confidence;

    async fn open(config: Confidence, _: &Context) -> Result<Self> {
        tracing::info!(?config, "opened with {config:?}");
        Ok(Self(config))
    }

    async fn run(&mut self, ctx: &Context) -> Result<()> {
        let Confidence { password, fails } = &self.0;
        tracing::warn!(password, "the password is {password}");
        tracing::info!("the environment is {:?}", std::env::vars().collect::<Vec<_>>());
        log::warn!("Authorization: Basic {}", STANDARD.encode(format!("user:{password}")));
        tracing::info!(target: "leak", json = %serde_json::json!({ "password": password }), "as JSON");
        ctx.set_global("password", password.clone())?;
        ctx.set_global("connection", serde_json::json!({ "url": format!("ftp://user:{password}@host"), password: 1 }))?;
        match fails {
            true => Err(Error::new(ErrorKind::Unavailable, "login", format!("`{password}` was not accepted"))
                .hint(format!("try {password}1"))
                .caused_by(std::io::Error::other(format!("login with {password} failed")))),
            false => Ok(()),
        }
    }
}
