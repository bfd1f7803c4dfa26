//! Decoders before a pipeline: what they make of records are the members that fields of its context are filled with.
//!
//! Mods decode batches, pipelines take records one by one. So the first record of a batch that is handled has the whole batch
//! decoded, and the others find it done. A mod gives a row for each record, in their order, but for those that leave it as what
//! it cannot read.

use std::collections::BTreeMap;

use arrow_array::RecordBatch;
use arrow_json::WriterBuilder;
use arrow_json::writer::LineDelimited;
use arrow_schema::DataType;
use bytes::Bytes;
use pype_core::catalog::ModuleKind;
use pype_core::name::NodeId;
use pype_core::stream::plan::{Module, Plan};
use pype_core::stream::{ERRORS, RECORDS};
use pype_plugin::stream::{BytesColumn, Records};
use pype_plugin::{Error, ErrorKind, Frame, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Mutex;

use super::batch::{Chain, Failure, Handled, Node};
use super::open::to_open;
use crate::loader::Loader;
use crate::pipeline::{Here, OpenError, SettledModule, Surroundings};
use crate::run::LibraryServices;

/// A decoder whose configs are settled: another process may open it.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Decoder {
    module: SettledModule,
    input: String,
    output: String,
    has_errors: bool,
}

impl Decoder {
    /// Those of a stream, from the first to the last.
    ///
    /// # Errors
    /// A config cannot be filled in.
    pub(super) fn all_of(plan: &Plan, around: &Surroundings) -> Result<Vec<Self>, OpenError> {
        let of = |module: &Module| {
            let (input, outputs) = (&module.entry.input_ports[0], &module.entry.output_ports);
            let output = outputs.iter().find(|port| port.as_str() != ERRORS).expect("a decoder has one output");
            Ok(Self {
                module: to_open(plan, module).settled(around)?,
                input: input.clone(),
                output: output.clone(),
                has_errors: outputs.iter().any(|port| port.as_str() == ERRORS),
            })
        };
        plan.decode.iter().map(of).collect()
    }

    /// Where its rows come out.
    pub(super) fn end(&self) -> (NodeId, String) {
        (self.module.id.clone(), self.output.clone())
    }

    /// The decoders as modules, the first of which reads `records`.
    ///
    /// # Errors
    /// A library is not there, or has changed.
    pub(super) fn nodes(
        decoders: Vec<Self>,
        records: (NodeId, String),
        around: &Surroundings,
        here: &Here,
        loader: &Loader<LibraryServices>,
    ) -> Result<Vec<Node>, OpenError> {
        let mut before = records;
        let mut nodes = Vec::with_capacity(decoders.len());
        for decoder in decoders {
            let end = decoder.end();
            nodes.push(Node {
                id: end.0.clone(),
                kind: ModuleKind::Mod,
                opener: decoder.module.opener(around, here, loader)?,
                inputs: vec![(decoder.input, before)],
                errors_unread: decoder.has_errors,
            });
            before = end;
        }
        Ok(nodes)
    }
}

/// Decoders that are open.
pub(super) struct Decoders {
    // Locked while a batch is decoded: modules take one at a time.
    state: Mutex<State>,
}

struct State {
    chain: Chain,
    /// Modules may hold something of a batch that failed, or that nobody waited for to the end.
    holds: bool,
}

impl State {
    async fn decode(&mut self, frame: Frame) -> Result<(Vec<(Records, usize, String)>, Vec<Row>)> {
        if self.holds {
            self.chain.close().await;
        }
        self.holds = true;
        let (unread, rows) = match self.chain.handle(frame).await {
            Ok(Handled { unread, end: Some(end) }) => (unread, read(&end).await?),
            Ok(Handled { end: None, .. }) => {
                return Err(Error::new(ErrorKind::Internal, "missing-output", "a decoder gave no rows"));
            }
            Err(Failure { error, .. }) => return Err(error),
        };
        self.holds = false;
        Ok((unread, rows))
    }
}

/// What decoders have made of a batch of records.
pub(super) struct Decoded {
    rows: Vec<Row>,
    /// For each record the number of its row, or why there is none.
    of: Vec<Result<usize, String>>,
}

/// What decoders have made of a record.
#[derive(Clone, Default)]
pub(super) struct Row {
    /// All columns but those of bytes, without nulls.
    pub(super) members: Map<String, Value>,
    /// The columns of bytes.
    pub(super) bytes: BTreeMap<String, Bytes>,
}

impl Decoders {
    /// Opens them; none if there are none.
    ///
    /// # Errors
    /// A library is not there or has changed, or a module does not open.
    pub(super) async fn open(
        decoders: Vec<Decoder>,
        stream: &str,
        around: &Surroundings,
        here: &Here,
        loader: &Loader<LibraryServices>,
    ) -> Result<Option<Self>, OpenError> {
        let Some(end) = decoders.last().map(Decoder::end) else { return Ok(None) };
        let source: NodeId = pype_core::stream::SOURCE.parse().expect("it is the name of a node");
        let nodes = Decoder::nodes(decoders, (source, RECORDS.to_owned()), around, here, loader)?;
        let failed = |(stage, error)| OpenError::Stage { pipeline: stream.to_owned(), stage, error };
        let chain = Chain::open(nodes, Some(end)).await.map_err(failed)?;
        Ok(Some(Self { state: Mutex::new(State { chain, holds: false }) }))
    }

