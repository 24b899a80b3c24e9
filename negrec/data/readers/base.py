"""What a reader of a table format is, and which one a file needs."""

from importlib import import_module
from pathlib import Path

import polars as pl

from negrec.errors import InputError

ROW = "__row__"  # the column that readers add: a row's place in the file, from 1

# How a file's name ends -> the module of this room whose ``scan`` reads it.
FORMATS = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "csv",
    ".tsv.gz": "csv",
    ".txt": "csv",
}


def scan(path: Path) -> pl.LazyFrame:
    """The table in a file, not yet read, with a first column ``ROW``.

    Raises:
        InputError: no such file, a format without a reader, or a damaged file.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}: give the path of a Parquet or CSV file")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty: a table with at least users and items is needed")
    ending = next((e for e in FORMATS if path.name.lower().endswith(e)), None)
    if ending is None:
        raise InputError(f"{path}: its name must end in one of {', '.join(FORMATS)}")
    reader = import_module(f"negrec.data.readers.{FORMATS[ending]}")
    try:
        table: pl.LazyFrame = reader.scan(path)
        table.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from error
    return table


def unreadable(path: Path, error: Exception) -> InputError:
    """A file that is not what its name says, in one line."""
    return InputError(
        f"{path} cannot be read: {str(error).strip().splitlines()[0]}; check that the file is "
        "complete and of the format that its name says"
    )
