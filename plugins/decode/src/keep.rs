//! Which columns of the records stay with their rows.

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::Field;
use pype_plugin::prelude::*;
use pype_plugin::stream::records_schema;

/// A column of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RecordColumn {
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    Headers,
}

/// The columns of the record that its row gets, behind the decoded ones.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Keep(Vec<RecordColumn>);

impl Default for Keep {
    /// What tells a record from all others: a sink that writes each of them once needs it.
    fn default() -> Self {
        Self(vec![RecordColumn::Topic, RecordColumn::Partition, RecordColumn::Offset])
    }
}

impl Keep {
    /// Refuses what would give two columns of one name, besides the decoded ones.
    pub(crate) fn checked(self, decoded: &[Field]) -> Result<Self> {
        for (at, column) in self.0.iter().enumerate() {
            let name = column.name();
            if self.0[..at].contains(column) {
                let message = format!("`keep` names `{name}` twice");
                return Err(Error::new(ErrorKind::Config, "duplicate-column", message));
            }
            if decoded.iter().any(|field| field.name() == name) {
                let message = format!("two columns would be called `{name}`: a decoded one, and one of the record");
                return Err(Error::new(ErrorKind::Config, "duplicate-column", message)
                    .hint(format!("leave `{name}` out of `keep`, or give the decoded one another name")));
            }
        }
        Ok(self)
    }

    pub(crate) fn fields(&self) -> Vec<Field> {
        let schema = records_schema();
        self.0.iter().map(|column| schema.field(column.place()).clone()).collect()
    }

    /// Those columns of a batch of records.
    pub(crate) fn columns(&self, records: &RecordBatch) -> Vec<ArrayRef> {
        self.0.iter().map(|column| records.column(column.place()).clone()).collect()
    }
}

impl RecordColumn {
    /// Its place in [`records_schema`].
    fn place(self) -> usize {
        match self {
            Self::Topic => 0,
            Self::Partition => 1,
            Self::Offset => 2,
            Self::Timestamp => 3,
            Self::Key => 4,
            Self::Headers => 6,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Partition => "partition",
            Self::Offset => "offset",
            Self::Timestamp => "timestamp",
            Self::Key => "key",
            Self::Headers => "headers",
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow_schema::DataType;
    use serde_json::json;

    use super::*;

    fn keep(names: Value) -> Keep {
        serde_json::from_value(names).expect("columns of records")
    }

    #[test]
    fn columns_are_those_of_records() {
        let all = keep(json!(["topic", "partition", "offset", "timestamp", "key", "headers"]));
        let names: Vec<_> = all.fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["topic", "partition", "offset", "timestamp", "key", "headers"]);
        assert!(all.0.iter().zip(&names).all(|(column, name)| column.name() == name));
    }

    #[test]
    fn a_name_is_there_once() {
        let code = |keep: Keep, decoded: &str| {
            let decoded = Field::new(decoded, DataType::Utf8, true);
            keep.checked(&[decoded]).map(drop).map_err(|error| error.message.clone())
        };
        assert_eq!(code(Keep::default(), "key"), Ok(()));
        let twice = "`keep` names `key` twice".to_owned();
        assert_eq!(code(keep(json!(["key", "topic", "key"])), "x"), Err(twice));
        let both = "two columns would be called `topic`: a decoded one, and one of the record".to_owned();
        assert_eq!(code(Keep::default(), "topic"), Err(both));
    }
}
