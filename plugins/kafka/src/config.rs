//! How Kafka is reached, and what librdkafka is told.

use std::collections::BTreeMap;

use pype_plugin::{Error, ErrorKind, Result};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use schemars::JsonSchema;
use serde::Deserialize;

/// How brokers are reached.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct Connection {
    /// The brokers to start from: `host:port`, several with commas between them.
    pub(crate) brokers: String,
    /// How to connect and to log in, if not in plain text.
    #[serde(default)]
    pub(crate) security: Option<Security>,
    /// Further settings of librdkafka, by their own names.
    #[serde(default)]
    pub(crate) properties: BTreeMap<String, String>,
}

/// How to connect and to log in. TLS needs a plugin built with the feature `tls`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Security {
    protocol: Protocol,
    #[serde(default)]
    mechanism: Option<Mechanism>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    /// The file of certificates that the brokers' are checked against; the system's without it.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    ca: Option<String>,
    /// The file of this client's own certificate.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    certificate: Option<String>,
    /// The file of its key.
    #[serde(default)]
    #[schemars(extend("format" = "path"))]
    key: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Protocol {
    Plaintext,
    Ssl,
    SaslPlaintext,
    SaslSsl,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
enum Mechanism {
    #[serde(rename = "PLAIN")]
    Plain,
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// What the source and the sink decide themselves: another value would break what they promise.
const OURS: [&str; 13] = [
    "bootstrap.servers",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.partition.eof",
    "enable.idempotence",
    "acks",
    "auto.offset.reset",
    "group.protocol",
    "partition.assignment.strategy",
    "session.timeout.ms",
    "statistics.interval.ms",
    "isolation.level",
];

impl Connection {
    /// The settings that consumers and producers have in common.
    pub(crate) fn client(&self) -> Result<ClientConfig> {
        let mut client = ClientConfig::new();
        for (name, value) in &self.properties {
            if OURS.contains(&name.as_str()) {
                let message = format!("`properties` may not set `{name}`, which the module sets itself");
                return Err(Error::new(ErrorKind::Config, "own-property", message).hint("use the module's own config"));
            }
            client.set(name, value);
        }
        client.set("bootstrap.servers", &self.brokers);
        if let Some(security) = &self.security {
            security.apply(&mut client)?;
        }
        Ok(client)
    }
}

impl Security {
    fn apply(&self, client: &mut ClientConfig) -> Result<()> {
        let (protocol, tls) = match self.protocol {
            Protocol::Plaintext => ("plaintext", false),
            Protocol::Ssl => ("ssl", true),
            Protocol::SaslPlaintext => ("sasl_plaintext", false),
            Protocol::SaslSsl => ("sasl_ssl", true),
        };
        let mechanism = self.mechanism.map(|mechanism| match mechanism {
            Mechanism::Plain => ("PLAIN", false),
            Mechanism::ScramSha256 => ("SCRAM-SHA-256", true),
            Mechanism::ScramSha512 => ("SCRAM-SHA-512", true),
        });
        if (tls || mechanism.is_some_and(|(_, needs_tls)| needs_tls)) && !cfg!(feature = "tls") {
            let message = format!("`{protocol}` and SCRAM need a plugin with TLS, which this one was built without");
            return Err(Error::new(ErrorKind::Config, "no-tls", message).hint(
                "build it with `cargo build --release -p pype-kafka --features tls`, and register that with \
                 `--replace`",
            ));
        }
        client.set("security.protocol", protocol);
        let settings = [
            ("sasl.mechanism", mechanism.map(|(name, _)| name)),
            ("sasl.username", self.username.as_deref()),
            ("sasl.password", self.password.as_deref()),
            ("ssl.ca.location", self.ca.as_deref()),
            ("ssl.certificate.location", self.certificate.as_deref()),
            ("ssl.key.location", self.key.as_deref()),
        ];
        for (name, value) in settings {
            if let Some(value) = value {
                client.set(name, value);
            }
        }
        Ok(())
    }
}

/// What librdkafka says, as an error of the module: what may pass is retryable.
pub(crate) fn failed(to: &str, cause: &KafkaError) -> Error {
    use RDKafkaErrorCode as Code;
    let code = cause.rdkafka_error_code();
    let (kind, name, retryable) = match code {
        _ if matches!(cause, KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_)) => {
            (ErrorKind::Config, "bad-config", false)
        }
        _ if matches!(cause, KafkaError::MessageConsumptionFatal(_)) => (ErrorKind::Unavailable, "fatal", false),
        Some(Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::UnknownPartition) => {
            (ErrorKind::NotFound, "unknown-topic", false)
        }
        Some(
            Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::Authentication
            | Code::SSL,
        ) => (ErrorKind::Config, "not-allowed", false),
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => (ErrorKind::Data, "too-large", false),
        Some(Code::RebalanceInProgress | Code::IllegalGeneration | Code::UnknownMemberId) => {
            (ErrorKind::Unavailable, "rebalancing", true)
        }
        Some(_) | None => (ErrorKind::Unavailable, "kafka", true),
    };
    Error::new(kind, name, format!("cannot {to}: {cause}")).retryable(retryable)
}
