"""What a reader of a table format is, and which one a file needs."""

import re
from importlib import import_module
from pathlib import Path

import polars as pl

from negrec.errors import InputError

ROW = "__row__"  # the column that readers add: a row's place in the file, from 1

# How a file's name ends -> the module of this room whose ``scan`` reads it.
FORMATS = {
    ".parquet": "parquet",
    **{
        f"{text}{packed}": reader
        for text, reader in (
            (".csv", "csv"),
            (".tsv", "csv"),
            (".txt", "csv"),
            (".jsonl", "json_lines"),
            (".ndjson", "json_lines"),
        )
        for packed in ("", ".gz", ".zst")
    },
}


def scan(path: Path) -> pl.LazyFrame:
    """The table in a file or in a folder of Parquet files, not yet read, with a column ``ROW``.

    Raises:
        InputError: no such file, a format without a reader, or a damaged file.
    """
    if path.is_dir():
        ending = ".parquet"
    else:
        if not path.is_file():
            raise InputError(
                f"there is no file {path}: give the path of a Parquet or CSV file, or of a folder "
                "of Parquet files"
            )
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty: a table with at least users and items is needed")
        ending = next((e for e in FORMATS if path.name.lower().endswith(e)), "")
        if not ending:
            raise InputError(f"{path}: its name must end in one of {', '.join(FORMATS)}")
    reader = import_module(f"negrec.data.readers.{FORMATS[ending]}")
    try:
        table: pl.LazyFrame = reader.scan(path)
        table.collect_schema()
    except (pl.exceptions.PolarsError, OSError, EOFError) as error:
        raise unreadable(path, error) from error
    return table


def files(path: Path) -> list[Path]:
    """The files that a table consists of, in the order in which they are read."""
    if not path.is_dir():
        return [path]
    # As Spark and Hive do: what begins with a dot or an underscore is no data.
    found = (file for file in path.rglob("*.parquet") if file.is_file())
    return sorted(
        file
        for file in found
        if not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
    )


def unreadable(path: Path, error: Exception) -> InputError:
    """A file that is not what its name says, in one line."""
    # What Polars would want to be called with is no help to who has the file.
    reason = re.sub(r", (hint:|consider) .*", "", str(error).strip().splitlines()[0])
    if "utf-8" in reason:
        return InputError(f"{path} is no UTF-8 text: save it as UTF-8")
    if "more fields than" in reason:  # of text tables; Polars does not say where
        line = import_module("negrec.data.readers.csv").longer_than_the_header(path)
        if line is not None:
            return InputError(
                f"{path}, line {line:,}: it has more values than there are columns; put values "
                "that hold a separator in quotes, or mend that line"
            )
    check = "the file is complete and of the format that its name says"
    if path.is_dir():
        check = "its files are complete and all have the same columns of the same types"
    return InputError(f"{path} cannot be read: {reason}; check that {check}")
