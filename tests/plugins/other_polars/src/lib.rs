//! A mod on another polars than the bundled plugins have: only the C data interface is common to both.

use polars::prelude::{Column, CompatLevel, DataFrame, SchemaExt, Series};
use polars_arrow::array::StructArray;
use polars_arrow::datatypes::{ArrowDataType, Field};
use polars_arrow::ffi;
use pype_plugin::prelude::*;
use pype_plugin::{ArrowArray, ArrowSchema};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// How many rows to keep.
    rows: usize,
}

/// Keeps the last rows.
struct Tail(Config);

impl Mod for Tail {
    const NAME: &str = "tail_mod";
    const DESCRIPTION: &str = "Keeps the last rows";
    const PACKAGES: &[&str] = &["polars 0.53"];
    type Config = Config;

    async fn open(config: Config, _: &Context) -> Result<Self> {
        Ok(Self(config))
    }

    async fn run(&mut self, mut inputs: Inputs, _: &Context) -> Result<Outputs> {
        let frame = inputs.take("input")?;
        let field = import_schema(&frame.schema().await?)?;
        let mut all: Option<DataFrame> = None;
        while let Some(batch) = frame.next().await? {
            let batch = import_batch(batch, &field)?;
            match &mut all {
                Some(all) => drop(all.vstack_mut(&batch).map_err(wrong)?),
                None => all = Some(batch),
            }
        }
        let last = all.map_or_else(|| without_rows(&field), |all| all.tail(Some(self.0.rows)));
        Ok(Outputs::one("output", export(last)))
    }
}

fn without_rows(schema: &Field) -> DataFrame {
    let ArrowDataType::Struct(fields) = schema.dtype() else { return DataFrame::default() };
    DataFrame::empty_with_schema(&fields.iter().map(polars::prelude::Field::from).collect())
}

fn import_schema(schema: &ArrowSchema) -> Result<Field> {
    // SAFETY: both are the C data interface's schema.
    unsafe { ffi::import_field_from_c(schema.as_ffi()) }.map_err(wrong)
}

fn import_batch(batch: ArrowArray, field: &Field) -> Result<DataFrame> {
    // SAFETY: both are the C data interface's array.
    let array = unsafe { ffi::import_array_from_c(batch.into_ffi(), field.dtype().clone()) };
    let array = array.map_err(wrong)?;
    let rows = array.as_any().downcast_ref::<StructArray>().expect("a frame's batches are structs");
    let columns = rows.fields().iter().zip(rows.values());
    let columns = columns.map(|(field, values)| Series::try_from((field, values.clone())).map(Column::from));
    let columns = columns.collect::<std::result::Result<Vec<_>, _>>().map_err(wrong)?;
    DataFrame::new(rows.len(), columns).map_err(wrong)
}

fn export(mut frame: DataFrame) -> Frame {
    frame.rechunk_mut();
    let fields = |frame: &DataFrame| frame.schema().iter_fields().map(|f| f.to_arrow(CompatLevel::newest())).collect();
    let schema = ffi::export_field_to_c(&Field::new("".into(), ArrowDataType::Struct(fields(&frame)), false));
    let chunks: Vec<_> = frame.iter_chunks(CompatLevel::newest(), false).collect();
    let arrays = chunks.into_iter().map(|chunk| {
        let (schema, length) = (chunk.schema().iter_values().cloned().collect(), chunk.height());
        let array = StructArray::new(ArrowDataType::Struct(schema), length, chunk.into_arrays(), None);
        ffi::export_array_to_c(Box::new(array))
    });
    // SAFETY: both are the C data interface's array.
    let arrays = arrays.map(|array| unsafe { ArrowArray::from_ffi(array) });
    // SAFETY: both are the C data interface's schema.
    let schema = unsafe { ArrowSchema::from_ffi(schema) };
    Frame::from_batches(schema, arrays.collect::<Vec<_>>())
}

fn wrong(cause: polars::prelude::PolarsError) -> Error {
    Error::new(ErrorKind::Data, "polars", cause.to_string())
}

export_plugin! { mods: [Tail] }
