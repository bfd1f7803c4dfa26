//! Secrets in Vault, or a server with its API: the KV store, version 2, as
//! <https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#read-secret-version> describes it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Answers, Lack, Redactor, SecretError};

/// Where the store is mounted unless somebody says otherwise.
pub(super) const MOUNT: &str = "secret";

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(30);

/// Where Vault is, and who asks.
pub(super) struct Server {
    address: Url,
    token: String,
    namespace: Option<String>,
    authority: Option<PathBuf>,
}

/// Of the newest version at a path, if there is one.
type Keys = Option<Map<String, Value>>;

/// What a read answers, as far as it matters here.
#[derive(Deserialize)]
struct Read {
    data: Version,
}

#[derive(Deserialize)]
struct Version {
    data: Keys,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    errors: Vec<String>,
}

impl Server {
    /// As Vault's own command line is told: `VAULT_ADDR`, `VAULT_TOKEN` or `~/.vault-token`, `VAULT_NAMESPACE`,
    /// `VAULT_CACERT`.
    pub(super) fn of_surroundings() -> Result<Self, SecretError> {
        Self::new(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()), std::env::home_dir())
    }

    fn new(variable: &dyn Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Result<Self, SecretError> {
        let address = variable("VAULT_ADDR").ok_or(SecretError::NoAddress)?;
        let address = Url::parse(&address).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let address = address.filter(Url::has_host).ok_or(SecretError::BadAddress)?;
        let of_file = || fs::read_to_string(home?.join(".vault-token")).ok();
        let token = variable("VAULT_TOKEN").or_else(of_file).map(|token| token.trim().to_owned());
        let token = token.filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| SecretError::NoToken { address: address.origin().ascii_serialization() })?;
        let authority = variable("VAULT_CACERT").map(PathBuf::from);
        Ok(Self { address, token, namespace: variable("VAULT_NAMESPACE"), authority })
    }

    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Reads each path once.
    pub(super) async fn ask(&self, mount: &str, names: &BTreeSet<&str>) -> Result<Answers, SecretError> {
        let mut answers = Answers::new();
        let mut keys: BTreeMap<String, Vec<(&str, &str)>> = BTreeMap::new();
        for name in names {
            match name.rsplit_once('.') {
                Some((path, key)) => keys.entry(path.replace('.', "/")).or_default().push((name, key)),
                None => drop(answers.insert((*name).to_owned(), Err(no_path(name)))),
            }
        }
        let client = self.client()?;
        for (path, keys) in keys {
            let version = self.read(&client, mount, &path).await?;
            for (name, key) in keys {
                let data = version.as_ref().map_err(Clone::clone);
                answers.insert(name.to_owned(), data.and_then(|data| value(data.as_ref(), mount, &path, key)));
            }
        }
        Ok(answers)
    }

    fn client(&self) -> Result<Client, SecretError> {
        let mut headers = HeaderMap::new();
        let mut token =
            HeaderValue::from_str(&self.token).map_err(|_| SecretError::NoToken { address: self.origin() })?;
        token.set_sensitive(true);
        headers.insert("x-vault-token", token);
        headers.insert("x-vault-request", HeaderValue::from_static("true"));
        if let Some(namespace) = self.namespace.as_deref().and_then(|name| HeaderValue::from_str(name).ok()) {
            headers.insert("x-vault-namespace", namespace);
        }
        // A token is for the server that it was given for, not for one that this server names.
        let builder = Client::builder().default_headers(headers).redirect(Policy::none());
        let builder = builder.connect_timeout(CONNECT_PATIENCE).timeout(PATIENCE);
        let builder = self.authorities()?.into_iter().fold(builder, |builder, one| builder.add_root_certificate(one));
        builder.build().map_err(|error| self.unreachable(error))
    }

    fn authorities(&self) -> Result<Vec<Certificate>, SecretError> {
        let Some(path) = &self.authority else { return Ok(Vec::new()) };
        let pem = fs::read(path).map_err(|source| SecretError::Io { path: path.clone(), source })?;
        let certificates = Certificate::from_pem_bundle(&pem).ok().filter(|found| !found.is_empty());
        certificates.ok_or_else(|| SecretError::Certificate { path: path.clone() })
    }

    /// The keys and values at a path, if it is there; or why it cannot be used.
    async fn read(&self, client: &Client, mount: &str, path: &str) -> Result<Result<Keys, Lack>, SecretError> {
        let response = client.get(self.url(mount, path)).send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| self.unreachable(error))?;
        let at = format!("{mount}/data/{path}");
        match status {
            StatusCode::OK => match serde_json::from_slice(&body) {
                Ok(Read { data: Version { data } }) => Ok(Ok(data)),
                // What serde_json would say repeats what it has read.
                Err(_) => Err(self.refused(status, at, ", and what it answers is no secret of a KV store, version 2")),
            },
            // Also of a version that was deleted. A mount that is not there has something to say, and who is not Vault
            // says it in other words.
            StatusCode::NOT_FOUND => match self.words(&body) {
                None => Err(self.refused(status, at, ", and not as Vault does")),
                Some(words) if words.is_empty() => Ok(Ok(None)),
                Some(words) => Ok(Err(Lack::unusable(
                    format!("Vault has nothing at `{at}`: {words}"),
                    "`vault secrets list` names the mounts; choose one with `--secrets vault:MOUNT`",
                ))),
            },
            StatusCode::FORBIDDEN => Ok(Err(Lack::unusable(
                format!("the token may not read `{at}` in Vault"),
                format!("give its policy the capability `read` on `{at}`; `vault token lookup` says if it has expired"),
            ))),
            _ => {
                let words = self.words(&body).filter(|words| !words.is_empty());
                Err(self.refused(status, at, &words.map_or(String::new(), |words| format!(": {words}"))))
            }
        }
    }

    fn url(&self, mount: &str, path: &str) -> Url {
        let mut url = self.address.clone();
        url.path_segments_mut()
            .expect("an address with a host has a path")
            .pop_if_empty()
            .push("v1")
            .extend(mount.split('/'))
            .push("data")
            .extend(path.split('/'));
        url
    }

    /// What the server says is wrong, empty if it says nothing; `None` if it does not speak as Vault does.
    fn words(&self, body: &[u8]) -> Option<String> {
        let Refusal { errors } = serde_json::from_slice(body).ok()?;
        let words = Redactor::of([self.token()]).text(&errors.join("; ")).replace(['\n', '\t'], " ");
        Some(words.trim().to_owned())
    }

    /// The address without what may stand before the host: a password.
    fn origin(&self) -> String {
        self.address.origin().ascii_serialization()
    }

    fn refused(&self, status: StatusCode, path: String, why: &str) -> SecretError {
        SecretError::Refused { address: self.origin(), status: status.as_u16(), path, why: why.to_owned() }
    }

    fn unreachable(&self, error: reqwest::Error) -> SecretError {
        let late = error.is_timeout().then(|| format!("it took more than {} s", PATIENCE.as_secs()));
        let error = error.without_url();
        let causes = std::iter::successors(Some(&error as &dyn Error), |error| (*error).source());
        let told = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        let why = late.unwrap_or(told);
        SecretError::Unreachable { address: self.origin(), why: Redactor::of([self.token()]).text(&why).into_owned() }
    }
}

