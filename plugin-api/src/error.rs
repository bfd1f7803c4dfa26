//! The one error that crosses the boundary: a kind, a code, a message, its causes, and whether to try again.

use std::fmt;
use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Serialize};

/// What went wrong, for those who decide what happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configs ask for something impossible.
    Config,
    /// The data is not what was promised.
    Data,
    /// A file, table or object is not there.
    NotFound,
    /// Reading or writing failed.
    Io,
    /// A service cannot be reached at the moment.
    Unavailable,
    /// The run was cancelled.
    Cancelled,
    /// It took too long.
    TimedOut,
    /// Plugin code panicked.
    Panicked,
    /// The other side does not know this.
    Unsupported,
    /// A fault in the plugin or the host.
    #[serde(other)]
    Internal,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "config",
            Self::Data => "data",
            Self::NotFound => "not found",
            Self::Io => "i/o",
            Self::Unavailable => "unavailable",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed out",
            Self::Panicked => "panicked",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        })
    }
}

/// An error of a module. Crosses the boundary as JSON, so both sides may add to it. It is one pointer, for a [`Result`] is moved
/// more often than it is an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Error(Box<ErrorFacts>);

/// What an [`Error`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorFacts {
    /// Its kind.
    pub kind: ErrorKind,
    /// A stable name in kebab-case, for programs: `missing-column`.
    pub code: String,
    /// A lowercase sentence, for people.
    pub message: String,
    /// Whether the same call may succeed later.
    #[serde(default)]
    pub retryable: bool,
    /// The messages of what caused it, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// What a module's methods return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error that will not go away by itself.
    pub fn new(kind: ErrorKind, code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, message) = (code.into(), message.into());
        Self(Box::new(ErrorFacts { kind, code, message, retryable: false, causes: Vec::new(), hint: None }))
    }

    /// Says it in other words.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Says whether the same call may succeed later.
    #[must_use]
    pub fn retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// Adds `cause` and what caused it in turn.
    #[must_use]
    pub fn caused_by(mut self, cause: impl std::error::Error) -> Self {
        self.causes.push(cause.to_string());
        let mut next = cause.source();
        while let Some(cause) = next {
            self.causes.push(cause.to_string());
            next = cause.source();
        }
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The run was cancelled.
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "cancelled", "the run was cancelled")
    }

    pub(crate) fn to_json(&self) -> crate::abi::ErrorBytes {
        serde_json::to_vec(self).expect("an error is plain data").into()
    }

    pub(crate) fn from_json(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_else(|cause| {
            let text = String::from_utf8_lossy(bytes);
            Self::new(ErrorKind::Internal, "unreadable-error", format!("the other side reported `{text}`"))
                .caused_by(cause)
        })
    }
}

impl Deref for Error {
    type Target = ErrorFacts;

    fn deref(&self) -> &ErrorFacts {
        &self.0
    }
}

impl DerefMut for Error {
    fn deref_mut(&mut self) -> &mut ErrorFacts {
        &mut self.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.causes.iter().filter(|cause| !self.message.contains(cause.as_str())).try_for_each(|c| write!(f, ": {c}"))
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(cause: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let (kind, code, retryable) = match cause.kind() {
            Io::NotFound => (ErrorKind::NotFound, "not-found", false),
            Io::ConnectionRefused | Io::ConnectionReset | Io::ConnectionAborted | Io::NotConnected => {
                (ErrorKind::Unavailable, "unavailable", true)
            }
            Io::TimedOut => (ErrorKind::TimedOut, "timed-out", true),
            _ => (ErrorKind::Io, "io", false),
        };
        Self::new(kind, code, cause.to_string()).retryable(retryable)
    }
}

impl From<serde_json::Error> for Error {
    fn from(cause: serde_json::Error) -> Self {
        Self::new(ErrorKind::Data, "json", cause.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_survives_the_wire_and_a_kind_of_the_future_becomes_internal() {
        let error = Error::new(ErrorKind::Data, "bad-row", "row 3 has no date").retryable(true).hint("look at row 3");
        assert_eq!(Error::from_json(&error.to_json()), error);
        let newer = br#"{"kind":"quantum","code":"q","message":"m","colour":"red"}"#;
        assert_eq!(Error::from_json(newer).kind, ErrorKind::Internal);
    }
}
