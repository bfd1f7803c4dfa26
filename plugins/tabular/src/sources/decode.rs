//! Text that is not UTF-8, made UTF-8 in files of the run's temporary folder.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use encoding_rs::DecoderResult;
use polars::prelude::{CsvEncoding, LazyFrame, NamedFrom, Series, lit};
use pype_plugin::CancelToken;
use pype_plugin::prelude::*;

use super::files::{Files, cannot_read};
use crate::columns;
use crate::failure::CANCELLED;

/// An encoding by its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Encoding {
    /// UTF-8; a byte that is not is an error.
    Utf8,
    /// UTF-8; a byte that is not becomes `�`.
    Utf8Lossy,
    /// Anything else.
    Other(&'static encoding_rs::Encoding),
}

impl Encoding {
    /// Finds an encoding by a label of the WHATWG standard, or `utf8-lossy`.
    pub(crate) fn named(label: &str) -> Result<Self> {
        if matches!(label.to_lowercase().as_str(), "utf8-lossy" | "utf-8-lossy") {
            return Ok(Self::Utf8Lossy);
        }
        match encoding_rs::Encoding::for_label(label.as_bytes()) {
            Some(encoding) if encoding == encoding_rs::UTF_8 => Ok(Self::Utf8),
            Some(encoding) if encoding != encoding_rs::REPLACEMENT => Ok(Self::Other(encoding)),
            _ => Err(Error::new(ErrorKind::Config, "unknown-encoding", format!("unknown encoding `{label}`"))
                .hint("known are utf-8, utf8-lossy, latin1, windows-1252, utf-16, and the other labels of the web")),
        }
    }

    /// What polars is told after [`to_utf8`].
    pub(crate) fn of_polars(self) -> CsvEncoding {
        match self {
            Self::Utf8 | Self::Other(_) => CsvEncoding::Utf8,
            Self::Utf8Lossy => CsvEncoding::LossyUtf8,
        }
    }
}

/// The same files if polars can read them as they are; else copies of them in UTF-8, in `folder`.
pub(crate) fn to_utf8(files: &Files, encoding: &Encoding, folder: &Path, cancel: &CancelToken) -> Result<Files> {
    let Encoding::Other(encoding) = encoding else { return Ok(files.clone()) };
    let copies = files.paths.iter().map(|path| copy_as_utf8(path, encoding, folder, cancel));
    Ok(Files { paths: copies.collect::<Result<_>>()?, bytes: files.bytes })
}

/// A path for a file that stands in for `original`, whose messages should name the original.
pub(crate) fn stand_in(original: &Path, folder: &Path) -> Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("stand-in-{}-{n}", std::process::id()));
    let original = self::original(original);
    fs::create_dir_all(folder)?;
    fs::write(note(&path), original.to_string_lossy().as_bytes())?;
    Ok(path)
}

/// The file that `path` stands in for; `path` itself if it is no stand-in.
pub(crate) fn original(path: &Path) -> PathBuf {
    let stands_in = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("stand-in-"));
    let noted = stands_in.then(|| fs::read_to_string(note(path)).ok()).flatten();
    noted.map_or_else(|| path.to_owned(), PathBuf::from)
}

/// Makes the column of file paths name the originals of stand-ins.
pub(crate) fn name_originals(plan: LazyFrame, column: &str, files: &Files) -> LazyFrame {
    let renamed = files.paths.iter().map(|path| (path, original(path))).filter(|(path, original)| *path != original);
    let (from, to): (Vec<String>, Vec<String>) = renamed
        .map(|(path, original)| (path.to_string_lossy().into_owned(), original.to_string_lossy().into_owned()))
        .unzip();
    if from.is_empty() {
        return plan;
    }
    let (from, to) = (Series::new("from".into(), from), Series::new("to".into(), to));
    plan.with_column(columns::exact(column).replace(lit(from).implode(true), lit(to).implode(true)))
}

fn note(path: &Path) -> PathBuf {
    path.with_extension("original")
}

/// Opens a file for reading its text, whatever it is compressed with.
pub(crate) fn open(path: &Path) -> Result<Box<dyn Read>> {
    let open = || -> io::Result<Box<dyn Read>> {
        let mut magic = Vec::new();
        File::open(path)?.take(4).read_to_end(&mut magic)?;
        let file = File::open(path)?;
        Ok(match magic.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(file)),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(zstd::Decoder::new(file)?),
            // zlib at its four levels, as polars recognises it.
            [0x78, 0x01 | 0x5e | 0x9c | 0xda, _, _] => Box::new(flate2::read::ZlibDecoder::new(file)),
            _ => Box::new(file),
        })
    };
    open().map_err(|error| cannot_read(path, &error))
}