fn value(data: Option<&Map<String, Value>>, mount: &str, path: &str, key: &str) -> Result<String, Lack> {
    let command = if data.is_some() { "patch" } else { "put" };
    match data.and_then(|data| data.get(key)) {
        Some(Value::String(value)) => Ok(value.clone()),
        Some(_) => Err(Lack::unusable(
            format!("`{key}` at `{mount}/{path}` in Vault is not text"),
            "a secret is text; a filter makes a number of it: `{{ secret.db.port | int }}`",
        )),
        None => Err(Lack::absent(
            format!("Vault has no `{key}` at `{mount}/{path}`"),
            format!("vault kv {command} -mount={mount} {path} {key}=…"),
        )),
    }
}

fn no_path(name: &str) -> Lack {
    let message = format!("`secret.{name}` names a key and no path, and Vault keeps keys at paths");
    Lack::unusable(message, "write `secret.path.key`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(address: &str) -> Result<Server, SecretError> {
        let variable = |name: &str| match name {
            "VAULT_ADDR" => Some(address.to_owned()),
            "VAULT_TOKEN" => Some("s.token\n".to_owned()),
            _ => None,
        };
        Server::new(&variable, None)
    }

    #[test]
    fn a_path_is_below_the_data_of_its_mount() {
        let url = |address: &str, mount| server(address).expect("an address").url(mount, "db/prod").to_string();
        assert_eq!(url("http://127.0.0.1:8200", "secret"), "http://127.0.0.1:8200/v1/secret/data/db/prod");
        assert_eq!(url("https://h/vault/", "kv/te am"), "https://h/vault/v1/kv/te%20am/data/db/prod");
    }

    #[test]
    fn an_address_has_a_host_and_shows_no_password() {
        for wrong in ["127.0.0.1:8200", "vault", "ftp://h", "unix:/run/vault"] {
            assert!(matches!(server(wrong), Err(SecretError::BadAddress)), "{wrong}");
        }
        let server = server("https://me:hunter2@h:8200").expect("an address");
        assert_eq!((server.origin().as_str(), server.token()), ("https://h:8200", "s.token"));
    }

    #[test]
    fn a_token_may_lie_in_the_home_folder() {
        let home = tempfile::tempdir().expect("a folder");
        let address = |name: &str| (name == "VAULT_ADDR").then(|| "http://h:1".to_owned());
        let of = || Server::new(&address, Some(home.path().to_owned()));
        assert!(matches!(of(), Err(SecretError::NoToken { address }) if address == "http://h:1"));
        fs::write(home.path().join(".vault-token"), "s.file\n").expect("written");
        assert_eq!(of().expect("there is a token").token(), "s.file");
    }
}
