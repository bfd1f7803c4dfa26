//! `json_sink`: a table as JSON lines, or as one array.

use std::io::{self, Write};

use flate2::write::GzEncoder;
use polars::io::utils::file::WritableTrait;
use polars::prelude::*;
use pype_plugin::prelude::*;

use super::file::{self, FileSink, Format};
use super::writer::TallyingWriter;
use crate::options::{Compression, IfExists};

pub(crate) struct JsonSink(FileSink);

/// Where and how to write.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Path of the file. Its folders are made as needed.
    #[schemars(extend("format" = "path"))]
    output_path: String,
    /// One object a line, or one array of objects.
    #[serde(default)]
    format: Shape,
    /// How the file is compressed.
    #[serde(default)]
    compression: Compression,
    /// What to do when the file exists.
    #[serde(default)]
    if_exists: IfExists,
}

#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Shape {
    /// One object a line.
    #[default]
    Ndjson,
    /// One array of objects.
    Json,
}

impl Sink for JsonSink {
    const NAME: &'static str = "json_sink";
    const DESCRIPTION: &'static str = "Writes a table to a file of JSON lines, or of one JSON array";
    const CATEGORY: &'static str = "File Sinks";
    const PACKAGES: &'static [&'static str] = &["polars"];
    type Config = Config;

    async fn outputs(config: &Config) -> Result<Option<Vec<Resource>>> {
        file::written(&config.output_path).map(Some)
    }

    async fn open(config: Config, ctx: &Context) -> Result<Self> {
        let format = match config.format {
            Shape::Json => Format::JsonArray(config.compression),
            Shape::Ndjson => Format::JsonLines(NDJsonWriterOptions {
                compression: config.compression.into(),
                check_extension: false,
            }),
        };
        FileSink::open(config.output_path, config.if_exists, format, ctx).await.map(Self)
    }

    async fn write(&mut self, inputs: Inputs, ctx: &Context) -> Result<()> {
        self.0.write(inputs, ctx).await
    }

    async fn commit(&mut self, ctx: &Context) -> Result<Vec<Commit>> {
        self.0.commit(ctx).await
    }

    async fn close(&mut self, ctx: &Context) -> Result<()> {
        self.0.close(ctx).await
    }
}

/// Makes an array of the JSON lines that are written to it: a line break inside a string is escaped, so each one it
/// sees ends a row.
pub(crate) struct ArrayWriter {
    /// Taken by `close`.
    encoder: Option<Encoder>,
    started: bool,
    between_rows: bool,
}

enum Encoder {
    None(TallyingWriter),
    Gzip(GzEncoder<TallyingWriter>),
    Zstd(zstd::Encoder<'static, TallyingWriter>),
}

impl ArrayWriter {
    pub(crate) fn new(writer: TallyingWriter, compression: Compression) -> io::Result<Self> {
        let encoder = match compression {
            Compression::None => Encoder::None(writer),
            Compression::Gzip => Encoder::Gzip(GzEncoder::new(writer, flate2::Compression::default())),
            Compression::Zstd => Encoder::Zstd(zstd::Encoder::new(writer, zstd::DEFAULT_COMPRESSION_LEVEL)?),
        };
        Ok(Self { encoder: Some(encoder), started: false, between_rows: false })
    }

    fn encoder(&mut self) -> io::Result<&mut Encoder> {
        self.encoder.as_mut().ok_or_else(|| io::Error::other("the array is closed"))
    }

    /// Writes part of one line, and before it what belongs between it and the line before.
    fn write_part(&mut self, part: &[u8]) -> io::Result<()> {
        if part.is_empty() {
            return Ok(());
        }
        let before: &[u8] = match (self.started, self.between_rows) {
            (false, _) => b"[\n",
            (true, true) => b",\n",
            (true, false) => b"",
        };
        (self.started, self.between_rows) = (true, false);
        let encoder = self.encoder()?;
        encoder.write_all(before)?;
        encoder.write_all(part)
    }
}

impl Write for ArrayWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, ended) = line.strip_suffix(b"\n").map_or((line, false), |part| (part, true));
            self.write_part(part)?;
            self.between_rows |= ended;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl WritableTrait for ArrayWriter {
    fn close(&mut self) -> io::Result<()> {
        let end: &[u8] = if self.started { b"\n]\n" } else { b"[]\n" };
        let Some(mut encoder) = self.encoder.take() else { return Ok(()) };
        encoder.write_all(end)?;
        encoder.finish()?.close()
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(()) // The sink's commit does it.
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Encoder {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::None(writer) => writer.write_all(bytes),
            Self::Gzip(writer) => writer.write_all(bytes),
            Self::Zstd(writer) => writer.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<TallyingWriter> {
        match self {
            Self::None(writer) => Ok(writer),
            Self::Gzip(writer) => writer.finish(),
            Self::Zstd(writer) => writer.finish(),
        }
    }
}