/// [`open`] without the byte order mark that the text may begin with, and whether it does.
pub(crate) fn open_unmarked(path: &Path) -> Result<(Box<dyn Read>, bool)> {
    let mut text = open(path)?;
    let mut begin = Vec::new();
    text.by_ref()
        .take(BYTE_ORDER_MARK.len() as u64)
        .read_to_end(&mut begin)
        .map_err(|error| cannot_read(path, &error))?;
    let marked = begin == BYTE_ORDER_MARK;
    if marked {
        begin.clear();
    }
    Ok((Box::new(io::Cursor::new(begin).chain(text)), marked))
}

/// A text for a parser that knows nothing of runs: it fails once the run is cancelled.
pub(crate) struct UntilCancelled<'a, R> {
    pub(crate) text: R,
    pub(crate) cancel: &'a CancelToken,
}

impl<R: Read> Read for UntilCancelled<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() { Err(io::Error::other(CANCELLED)) } else { self.text.read(buffer) }
    }
}

/// Gives the rest of `text`, which is from the file `path`, chunk by chunk, until the run is cancelled.
pub(crate) fn in_chunks(
    path: &Path,
    text: &mut dyn Read,
    cancel: &CancelToken,
    mut chunk: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        if cancel.is_cancelled() {
            return Err(Error::cancelled());
        }
        match text.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => chunk(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(cannot_read(path, &error)),
        }
    }
}

/// A copy of a file's text, decompressed and without its byte order mark, in `folder`.
pub(crate) fn copy_unmarked(path: &Path, folder: &Path, cancel: &CancelToken) -> Result<PathBuf> {
    let copy = stand_in(path, folder)?;
    let mut output = File::create(&copy)?;
    let (mut text, _) = open_unmarked(path)?;
    in_chunks(path, &mut text, cancel, |chunk| Ok(output.write_all(chunk)?))?;
    Ok(copy)
}

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// How much is copied between two looks at whether the run goes on.
const CHUNK_BYTES: usize = 1 << 16;

fn copy_as_utf8(
    path: &Path,
    encoding: &'static encoding_rs::Encoding,
    folder: &Path,
    cancel: &CancelToken,
) -> Result<PathBuf> {
    let copy = stand_in(path, folder)?;
    let mut output = BufWriter::new(File::create(&copy)?);
    let mut decoder = encoding.new_decoder();
    let mut text = String::with_capacity(4 * CHUNK_BYTES);
    let mut line = 1;
    let mut write = |raw: &[u8], last| {
        let written = decode(&mut decoder, raw, last, &mut text, |text| {
            line += text.bytes().filter(|byte| *byte == b'\n').count();
            output.write_all(text.as_bytes())
        });
        written.map_err(|stopped| stopped.at(path, line, encoding))
    };
    in_chunks(path, &mut open(path)?, cancel, |raw| write(raw, false))?;
    write(&[], true)?;
    output.flush()?;
    Ok(copy)
}

/// Decodes `raw` into pieces of text that fit `text`.
fn decode(
    decoder: &mut encoding_rs::Decoder,
    mut raw: &[u8],
    last: bool,
    text: &mut String,
    mut piece: impl FnMut(&str) -> io::Result<()>,
) -> std::result::Result<(), Stopped> {
    loop {
        text.clear();
        let (result, read) = decoder.decode_to_string_without_replacement(raw, text, last);
        piece(text).map_err(Stopped::Writing)?;
        raw = &raw[read..];
        match result {
            DecoderResult::InputEmpty => return Ok(()),
            DecoderResult::OutputFull => {}
            DecoderResult::Malformed(..) => return Err(Stopped::Malformed),
        }
    }
}

enum Stopped {
    Malformed,
    Writing(io::Error),
}

impl Stopped {
    fn at(self, path: &Path, line: usize, encoding: &'static encoding_rs::Encoding) -> Error {
        match self {
            Self::Writing(error) => error.into(),
            Self::Malformed => {
                let message = format!("{}:{line}: the text is not {}", path.display(), encoding.name());
                Error::new(ErrorKind::Data, "bad-encoding", message)
                    .hint("set `encoding` to what the file is written in")
            }
        }
    }
}
