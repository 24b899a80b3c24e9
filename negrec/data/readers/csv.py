"""Text tables with a header: CSV and the like, compressed or not."""

import csv
import gzip
from io import TextIOWrapper
from pathlib import Path

import polars as pl

from negrec.data.readers.base import ROW
from negrec.errors import InputError

_SEPARATORS = ",\t;|"
_TAIL = 1 << 16  # bytes at the end of a file that hold its last line


def scan(path: Path) -> pl.LazyFrame:
    """The table in a text file, not yet read; every column is text.

    Text keeps ids as they stand: "007" is no 7. The separator is the one of comma, tab, semicolon
    and bar that the header has most of. Empty lines are skipped.

    Raises:
        InputError: two columns have one name, or the last line is cut short.
    """
    names = _header(path)
    separator = _separator(names)
    _refuse_equal_names(path, names, separator)
    table = pl.scan_csv(
        path, separator=separator, infer_schema=False, row_index_name=ROW, glob=False
    )
    # Polars keeps a quote in a quoted name doubled.
    table = table.rename(lambda name: name.replace('""', '"'))
    columns = [name for name in table.collect_schema().names() if name != ROW]
    _refuse_a_cut_line(path, separator, len(columns))
    # Fields that a line lacks are read as missing values, an empty line as nothing else.
    empty = pl.all_horizontal(pl.col(columns).is_null())
    return table.with_columns(pl.col(ROW) + 1).filter(~empty)


def _header(path: Path) -> str:
    if path.suffix == ".zst":  # for which Python has no reader before 3.14
        first = pl.scan_csv(
            path, has_header=False, n_rows=1, separator="\x1f", quote_char=None, glob=False
        )
        return str(first.select(pl.first().cast(pl.String)).collect().item())
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        line = file.readline(_TAIL)
    if line.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in line:
        raise InputError(f"{path} is no UTF-8 text (UTF-16, perhaps): save it as UTF-8")
    if b"\r" in line.rstrip(b"\r\n"):
        raise InputError(f"{path}: its lines end in CR alone: save it with LF or CR LF")
    return line.decode("utf-8-sig", errors="replace")


def _separator(header: str) -> str:
    return max(_SEPARATORS, key=header.count)


def longer_than_the_header(path: Path) -> int | None:
    """The number of the first line with more fields than the header has, None where none is found.

    It takes Python seconds for a million lines: for a message only.
    """
    if path.suffix == ".zst":
        return None
    with (
        gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as opened,
        TextIOWrapper(opened, "utf-8-sig", errors="replace", newline="") as lines,
    ):
        rows = csv.reader(lines, delimiter=_separator(_header(path)))
        try:
            n_fields = len(next(rows, []))
            return next((rows.line_num for row in rows if len(row) > n_fields), None)
        except csv.Error:  # a field of a size that Python does not take
            return None


def _refuse_equal_names(path: Path, header: str, separator: str) -> None:
    """Polars would rename the second of two equal columns, and the first would win silently."""
    names = next(csv.reader([header], delimiter=separator), [])
    twice = next((name for i, name in enumerate(names) if name and name in names[:i]), None)
    if twice is not None:
        raise InputError(f"{path}: two columns are named {twice!r}: rename one of them")


def _refuse_a_cut_line(path: Path, separator: str, n_columns: int) -> None:
    """Refuses a file whose writer or copier stopped in the middle of a line."""
    if path.suffix in (".gz", ".zst"):
        return  # which know their own end
    with path.open("rb") as file:
        file.seek(-min(_TAIL, path.stat().st_size), 2)
        tail = file.read().decode("utf-8", errors="replace")
    last = next((line for line in reversed(tail.splitlines()) if line.strip()), "")
    if last.count('"') % 2:
        return  # inside a quoted field that spans lines; Polars says whether it is closed
    n_fields = len(next(csv.reader([last], delimiter=separator)))
    if n_fields < n_columns:
        raise InputError(
            f"{path}: the last line has {n_fields} of {n_columns} fields ({last[:60]!r}): "
            "the file is cut short; complete or remove that line"
        )