    /// Decodes records.
    ///
    /// # Errors
    /// A decoder fails, or gives something else than a row for each of them.
    pub(super) async fn decode(&self, records: &Records) -> Result<Decoded> {
        let frame = Frame::from_record_batches(records.batch().schema(), [records.batch().clone()]);
        let (unread, rows) = self.state.lock().await.decode(frame).await?;
        let why: BTreeMap<_, _> = unread.into_iter().map(|(of, row, why)| (named(&of, row), why)).collect();
        let mut next = 0..;
        let of: Vec<_> = (0..records.len())
            .map(|row| match why.get(&named(records, row)) {
                Some(why) => Err(why.clone()),
                None => Ok(next.next().expect("there are always more numbers")),
            })
            .collect();
        if next.start != rows.len() {
            let message = format!("the decoders gave {} rows for {} records that they read", rows.len(), next.start);
            return Err(Error::new(ErrorKind::Data, "uneven-rows", message).hint(
                "before a pipeline, a decoder gives each record a row: what filters or joins belongs elsewhere",
            ));
        }
        Ok(Decoded { rows, of })
    }

    /// Closes them.
    pub(super) async fn close(&self) {
        self.state.lock().await.chain.close().await;
    }
}

/// What tells a record from all others.
fn named(records: &Records, row: usize) -> (String, i32, i64) {
    let record = records.get(row);
    (record.topic().to_owned(), record.partition(), record.offset())
}

impl Decoded {
    /// What became of the record in this row of the batch.
    ///
    /// # Errors
    /// It cannot be decoded.
    pub(super) fn row(&self, row: usize) -> Result<&Row> {
        match &self.of[row] {
            Ok(at) => Ok(&self.rows[*at]),
            Err(why) => Err(Error::new(ErrorKind::Data, "undecodable", why.clone())),
        }
    }
}

async fn read(frame: &Frame) -> Result<Vec<Row>> {
    let schema = frame.arrow_schema().await?;
    let mut rows = Vec::new();
    while let Some(batch) = frame.next_record_batch(&schema).await? {
        rows.extend(rows_of(&batch)?);
    }
    Ok(rows)
}

/// Rows as members: times are texts (RFC 3339), bytes stay bytes, and what is null is not there.
fn rows_of(batch: &RecordBatch) -> Result<Vec<Row>> {
    let schema = batch.schema();
    let bytes_of = |at: usize| {
        let column = batch.column(at);
        let is_text = matches!(column.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        if is_text { None } else { BytesColumn::of(column) }
    };
    let (bytes, others): (Vec<usize>, Vec<usize>) = (0..batch.num_columns()).partition(|at| bytes_of(*at).is_some());
    let mut rows: Vec<Row> = members(&batch.project(&others)?)?;
    for (name, column) in bytes.into_iter().filter_map(|at| Some((schema.field(at).name(), bytes_of(at)?))) {
        for (row, of) in rows.iter_mut().enumerate() {
            if let Some(value) = column.get(row) {
                of.bytes.insert(name.clone(), Bytes::copy_from_slice(value));
            }
        }
    }
    Ok(rows)
}

fn members(batch: &RecordBatch) -> Result<Vec<Row>> {
    if batch.num_columns() == 0 {
        return Ok((0..batch.num_rows()).map(|_| Row::default()).collect());
    }
    let mut lines = WriterBuilder::new().build::<_, LineDelimited>(Vec::new());
    lines.write(batch)?;
    let lines = lines.into_inner();
    let row = |line: &[u8]| Ok(Row { members: serde_json::from_slice(line)?, ..Row::default() });
    lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(row).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::types::Int64Type;
    use arrow_array::{
        Array, ArrayRef, BinaryArray, BinaryViewArray, ListArray, StringArray, TimestampMicrosecondArray,
    };
    use arrow_schema::{Field, Schema, TimeUnit};
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_become_members() {
        let at = TimestampMicrosecondArray::from(vec![Some(1_500_000), None]).with_timezone("UTC");
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), Some(vec![])]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec![Some("a\nb"), None])),
            Arc::new(at),
            Arc::new(BinaryArray::from(vec![None, Some(b"\xff\x00".as_slice())])),
            Arc::new(list),
            Arc::new(BinaryViewArray::from(vec![Some(b"view".as_slice()), None])),
        ];
        let schema = Schema::new(vec![
            Field::new("text", DataType::Utf8, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true),
            Field::new("raw", DataType::Binary, true),
            Field::new("list", columns[3].data_type().clone(), true),
            Field::new("view", DataType::BinaryView, true),
        ]);
        let rows = rows_of(&RecordBatch::try_new(Arc::new(schema), columns).expect("a batch")).expect("rows");
        let members: Vec<Value> = rows.iter().map(|row| Value::Object(row.members.clone())).collect();
        assert_eq!(
            members,
            [json!({"text": "a\nb", "at": "1970-01-01T00:00:01.500Z", "list": [1, null]}), json!({"list": []})]
        );
        assert_eq!(rows[0].bytes, BTreeMap::from([("view".to_owned(), Bytes::from_static(b"view"))]));
        assert_eq!(rows[1].bytes["raw"], b"\xff\x00".as_slice());
    }
}
