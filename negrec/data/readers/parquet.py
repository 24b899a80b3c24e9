"""Parquet files."""

from pathlib import Path

import polars as pl

from negrec.data.readers.base import ROW


def scan(path: Path) -> pl.LazyFrame:
    """The table in a Parquet file, not yet read."""
    return pl.scan_parquet(path, row_index_name=ROW, glob=False).with_columns(pl.col(ROW) + 1)
