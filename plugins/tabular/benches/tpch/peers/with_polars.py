"""The benchmark's queries in polars Python: `with_polars.py QUERY DATA_DIR OUTPUT`."""

import sys
from datetime import date

import polars as pl

import schema

TYPES = {"int": pl.Int64, "float": pl.Float64, "date": pl.Date, "str": pl.String}
CUTOFF = date(1995, 3, 15)


def scan(data_dir, table):
    return pl.scan_csv(f"{data_dir}/{table}.csv", schema=schema.columns(table, TYPES))


def filter_lineitem(data_dir):
    return scan(data_dir, "lineitem").filter(pl.col("l_quantity") > 25)


def q3(data_dir):
    revenue = pl.col("l_extendedprice") * (1 - pl.col("l_discount"))
    return (
        scan(data_dir, "customer")
        .filter(pl.col("c_mktsegment") == "BUILDING")
        .join(scan(data_dir, "orders"), left_on="c_custkey", right_on="o_custkey")
        .join(scan(data_dir, "lineitem"), left_on="o_orderkey", right_on="l_orderkey")
        .filter(pl.col("o_orderdate") < CUTOFF, pl.col("l_shipdate") > CUTOFF)
        .group_by(pl.col("o_orderkey").alias("l_orderkey"), "o_orderdate", "o_shippriority")
        .agg(revenue.sum().alias("revenue"))
        .select("l_orderkey", "revenue", "o_orderdate", "o_shippriority")
        .sort(["revenue", "o_orderdate"], descending=[True, False])
        .limit(10)
    )


if __name__ == "__main__":
    query, data_dir, output = sys.argv[1:]
    frame = {"filter": filter_lineitem, "q3": q3}[query](data_dir)
    frame.sink_parquet(output, compression="zstd", compression_level=3, engine="streaming")
