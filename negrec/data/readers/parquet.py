"""Parquet: one file, or a folder of them."""

from pathlib import Path

import polars as pl

from negrec.data.readers.base import ROW, files
from negrec.errors import InputError


def scan(path: Path) -> pl.LazyFrame:
    """The table, not yet read.

    The files of a folder are read in the order of their names; folders within it that are named
    ``column=value`` give a column.

    Raises:
        InputError: a folder without Parquet files.
    """
    found = files(path)
    if not found:
        raise InputError(f"{path} is a folder without Parquet files (*.parquet)")
    table = pl.scan_parquet(found, row_index_name=ROW, glob=False, hive_partitioning=path.is_dir())
    return table.with_columns(pl.col(ROW) + 1)
