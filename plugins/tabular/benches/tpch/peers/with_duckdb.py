"""The benchmark's queries in DuckDB: `with_duckdb.py QUERY DATA_DIR OUTPUT`."""

import sys

import duckdb

import schema

TYPES = {"int": "BIGINT", "float": "DOUBLE", "date": "DATE", "str": "VARCHAR"}

QUERIES = {
    "filter": "SELECT * FROM {lineitem} WHERE l_quantity > 25",
    "q3": """
        SELECT l_orderkey, sum(l_extendedprice * (1 - l_discount)) AS revenue, o_orderdate, o_shippriority
        FROM {customer}, {orders}, {lineitem}
        WHERE c_mktsegment = 'BUILDING' AND c_custkey = o_custkey AND l_orderkey = o_orderkey
          AND o_orderdate < DATE '1995-03-15' AND l_shipdate > DATE '1995-03-15'
        GROUP BY l_orderkey, o_orderdate, o_shippriority
        ORDER BY revenue DESC, o_orderdate
        LIMIT 10
    """,
}


def scan(data_dir, table):
    return (
        f"read_csv('{data_dir}/{table}.csv', header = true, delim = ',', quote = '\"',"
        f" auto_detect = false, columns = {schema.columns(table, TYPES)})"
    )


if __name__ == "__main__":
    query, data_dir, output = sys.argv[1:]
    tables = {table: scan(data_dir, table) for table in ("customer", "orders", "lineitem")}
    select = QUERIES[query].format(**tables)
    options = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3"
    duckdb.sql(f"COPY ({select}) TO '{output}' ({options})")
