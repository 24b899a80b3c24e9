"""What every layout of a published file is read into."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import polars as pl

Ids = Literal["number", "text"]


class Layout(Protocol):
    """How the rows of a published file are read."""

    def scan(self, path: Path) -> pl.LazyFrame:
        """The rows in the file's order, not yet read, as ``Meaning.typed`` makes them."""
        ...


@dataclass(frozen=True)
class Meaning:
    """What the columns of a file mean.

    Attributes:
        columns: user_id, item_id and any of timestamp, rating, event -> the file's name of it, or
            its place from 0.
        ids: "text" keeps ids as they stand: an item "0001" is no 1.
        time: how a time is written, such as "%Y-%m-%d"; None: it is a whole number and stays one.
    """

    columns: Mapping[str, str | int]
    ids: Ids
    time: str | None = None

    @property
    def dtypes(self) -> dict[str, pl.DataType]:
        """What a file holds, by the column's meaning."""
        ids = pl.String() if self.ids == "text" else pl.Int64()
        time = pl.Int64() if self.time is None else pl.String()
        known = {"user_id": ids, "item_id": ids, "timestamp": time, "rating": pl.Float32()}
        return {meaning: known.get(meaning, pl.String()) for meaning in self.columns}

    def typed(self, table: pl.LazyFrame, names: Mapping[str, str]) -> pl.LazyFrame:
        """The columns under the names of what they mean; a written time becomes Unix seconds.

        Args:
            table: with the file's own columns.
            names: meaning -> column of the table.
        """
        chosen = {
            meaning: pl.col(names[meaning]).cast(dtype) for meaning, dtype in self.dtypes.items()
        }
        if self.time is not None:
            chosen["timestamp"] = chosen["timestamp"].str.to_datetime(self.time).dt.epoch("s")
        return table.select(**chosen)
