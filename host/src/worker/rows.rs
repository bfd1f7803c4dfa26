//! Rows as bytes: a stream in the form of Arrow IPC, made and read piece by piece.

use std::io::Cursor;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::{StreamDecoder, StreamReader};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{Schema, SchemaRef};
use pype_plugin::{Error, ErrorKind, Result};

/// What every message begins with.
const NEXT_MESSAGE: [u8; 4] = [0xff; 4];

/// Makes the pieces.
pub(super) struct RowsOut {
    stream: StreamWriter<Vec<u8>>,
}

impl RowsOut {
    /// A stream of batches of this schema, and its first piece.
    ///
    /// # Errors
    /// The schema has a type that the form has not.
    pub(super) fn begin(schema: &Schema) -> Result<(Self, Vec<u8>)> {
        let mut rows = Self { stream: StreamWriter::try_new(Vec::new(), schema)? };
        let piece = rows.piece();
        Ok((rows, piece))
    }

    /// The next piece: a batch.
    ///
    /// # Errors
    /// It is of another schema.
    pub(super) fn push(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        self.stream.write(batch)?;
        Ok(self.piece())
    }

    fn piece(&mut self) -> Vec<u8> {
        std::mem::take(self.stream.get_mut())
    }
}

/// Reads them.
pub(super) struct RowsIn {
    schema: SchemaRef,
    decoder: StreamDecoder,
}

impl RowsIn {
    /// The stream that begins with this piece.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn begin(piece: Vec<u8>) -> Result<Self> {
        let schema = StreamReader::try_new(Cursor::new(&piece), None)?.schema();
        let mut decoder = StreamDecoder::new();
        decoder.decode(&mut Buffer::from_vec(piece))?;
        Ok(Self { schema, decoder })
    }

    /// The schema of its batches.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The batch of the next piece.
    ///
    /// # Errors
    /// It holds none.
    pub(super) fn take(&mut self, piece: Vec<u8>) -> Result<RecordBatch> {
        let nothing = || Error::new(ErrorKind::Internal, "no-batch", "a message that should hold rows holds none");
        if piece.is_empty() {
            return Err(nothing());
        }
        let mut piece = Buffer::from_vec(piece);
        // Dictionaries come first.
        while !piece.is_empty() {
            if let Some(batch) = self.decoder.decode(&mut piece)? {
                return Ok(batch);
            }
        }
        // A batch without rows may end where its head does. The decoder goes on once it sees that something follows.
        self.decoder.decode(&mut Buffer::from(NEXT_MESSAGE))?.ok_or_else(nothing)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int32Type;
    use arrow_array::{ArrayRef, DictionaryArray, Int32Array, RecordBatchOptions};

    use super::*;

    fn crossed(batches: &[RecordBatch]) {
        let (mut rows, piece) = RowsOut::begin(&batches[0].schema()).expect("a schema");
        let mut read = RowsIn::begin(piece).expect("a schema");
        assert_eq!(read.schema(), &batches[0].schema());
        for batch in batches {
            let piece = rows.push(batch).expect("of the schema");
            assert_eq!(&read.take(piece).expect("a batch"), batch);
        }
        assert_eq!(read.take(Vec::new()).expect_err("nothing").code, "no-batch");
    }

    #[test]
    fn batches_come_out_as_they_went_in() {
        let words =
            |words: &[&str]| -> ArrayRef { Arc::new(words.iter().copied().collect::<DictionaryArray<Int32Type>>()) };
        let batch = |numbers: Vec<Option<i32>>, texts: ArrayRef| {
            let columns: [(&str, ArrayRef); 2] = [("n", Arc::new(Int32Array::from(numbers))), ("t", texts)];
            RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
                .expect("a batch")
        };
        crossed(&[
            batch(vec![Some(1), None], words(&["a", "b"])),
            batch(vec![], words(&[])),
            batch(vec![None, Some(2), Some(3)], words(&["c", "a", "c"])),
        ]);
        let metadata = std::collections::HashMap::from([("stream".to_owned(), "orders".to_owned())]);
        let bare = Arc::new(Schema::empty().with_metadata(metadata));
        let rows = |count| {
            let options = RecordBatchOptions::new().with_row_count(Some(count));
            RecordBatch::try_new_with_options(bare.clone(), Vec::new(), &options).expect("a batch")
        };
        crossed(&[rows(3), rows(0)]);
    }
}
