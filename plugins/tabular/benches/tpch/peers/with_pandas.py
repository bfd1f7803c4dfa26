"""The benchmark's queries in pandas: `with_pandas.py QUERY DATA_DIR OUTPUT`.

Arrow types throughout, and pyarrow's CSV reader: the quickest pandas we know of, and dates stay dates.
"""

import sys
from datetime import date

import pandas as pd
import pyarrow as pa

import schema

TYPES = {
    "int": pd.ArrowDtype(pa.int64()),
    "float": pd.ArrowDtype(pa.float64()),
    "date": pd.ArrowDtype(pa.date32()),
    "str": pd.ArrowDtype(pa.string()),
}
CUTOFF = date(1995, 3, 15)


def read(data_dir, table, columns=None):
    types = schema.columns(table, TYPES)
    return pd.read_csv(
        f"{data_dir}/{table}.csv",
        engine="pyarrow",
        dtype_backend="pyarrow",
        usecols=columns,
        dtype={column: types[column] for column in columns or types},
    )


def filter_lineitem(data_dir):
    lineitem = read(data_dir, "lineitem")
    return lineitem[lineitem["l_quantity"] > 25]


def q3(data_dir):
    customer = read(data_dir, "customer", ["c_custkey", "c_mktsegment"])
    orders = read(data_dir, "orders", ["o_orderkey", "o_custkey", "o_orderdate", "o_shippriority"])
    lineitem = read(data_dir, "lineitem", ["l_orderkey", "l_extendedprice", "l_discount", "l_shipdate"])
    joined = (
        customer[customer["c_mktsegment"] == "BUILDING"]
        .merge(orders[orders["o_orderdate"] < CUTOFF], left_on="c_custkey", right_on="o_custkey")
        .merge(lineitem[lineitem["l_shipdate"] > CUTOFF], left_on="o_orderkey", right_on="l_orderkey")
    )
    joined["revenue"] = joined["l_extendedprice"] * (1 - joined["l_discount"])
    return (
        joined.groupby(["l_orderkey", "o_orderdate", "o_shippriority"], as_index=False)["revenue"]
        .sum()
        .sort_values(["revenue", "o_orderdate"], ascending=[False, True])
        .head(10)[["l_orderkey", "revenue", "o_orderdate", "o_shippriority"]]
    )


if __name__ == "__main__":
    query, data_dir, output = sys.argv[1:]
    frame = {"filter": filter_lineitem, "q3": q3}[query](data_dir)
    frame.to_parquet(output, compression="zstd", compression_level=3, index=False)
