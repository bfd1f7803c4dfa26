//! Secrets: where they come from, and how they stay out of everything that is written.
//!
//! A run asks once, before anything of it starts, for the secrets that the templates of its plan name, and for no
//! others. From then on they are in this process and in the configs that modules get. The [`Redactor`] masks them in
//! records and events; a [`Key`] lets a fingerprint change with them and give nothing away. What a module does with its
//! configs, in its sink or on its standard output, is for the module to answer for.

mod env;
mod file;
mod key;
mod redact;
mod vault;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use pype_core::diagnostic::{Diagnostic, Diagnostics};
use pype_core::flow::plan::Plan;
use pype_core::template::{self, SecretUse};

pub use self::env::{conceal, environment, variables};
pub use self::key::Key;
pub use self::redact::Redactor;

use self::vault::Server;

/// Where secrets come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `PYPE_SECRET_DB_PASSWORD` is `secret.db.password`.
    Env,
    /// A YAML or JSON file of nested mappings.
    File(PathBuf),
    /// Vault's KV store, version 2. The last part of a name is the key, the rest the path.
    Vault {
        /// Where the store is mounted.
        mount: String,
    },
}

impl Origin {
    /// Vault where `VAULT_ADDR` is set, otherwise the environment.
    pub fn of_surroundings() -> Self {
        match std::env::var_os("VAULT_ADDR").is_some_and(|address| !address.is_empty()) {
            true => Self::Vault { mount: vault::MOUNT.to_owned() },
            false => Self::Env,
        }
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest))) {
            ("env", None) => Ok(Self::Env),
            ("file", Some(path)) if !path.is_empty() => Ok(Self::File(path.into())),
            ("vault", None) => Ok(Self::Vault { mount: vault::MOUNT.to_owned() }),
            ("vault", Some(mount)) if !mount.trim_matches('/').is_empty() => {
                Ok(Self::Vault { mount: mount.trim_matches('/').to_owned() })
            }
            _ => Err("use env, file:PATH, vault or vault:MOUNT".to_owned()),
        }
    }
}

/// Answers for dotted names, without `secret.` before them.
pub type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The secrets of one run. Cheap to clone.
#[derive(Clone)]
pub struct Secrets {
    // A function, so that a template's scope can borrow it.
    lookup: Arc<Lookup>,
    values: Arc<BTreeMap<String, String>>,
    redactor: Redactor,
}

impl Secrets {
    fn new(values: BTreeMap<String, String>, also_hidden: Option<&str>) -> Self {
        let redactor = Redactor::of(values.values().map(String::as_str).chain(also_hidden));
        let values = Arc::new(values);
        let known = values.clone();
        Self { lookup: Arc::new(move |name| known.get(name).cloned()), values, redactor }
    }

    /// In a child: those that its host was told.
    pub(crate) fn of(values: BTreeMap<String, String>) -> Self {
        Self::new(values, None)
    }

    /// For a child, which must have them too.
    pub(crate) fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// What they are.
    pub fn lookup(&self) -> &Lookup {
        &*self.lookup
    }

    /// What masks them.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }
}

/// None.
impl Default for Secrets {
    fn default() -> Self {
        Self::new(BTreeMap::new(), None)
    }
}

/// Never says what they are.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// Why a run has no secrets. No message holds one, nor a token.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Some are not there; all of them, each where a template names it.
    #[error("{} secrets are not there", .0.len())]
    Missing(Diagnostics),
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read or write the file.
    #[error("others may use `{}`: its mode is {mode:04o}", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file is neither YAML nor JSON. What stands there is not repeated: it may be a secret.
    #[error("`{}` is neither YAML nor JSON: see {place}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Line and column.
        place: String,
    },
    /// Nothing says where Vault is.
    #[error("nothing says where Vault is")]
    NoAddress,
    /// `VAULT_ADDR` is not an address.
    #[error("`VAULT_ADDR` is not an address of the form `https://host:8200`")]
    BadAddress,
    /// There is no token, or none that can be sent.
    #[error("there is no token for Vault at `{address}`")]
    NoToken {
        /// Scheme, host and port.
        address: String,
    },
    /// `VAULT_CACERT` is not a certificate in PEM form.
    #[error("`{}` holds no certificate in PEM form", path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
    },
    /// No answer came.
    #[error("cannot reach Vault at `{address}`: {why}")]
    Unreachable {
        /// Scheme, host and port.
        address: String,
        /// The causes, nearest last.
        why: String,
    },
    /// The answer is not one that a secret could be in.
    #[error("Vault at `{address}` answers {status} for `{path}`{why}")]
    Refused {
        /// Scheme, host and port.
        address: String,
        /// The HTTP status.
        status: u16,
        /// What was asked for.
        path: String,
        /// What it says about that; empty, or after a colon.
        why: String,
    },
}

