//! The yardstick: the queries as one who knows polars would write them, on its streaming engine.

use std::path::Path;
use std::sync::Arc;

use polars::prelude::*;

use crate::Result;
use crate::data;
use crate::query::Query;

pub(crate) fn run(query: Query, data_dir: &Path, output: &Path) -> Result<()> {
    let frame = match query {
        Query::Filter => filter_lineitem(data_dir)?,
        Query::Q3 => q3(data_dir)?,
    };
    let destination = SinkDestination::File { target: SinkTarget::Path(PlRefPath::try_from_path(output)?) };
    // No level means zstd's default, 3, which the peers are told by number.
    let options = ParquetWriteOptions { compression: ParquetCompression::Zstd(None), ..Default::default() };
    frame
        .sink(destination, FileWriteFormat::Parquet(Arc::new(options)), UnifiedSinkArgs::default())?
        .collect_with_engine(Engine::Streaming)?;
    Ok(())
}

fn filter_lineitem(data_dir: &Path) -> Result<LazyFrame> {
    Ok(scan(data_dir, "lineitem")?.filter(col("l_quantity").gt(lit(25.0))))
}

fn q3(data_dir: &Path) -> Result<LazyFrame> {
    let iso = StrptimeOptions { format: Some("%Y-%m-%d".into()), ..Default::default() };
    let cutoff = lit("1995-03-15").str().to_date(iso);
    let customer = scan(data_dir, "customer")?.filter(col("c_mktsegment").eq(lit("BUILDING")));
    let orders = scan(data_dir, "orders")?.filter(col("o_orderdate").lt(cutoff.clone()));
    let lineitem = scan(data_dir, "lineitem")?.filter(col("l_shipdate").gt(cutoff));
    let revenue = col("l_extendedprice") * (lit(1.0) - col("l_discount"));
    let descending = SortMultipleOptions::default().with_order_descending_multi([true, false]);
    Ok(customer
        .inner_join(orders, col("c_custkey"), col("o_custkey"))
        .inner_join(lineitem, col("o_orderkey"), col("l_orderkey"))
        .group_by([col("o_orderkey").alias("l_orderkey"), col("o_orderdate"), col("o_shippriority")])
        .agg([revenue.sum().alias("revenue")])
        .select([col("l_orderkey"), col("revenue"), col("o_orderdate"), col("o_shippriority")])
        .sort(["revenue", "o_orderdate"], descending)
        .limit(10))
}

fn scan(data_dir: &Path, table: &str) -> Result<LazyFrame> {
    let path = PlRefPath::try_from_path(&data_dir.join(format!("{table}.csv")))?;
    let schema = Arc::new(data::schema(table)?);
    Ok(LazyCsvReader::new(path).with_schema(Some(schema)).finish()?)
}
