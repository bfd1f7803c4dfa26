//! What is complete beyond the committed position, as the text that a broker keeps beside it.
//!
//! Whoever gets the partition next starts at the position, and skips what the text marks. A mark that is missing costs one
//! record that is done twice; a mark too many loses one. So everything here errs to the side of fewer marks: what is too
//! long for the broker is cut to its longest prefix, and a text that is not beyond doubt about this very position of this
//! very log marks nothing at all.
//!
//! # Format, version 1
//!
//! Base64 (URL-safe, without padding), at most [`MAX_TEXT_BYTES`] characters, of
//!
//! | bytes | what |
//! |---|---|
//! | 1 | `0x70`, the letter `p` |
//! | 1 | the version, 1 |
//! | 1 | the kind of the body: 0 runs, 1 bitmap |
//! | 4 | checksum: the low half of xxh3-64 of these three bytes and all that follows the checksum, little-endian |
//! | 1 to 10 | the base, which is the committed position, as LEB128 |
//! | the rest | the body |
//!
//! Runs are pairs of LEB128 numbers: how many offsets to skip, from the base or the end of the run before, and how many are
//! complete. In a bitmap the lowest bit of the first byte is the base. Nothing complete is the empty text.

use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use xxhash_rust::xxh3::xxh3_64;

use super::ledger::{Offset, Snapshot};

/// What a Kafka broker takes by default (`offset.metadata.max.bytes`).
pub const MAX_TEXT_BYTES: usize = 4096;

/// More is never marked. A ledger remembers no more records, see [`super::admission::Limits`].
pub const MAX_MARKED: u64 = 1 << 20;

const MAGIC: u8 = 0x70;
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;
const KIND_RUNS: u8 = 0;
const KIND_BITMAP: u8 = 1;

/// The bytes whose base64 is as long as may be.
const MAX_BYTES: usize = MAX_TEXT_BYTES / 4 * 3;

/// Offsets that are complete, as rising ranges, however long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    ranges: Vec<Range<Offset>>,
    /// Those before lie behind the last offset that was asked for.
    next: usize,
}

/// Why a text marks nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Another program wrote it, or a later version of this one.
    #[error("it is not of this format")]
    Foreign,
    /// It was cut or changed.
    #[error("its checksum or its body is wrong")]
    Damaged,
    /// It was written for another position.
    #[error("it belongs to position `{0}`")]
    OtherBase(Offset),
    /// It marks records that are not in the log.
    #[error("it marks offset `{0}`, which the log does not reach")]
    BeyondTheLog(Offset),
    /// It marks more than any ledger would.
    #[error("it marks more than {MAX_MARKED} records")]
    TooMany,
}

/// The text for where a partition stands.
#[must_use]
pub fn encode(snapshot: &Snapshot<'_>) -> String {
    encode_ranges(snapshot.position(), snapshot.completed())
}

/// `ranges` rise, from `base` on.
fn encode_ranges(base: Offset, ranges: impl Iterator<Item = Range<Offset>>) -> String {
    let mut head = Vec::with_capacity(16);
    number(base, &mut head);
    let room = MAX_BYTES - 3 - CHECKSUM_BYTES - head.len();
    let (mut runs, mut bitmap) = (Runs::new(base, room), Bitmap::new(base, room));
    let mut marked = 0;
    for range in merged(ranges) {
        let range = range.start..range.end.min(range.start + (MAX_MARKED - marked));
        marked += range.end - range.start;
        let goes_on = [runs.add(&range), bitmap.add(&range)].contains(&true);
        if !goes_on || marked == MAX_MARKED {
            break;
        }
    }
    if runs.marked == 0 && bitmap.marked == 0 {
        return String::new();
    }
    // What marks more is better, else what is shorter.
    let by_runs = (runs.marked, bitmap.bytes.len()) >= (bitmap.marked, runs.bytes.len());
    let (kind, body) = if by_runs { (KIND_RUNS, runs.bytes) } else { (KIND_BITMAP, bitmap.bytes) };
    text(kind, &[head, body].concat())
}

fn text(kind: u8, rest: &[u8]) -> String {
    let start = [MAGIC, VERSION, kind];
    let bytes = [&start, checksum(&start, rest).as_slice(), rest].concat();
    URL_SAFE_NO_PAD.encode(bytes)
}

fn checksum(start: &[u8], rest: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = xxh3_64(&[start, rest].concat()).to_le_bytes();
    [a, b, c, d]
}

/// Neighbours as one.
fn merged(ranges: impl Iterator<Item = Range<Offset>>) -> impl Iterator<Item = Range<Offset>> {
    let mut ranges = ranges.peekable();
    std::iter::from_fn(move || {
        let mut range = ranges.next()?;
        while let Some(next) = ranges.next_if(|next| next.start == range.end) {
            range.end = next.end;
        }
        Some(range)
    })
}

/// A body of runs that grows as long as there is room.
struct Runs {
    bytes: Vec<u8>,
    room: usize,
    end: Offset,
    marked: u64,
    full: bool,
}

impl Runs {
    fn new(base: Offset, room: usize) -> Runs {
        Runs { bytes: Vec::new(), room, end: base, marked: 0, full: false }
    }

