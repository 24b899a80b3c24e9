"""JSON lines: an object on each line, compressed or not."""

from pathlib import Path

import polars as pl

from negrec.data.readers.base import ROW

_FIRST = 10_000  # lines that tell the names


def scan(path: Path) -> pl.LazyFrame:
    """The table, not yet read; every column is text, as of a CSV file.

    Names that no one of the first 10,000 lines has are not read.
    """
    names = pl.scan_ndjson([path], infer_schema_length=_FIRST).collect_schema().names()
    # What is a number on one line may be a text on another.
    table = pl.scan_ndjson([path], schema=dict.fromkeys(names, pl.String), row_index_name=ROW)
    return table.with_columns(pl.col(ROW) + 1)
