"""The TPC-H column types that every contender is given, read from ../schema.txt."""

from pathlib import Path

_LINES = (Path(__file__).parent.parent / "schema.txt").read_text().splitlines()
_ROWS = [line.split() for line in _LINES if not line.startswith("#")]


def columns(table, types):
    """The columns of `table` in file order, each with the entry of `types` for its type."""
    return {column: types[kind] for name, column, kind in _ROWS if name == table}
