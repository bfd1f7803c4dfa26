//! `run.json`: what happened in a run, one JSON object a line, only ever appended to.
//!
//! A crash can tear the last line and nothing else, so a reader leaves out a last line that is not whole and takes
//! anything else that is not a record for damage. The first line is a header with format and version.

use serde::{Deserialize, Serialize};

use super::event::RunEvent;

const FORMAT: &str = "pype-run";
const VERSION: u64 = 1;

/// An event and when it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub event: RunEvent,
}

/// The text of a log, read.
#[derive(Debug, Clone, PartialEq)]
pub struct RunLog {
    /// Everything that was written whole.
    pub records: Vec<Record>,
    /// How many bytes these take: what follows is a torn line.
    pub whole: usize,
}

/// Why a text is not a log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A line that is not the last is no record.
    #[error("line {line} is damaged")]
    Damaged {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// It says to be something else.
    #[error("its format is `{found}`, not `{FORMAT}`")]
    Format {
        /// What it says.
        found: String,
    },
    /// It was written by a later pype.
    #[error("it has format version {found}, this pype reads up to {VERSION}: use a newer pype")]
    Newer {
        /// Its version.
        found: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: String,
    format_version: u64,
}

/// The first line, with its end.
#[must_use]
pub fn header() -> String {
    let header = Header { format: FORMAT.to_owned(), format_version: VERSION };
    line(&header)
}

/// The line of a record, with its end.
#[must_use]
pub fn record(at_ms: u64, event: &RunEvent) -> String {
    #[derive(Serialize)]
    struct Borrowed<'a> {
        at_ms: u64,
        #[serde(flatten)]
        event: &'a RunEvent,
    }
    line(&Borrowed { at_ms, event })
}

fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("events are plain data") + "\n"
}

/// Reads a log as far as it is whole. An empty text, or a torn header, is a log of nothing.
///
/// # Errors
/// It is damaged elsewhere than in its last line, or not such a log.
pub fn read(text: &str) -> Result<RunLog, LogError> {
    let mut log = RunLog { records: Vec::new(), whole: 0 };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let Some(whole) = line.strip_suffix('\n') else { break };
        if index == 0 {
            check_header(whole)?;
        } else {
            let damaged = |source| LogError::Damaged { line: index + 1, source };
            log.records.push(serde_json::from_str(whole).map_err(damaged)?);
        }
        log.whole += line.len();
    }
    Ok(log)
}

fn check_header(line: &str) -> Result<(), LogError> {
    let header: Header = serde_json::from_str(line).map_err(|source| LogError::Damaged { line: 1, source })?;
    if header.format != FORMAT {
        return Err(LogError::Format { found: header.format });
    }
    if header.format_version > VERSION {
        return Err(LogError::Newer { found: header.format_version });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::scheduler::Verdict;

    fn log() -> String {
        let finished = RunEvent::RunFinished { verdict: Verdict::Succeeded, seconds: 0.5 };
        header() + &record(1, &finished) + &record(2, &finished)
    }

    #[test]
    fn a_log_cut_anywhere_reads_up_to_its_last_whole_line() {
        let text = log();
        for cut in 0..=text.len() {
            let read = read(&text[..cut]).expect("a torn line is no damage");
            let lines = text[..cut].matches('\n').count();
            assert_eq!(read.records.len(), lines.saturating_sub(1));
            assert_eq!(read.whole, text[..cut].rfind('\n').map_or(0, |end| end + 1));
        }
    }

    #[test]
    fn damage_elsewhere_is_named_by_its_line() {
        let damaged = log().replace("\"at_ms\":1,", "");
        assert_eq!(read(&damaged).map_err(|error| error.to_string()), Err("line 2 is damaged".to_owned()));
        let other = "{\"format\":\"x\",\"format_version\":1}\n";
        assert_eq!(read(other).map_err(|error| error.to_string()), Err("its format is `x`, not `pype-run`".to_owned()));
        let newer = "{\"format\":\"pype-run\",\"format_version\":2}\n";
        assert!(matches!(read(newer), Err(LogError::Newer { found: 2 })));
    }

    #[test]
    fn a_log_of_version_1_stays_readable() {
        let text = include_str!("../../tests/v1/run.json");
        let log = read(text).expect("readable");
        assert_eq!(log.whole, text.len());
        assert_eq!(log.records.len(), 2);
    }
}