impl SecretError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing(_) => "set each of them where `--secrets` looks".to_owned(),
            Self::Io { .. } => "`--secrets file:PATH` names the file; VAULT_CACERT a certificate".to_owned(),
            Self::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            Self::Malformed { .. } => "write nested mappings, `db: {password: \"…\"}`".to_owned(),
            Self::NoAddress | Self::BadAddress => "export VAULT_ADDR=https://vault.example.com:8200".to_owned(),
            Self::NoToken { .. } => "run `vault login`, or set VAULT_TOKEN".to_owned(),
            Self::Certificate { .. } => "let VAULT_CACERT name the file of the server's authority".to_owned(),
            Self::Unreachable { .. } => {
                "check VAULT_ADDR, and VAULT_CACERT if the server has an authority of its own; \
                                         `vault status` asks the same server"
                    .to_owned()
            }
            Self::Refused { status, .. } => match status {
                300..400 => "let VAULT_ADDR name the server that it sends on to; a token is not sent elsewhere",
                503 => "`vault status` says whether it is sealed",
                _ => "`vault status` says how the server is",
            }
            .to_owned(),
        }
    }
}

/// What an origin answers for each name.
type Answers = BTreeMap<String, Result<String, Lack>>;

/// Why there is no value for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lack {
    /// It is not there, and a template may do without; else it is there and cannot be used.
    absent: bool,
    message: String,
    help: String,
}

impl Lack {
    fn absent(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { absent: true, message: message.into(), help: help.into() }
    }

    fn unusable(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { absent: false, message: message.into(), help: help.into() }
    }
}

/// The secrets that `plan` names, from `origin`; without one, from where the surroundings say. A plan that names none
/// asks nobody.
///
/// # Errors
/// Some are not there, or the origin cannot be used.
pub async fn fetch(origin: Option<&Origin>, uses: &[SecretUse], document: &Path) -> Result<Secrets, SecretError> {
    if uses.is_empty() {
        return Ok(Secrets::default());
    }
    let names: BTreeSet<&str> = uses.iter().map(|one| one.name.as_str()).collect();
    let surroundings = Origin::of_surroundings();
    let (answers, token) = match origin.unwrap_or(&surroundings) {
        Origin::Env => (env::ask(&names, &|name| std::env::var_os(name)), None),
        Origin::File(path) => (file::ask(path, &names)?, None),
        Origin::Vault { mount } => {
            let server = Server::of_surroundings()?;
            (server.ask(mount, &names).await?, Some(server.token().to_owned()))
        }
    };
    let missing = missing(uses, &answers, document);
    if !missing.is_empty() {
        return Err(SecretError::Missing(missing));
    }
    let values = answers.into_iter().filter_map(|(name, answer)| Some((name, answer.ok()?)));
    Ok(Secrets::new(values.collect(), token.as_deref()))
}

/// Each place where a plan names a secret.
pub fn uses(plan: &Plan) -> Vec<SecretUse> {
    plan.nodes().iter().flat_map(|node| template::secrets(&node.configs, &node.spans, &plan.source)).collect()
}

fn missing(uses: &[SecretUse], answers: &Answers, document: &Path) -> Diagnostics {
    let lack = |one: &SecretUse| match answers.get(&one.name) {
        Some(Err(lack)) if !(lack.absent && one.optional) => Some(lack.clone()),
        Some(_) | None => None,
    };
    let diagnostic = |one: &SecretUse| {
        let Lack { message, help, .. } = lack(one)?;
        Some(Diagnostic::error("missing-secret", document, message).at(one.span).help(help))
    };
    uses.iter().filter_map(diagnostic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_one_word_and_what_it_needs() {
        let vault = |mount: &str| Ok(Origin::Vault { mount: mount.to_owned() });
        assert_eq!("env".parse(), Ok(Origin::Env));
        assert_eq!("file:a:b.yaml".parse(), Ok(Origin::File("a:b.yaml".into())));
        assert_eq!("vault".parse(), vault("secret"));
        assert_eq!("vault:kv/team/".parse(), vault("kv/team"));
        for wrong in ["", "file", "file:", "vault:", "vault:/", "env:x", "consul"] {
            assert_eq!(wrong.parse::<Origin>(), Err("use env, file:PATH, vault or vault:MOUNT".to_owned()), "{wrong}");
        }
    }

    #[test]
    fn secrets_do_not_show_themselves() {
        let secrets = Secrets::new(BTreeMap::from([("db.password".to_owned(), "hunter2".to_owned())]), None);
        assert_eq!(secrets.lookup()("db.password").as_deref(), Some("hunter2"));
        assert_eq!(format!("{secrets:?}"), "Secrets { .. }");
    }
}
