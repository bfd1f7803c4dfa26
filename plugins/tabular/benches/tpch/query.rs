//! The queries of the benchmark, by name; each contender holds its own text of them.

use std::fmt;
use std::str::FromStr;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Query {
    /// `l_quantity > 25` over lineitem, all columns, to zstd Parquet: a scan that keeps half its rows.
    Filter,
    /// TPC-H Q3, "shipping priority": two joins, an aggregate, the ten best.
    Q3,
}

impl Query {
    pub(crate) const ALL: [Self; 2] = [Self::Filter, Self::Q3];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Q3 => "q3",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Filter => "filter: lineitem.csv where l_quantity > 25, to zstd Parquet",
            Self::Q3 => "q3: customer ⋈ orders ⋈ lineitem from CSV, aggregate, top 10, to zstd Parquet",
        }
    }

    pub(crate) fn tables(self) -> &'static [&'static str] {
        match self {
            Self::Filter => &["lineitem"],
            Self::Q3 => &["customer", "orders", "lineitem"],
        }
    }
}

impl fmt::Display for Query {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Query {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|query| query.name() == name).ok_or_else(|| format!("unknown query `{name}`"))
    }
}
