"""Text tables with a separator: MovieLens, Gowalla, Amazon's ratings, RetailRocket."""

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from negrec.data.sources.base import Meaning


@dataclass(frozen=True)
class Delimited(Meaning):
    """A text table, with a header or without.

    Attributes:
        separator: one character, or the same one repeated ("::").
        header: whether the first line has names; without it, columns are places from 0.
    """

    separator: str = ","
    header: bool = False

    def __post_init__(self) -> None:
        if len(set(self.separator)) != 1:
            raise ValueError(f"separator must be one sign, perhaps repeated: {self.separator!r}")

    def scan(self, path: Path) -> pl.LazyFrame:
        # Polars knows separators of one byte: "a::b" is "a", nothing and "b" between ":" and ":".
        table = pl.scan_csv(
            path,
            separator=self.separator[0],
            has_header=self.header,
            infer_schema=False,
            quote_char='"' if self.header else None,
            glob=False,
        )
        if self.header:
            return self.typed(table, {m: str(column) for m, column in self.columns.items()})
        names = table.collect_schema().names()
        step = len(self.separator)
        places = {meaning: int(place) * step for meaning, place in self.columns.items()}
        if max(places.values()) >= len(names):
            raise pl.exceptions.ColumnNotFoundError(
                f"a line has {1 + (len(names) - 1) // step} columns, and place "
                f"{max(places.values()) // step} (from 0) is wanted"
            )
        return self.typed(table, {meaning: names[place] for meaning, place in places.items()})
