"""What a publication did to the rows of a data set, written down as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import polars as pl

_ROW = "row"  # a row's place in the source
_IDS = ("user_id", "item_id")


@dataclass(frozen=True)
class Least:
    """Drops users and items with too few rows; both are counted before anything is dropped.

    Attributes:
        users: rows that a user has at least.
        items: rows that an item has at least.
        repeat: again and again until nothing is dropped: with users = items = k the k-core.
    """

    users: int = 1
    items: int = 1
    repeat: bool = False


@dataclass(frozen=True)
class Preparation:
    """The rows that are kept, in this order of steps.

    Attributes:
        since: rows of earlier times are dropped, an ISO 8601 time in UTC; None: there is no bound.
        until: rows of later times are dropped, likewise.
        duplicates: "keep" all rows; keep one of rows that are "exact" copies in user, item and
            time; or of each user and item only the "first" in time.
        least: users and items with too few rows, one step after another.
    """

    since: str | None = None
    until: str | None = None
    duplicates: Literal["keep", "exact", "first"] = "keep"
    least: Sequence[Least] = ()

    def run(self, table: pl.LazyFrame, to: Path) -> None:
        """Writes what is kept, by user and time, with its position in the user's order from 0.

        Args:
            table: in the source's order: user_id, item_id, perhaps timestamp and more.
            to: Parquet.
        """
        table = table.with_row_index(_ROW)
        time = ["timestamp"] if "timestamp" in table.collect_schema() else []
        if self.since is not None:
            table = table.filter(pl.col("timestamp") >= _seconds(self.since))
        if self.until is not None:
            table = table.filter(pl.col("timestamp") <= _seconds(self.until))
        if self.duplicates != "keep":
            same = [*_IDS, *time] if self.duplicates == "exact" else [*_IDS]
            table = table.sort(*time, _ROW).unique(same, keep="first", maintain_order=True)
        for step in self.least:
            table = _enough(table, step)
        table = table.sort("user_id", *time, _ROW).drop(_ROW).with_row_index("position")
        first = pl.col("position").min().over("user_id")  # of the user's rows, in the whole table
        table = table.select(pl.exclude("position"), (pl.col("position") - first).cast(pl.Int32))
        table.sink_parquet(to, compression="zstd")


def _enough(table: pl.LazyFrame, step: Least) -> pl.LazyFrame:
    kept, before = table, -1
    while True:
        rows = _rows(kept)
        if rows == before:
            return kept
        before = rows
        # Always of the whole table: a chain of joins would grow with every round.
        users, items = (
            kept.group_by(column).len().filter(pl.col("len") >= least).select(column)
            for column, least in zip(_IDS, (step.users, step.items), strict=True)
        )
        of_users, of_items = pl.collect_all([users, items], engine="streaming")
        kept = table.join(of_users.lazy(), on="user_id", how="semi").join(
            of_items.lazy(), on="item_id", how="semi"
        )
        if not step.repeat:
            return kept


def _rows(table: pl.LazyFrame) -> int:
    return int(table.select(pl.len()).collect(engine="streaming").item())


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
