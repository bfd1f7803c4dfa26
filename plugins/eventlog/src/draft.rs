//! A file that is being written, and one that only lacks its name.

use std::io::{self, Write};
use std::sync::LazyLock;

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use pype_plugin::{Error, ErrorKind, Result};

use crate::footer::Footer;
use crate::rows::file_schema;
use crate::shelf::Medium;

/// Above it zstd takes more time than the disk saves.
const ZSTD_LEVEL: i32 = 3;
/// A row group is written, and its memory given back, when it has so many rows …
const ROW_GROUP_ROWS: usize = 128 * 1024;
/// … or so many bytes, about.
const ROW_GROUP_BYTES: usize = 32 * 1024 * 1024;

static PROPERTIES: LazyLock<WriterProperties> = LazyLock::new(|| {
    let column = |name: &str| ColumnPath::from(name);
    WriterProperties::builder()
        .set_created_by(concat!("pype-eventlog ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).expect("a level that zstd has")))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        // Times rise by little.
        .set_column_dictionary_enabled(column("timestamp_ns"), false)
        .set_column_encoding(column("timestamp_ns"), Encoding::DELTA_BINARY_PACKED)
        // Each is another, and nobody asks for those between two of them.
        .set_column_dictionary_enabled(column("event_id"), false)
        .set_column_dictionary_enabled(column("event_payload"), false)
        .set_column_statistics_enabled(column("event_payload"), EnabledStatistics::None)
        .build()
});

/// A file that takes rows.
pub(crate) struct Draft {
    writer: ArrowWriter<Medium>,
}

impl Draft {
    pub(crate) fn new(medium: Medium) -> Result<Self> {
        let writer = ArrowWriter::try_new(medium, file_schema(), Some(PROPERTIES.clone())).map_err(failed)?;
        Ok(Self { writer })
    }

    pub(crate) fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.writer.write(rows).map_err(failed)?;
        if self.writer.in_progress_size() >= ROW_GROUP_BYTES {
            self.writer.flush().map_err(failed)?;
        }
        Ok(())
    }

    /// How many bytes it has, or will have.
    pub(crate) fn bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Ends the file with its footer.
    pub(crate) fn finish(mut self, footer: &Footer) -> Result<Medium> {
        footer.to_metadata().into_iter().for_each(|pair| self.writer.append_key_value_metadata(pair));
        let mut medium = self.writer.into_inner().map_err(failed)?;
        medium.flush().map_err(|error| failed(ParquetError::from(error)))?;
        Ok(medium)
    }
}

fn failed(error: ParquetError) -> Error {
    let message = "cannot write a file of the event log";
    let error = match error {
        ParquetError::External(cause) => match cause.downcast::<io::Error>() {
            Ok(cause) => {
                let message = format!("{message}: {cause}");
                return Error::from(*cause).message(message).retryable(true);
            }
            Err(cause) => ParquetError::External(cause),
        },
        error => error,
    };
    Error::new(ErrorKind::Io, "cannot-write", message).retryable(true).caused_by(error)
}
