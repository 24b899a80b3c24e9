"""A Python dictionary on each line, as text: Steam."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source

from negrec.data.sources.base import Meaning

_BATCH = 20_000  # lines that are Python objects at a time


@dataclass(frozen=True)
class PythonLiterals(Meaning):
    """Dictionaries with the named keys; other keys are not looked at.

    Literals only: a line that would call or compute anything is refused.
    """

    def scan(self, path: Path) -> pl.LazyFrame:
        names = {meaning: str(name) for meaning, name in self.columns.items()}
        schema = {names[meaning]: dtype for meaning, dtype in self.dtypes.items()}

        def batches(
            columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _: int | None
        ) -> Iterator[pl.DataFrame]:
            with path.open(encoding="utf-8") as file:
                lines = enumerate(islice(file, n_rows), 1)
                while batch := list(islice(lines, _BATCH)):
                    rows = [_row(number, line, schema) for number, line in batch]
                    frame = pl.DataFrame(rows, schema=schema, orient="row", strict=False)
                    frame = frame if columns is None else frame.select(columns)
                    yield frame if predicate is None else frame.filter(predicate)

        return self.typed(register_io_source(batches, schema=schema), names)


def _row(number: int, line: str, names: dict[str, pl.DataType]) -> list[object]:
    try:
        fields = ast.literal_eval(line)
        return [fields.get(name) for name in names]
    except (ValueError, SyntaxError, AttributeError, MemoryError, RecursionError) as error:
        raise pl.exceptions.ComputeError(
            f"line {number:,} is no dictionary: {line[:60]}"
        ) from error