    /// True if more may follow.
    fn add(&mut self, range: &Range<Offset>) -> bool {
        let before = self.bytes.len();
        if !self.full {
            number(range.start - self.end, &mut self.bytes);
            number(range.end - range.start, &mut self.bytes);
            self.full = self.bytes.len() > self.room;
            match self.full {
                true => self.bytes.truncate(before),
                false => self.marked += range.end - range.start,
            }
            self.end = range.end;
        }
        !self.full
    }
}

/// A body of bits that grows as long as there is room.
struct Bitmap {
    bytes: Vec<u8>,
    base: Offset,
    /// The offset behind the last bit that there is room for.
    end: Offset,
    marked: u64,
}

impl Bitmap {
    fn new(base: Offset, room: usize) -> Bitmap {
        Bitmap { bytes: Vec::new(), base, end: base.saturating_add(room as u64 * 8), marked: 0 }
    }

    /// True if more may follow.
    fn add(&mut self, range: &Range<Offset>) -> bool {
        for offset in range.start..range.end.min(self.end) {
            let (byte, bit) = place(offset - self.base);
            if self.bytes.len() <= byte {
                self.bytes.resize(byte + 1, 0);
            }
            self.bytes[byte] |= bit;
            self.marked += 1;
        }
        range.end < self.end
    }
}

fn place(bit: u64) -> (usize, u8) {
    #[allow(clippy::cast_possible_truncation, reason = "a bitmap has some thousand bytes")]
    let byte = (bit / 8) as usize;
    (byte, 1 << (bit % 8))
}

fn number(mut number: u64, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Reads a number, and leaves what follows it.
fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let digit = u64::from(first & 0x7f);
        if digit << shift >> shift != digit {
            return None;
        }
        number |= digit << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// What a text marks. `position` is where its partition is read from, `log_end` the offset behind the last record of the
/// log, if that is known. What this costs does not depend on how much is marked.
///
/// # Errors
/// If it is not beyond doubt that the text is about this: then nothing is marked.
pub fn decode(text: &str, position: Offset, log_end: Option<Offset>) -> Result<Marks, Unreadable> {
    if text.is_empty() {
        return Ok(Marks::default());
    }
    if text.len() > MAX_TEXT_BYTES {
        return Err(Unreadable::Foreign);
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| Unreadable::Foreign)?;
    let (start, rest) = bytes.split_at_checked(3).ok_or(Unreadable::Foreign)?;
    let [MAGIC, VERSION, kind @ (KIND_RUNS | KIND_BITMAP)] = *start else { return Err(Unreadable::Foreign) };
    let (sum, mut rest) = rest.split_at_checked(CHECKSUM_BYTES).ok_or(Unreadable::Damaged)?;
    if sum != checksum(start, rest) {
        return Err(Unreadable::Damaged);
    }
    let base = take_number(&mut rest).ok_or(Unreadable::Damaged)?;
    if base != position {
        return Err(Unreadable::OtherBase(base));
    }
    let ranges = if kind == KIND_RUNS { runs(base, rest) } else { bits(base, rest) };
    bounded(ranges.ok_or(Unreadable::Damaged)?, log_end)
}

fn runs(base: Offset, mut body: &[u8]) -> Option<Vec<Range<Offset>>> {
    let (mut ranges, mut end) = (Vec::new(), base);
    while !body.is_empty() {
        let start = end.checked_add(take_number(&mut body)?)?;
        let length = take_number(&mut body).filter(|length| *length > 0)?;
        end = start.checked_add(length)?;
        ranges.push(start..end);
    }
    Some(ranges)
}

fn bits(base: Offset, body: &[u8]) -> Option<Vec<Range<Offset>>> {
    // That of the last bit is there, so no sum below overflows.
    base.checked_add(body.len() as u64 * 8)?;
    let is_set = |at: &u64| body[place(*at).0] & place(*at).1 != 0;
    let set = (0..body.len() as u64 * 8).filter(is_set).map(|at| base + at..base + at + 1);
    Some(merged(set).collect())
}

fn bounded(ranges: Vec<Range<Offset>>, log_end: Option<Offset>) -> Result<Marks, Unreadable> {
    if let (Some(last), Some(log_end)) = (ranges.last(), log_end)
        && last.end > log_end
    {
        return Err(Unreadable::BeyondTheLog(last.end - 1));
    }
    let marked = ranges.iter().fold(0_u64, |sum, range| sum.saturating_add(range.end - range.start));
    if marked > MAX_MARKED {
        return Err(Unreadable::TooMany);
    }
    Ok(Marks { ranges, next: 0 })
}

impl Marks {
    /// Is this offset marked? Asked for rising offsets, which makes it cheap.
    pub(super) fn take(&mut self, offset: Offset) -> bool {
        while self.ranges.get(self.next).is_some_and(|range| range.end <= offset) {
            self.next += 1;
        }
        self.ranges.get(self.next).is_some_and(|range| range.contains(&offset))
    }

    /// What is marked from an offset on that is not below the last one taken.
    pub(super) fn from(&self, offset: Offset) -> impl Iterator<Item = Range<Offset>> + '_ {
        let ahead = self.ranges[self.next..].iter().filter(move |range| range.end > offset);
        ahead.map(move |range| range.start.max(offset)..range.end)
    }

    /// How many offsets are marked.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// Is none marked?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// What is marked, as rising ranges.
    #[must_use]
    pub fn ranges(&self) -> &[Range<Offset>] {
        &self.ranges
    }
}

#[cfg(test)]
mod tests;
