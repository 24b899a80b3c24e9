"""From a table as it came to interactions: checked, filtered, indexed, sorted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from negrec.data.columns import Columns
from negrec.data.interactions import (
    Cleaning,
    Counts,
    Interactions,
    Ints,
    content_hash,
    count_repeats,
)
from negrec.data.readers.base import ROW, unreadable
from negrec.data.timestamps import microseconds
from negrec.errors import InputError

Duplicates = Literal["keep", "exact", "first", "last"]


@dataclass(frozen=True)
class Rules:
    """What is left out of a table, in this order.

    Attributes:
        min_rating: rows with a lower or no rating are dropped.
        duplicates: "keep" all rows; keep one of rows that are "exact" copies in user, item, time
            and position; or of each user and item only the "first" or the "last" interaction.
        min_interactions: users and items with fewer rows are dropped, again and again until none
            is left (k-core).
    """

    min_rating: float | None = None
    duplicates: Duplicates = "keep"
    min_interactions: int | None = None

    def __post_init__(self) -> None:
        if self.duplicates not in get_args(Duplicates):
            raise ValueError(
                f"dataset.duplicates must be one of {', '.join(get_args(Duplicates))}, "
                f"got {self.duplicates!r}"
            )
        if self.min_interactions is not None and self.min_interactions < 1:
            raise ValueError(
                f"dataset.min_interactions must be at least 1 or null, got {self.min_interactions}"
            )


def clean(
    name: str, path: Path, table: pl.LazyFrame, columns: Columns, rules: Rules
) -> Interactions:
    """The interactions of a scanned table.

    Args:
        name: the data set's.
        path: where the table lies, for messages.
        table: with the column ``ROW``.
        columns: resolved names.
        rules: what is left out.

    Raises:
        InputError: a value that cannot be used, or nothing left.
    """
    frame = _checked(path, table, columns, rules)
    user, user_ids = _index(frame["user"])
    item, item_ids = _index(frame["item"])
    read = Counts(len(user_ids), len(item_ids), len(frame))
    keys = [key for key in ("timestamp", "position") if key in frame.columns]
    frame = frame.drop("user", "item").with_columns(
        pl.Series("user", user), pl.Series("item", item)
    )
    below = 0
    if rules.min_rating is not None:
        frame = frame.filter(pl.col("rating") >= rules.min_rating)
        below = read.interactions - len(frame)
    frame = frame.sort("user", *keys, maintain_order=True)
    before = len(frame)
    if rules.duplicates == "exact":
        frame = frame.unique(["user", "item", *keys], keep="first", maintain_order=True)
    elif rules.duplicates != "keep":
        frame = frame.unique(["user", "item"], keep=rules.duplicates, maintain_order=True)
    duplicates = before - len(frame)
    user, item = frame["user"].to_numpy(), frame["item"].to_numpy()
    kept = _core(user, item, rules.min_interactions)
    outside = int(len(kept) - kept.sum())
    if not kept.any():
        raise InputError(
            f"{path}: nothing is left of its {read.interactions:,} rows ({below:,} below "
            f"min_rating, {duplicates:,} duplicates, {outside:,} outside the "
            f"{rules.min_interactions}-core): choose a smaller dataset.min_interactions or "
            "dataset.min_rating"
        )
    user, user_ids = _compressed(user[kept], user_ids)
    item, item_ids = _compressed(item[kept], item_ids)
    if len(item_ids) < 2:
        raise InputError(
            f"{path}: there is a single item, {item_ids[0]!r}, in column {columns.item!r}: nothing "
            "to rank; choose another column with dataset.columns.item=NAME"
        )
    timestamp = frame["timestamp"].to_numpy()[kept] if "timestamp" in keys else None
    return Interactions(
        name,
        user,
        item,
        timestamp,
        user_ids,
        item_ids,
        content_hash(user, item, timestamp, user_ids, item_ids),
        Cleaning(
            read, below, duplicates, outside, rules.min_interactions, count_repeats(user, item)
        ),
    )


def _checked(path: Path, table: pl.LazyFrame, columns: Columns, rules: Rules) -> pl.DataFrame:
    """The rows in the file's order, with usable values in the columns that are needed."""
    chosen = columns.present()
    if rules.min_rating is None:
        chosen.pop("rating", None)
    elif "rating" not in chosen:
        raise InputError(
            f"{path}: dataset.min_rating needs a column of ratings: name it with "
            "dataset.columns.rating=NAME"
        )
    try:
        frame = table.select(ROW, **{role: pl.col(name) for role, name in chosen.items()}).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from error
    if len(frame) == 0:
        raise InputError(f"{path} has a header and no rows: nothing to learn from")
    for role in ("user", "item"):
        ids = _ids(frame[role], path, chosen[role])
        _refuse_nulls(ids, frame, path, f"column {chosen[role]!r}", "has no value", "remove it")
        frame = frame.with_columns(ids.alias(role))
    if "timestamp" in chosen:
        times, kind = microseconds(frame["timestamp"])
        advice = (
            f"give Unix times or ISO 8601 (the column was read as {kind}), or leave times out "
            "with dataset.columns.timestamp=null"
        )
        where = f"column {chosen['timestamp']!r}"
        _refuse_nulls(times, frame, path, where, "is no time", advice, frame["timestamp"])
        frame = frame.with_columns(times.alias("timestamp"))
    for role, advice in (
        ("position", "positions are numbers; leave them out with dataset.columns.position=null"),
        ("rating", "ratings are numbers; name their column with dataset.columns.rating=NAME"),
    ):
        if role in chosen:
            given = frame[role]
            numbers = given.cast(pl.Float64, strict=False) if given.dtype == pl.String else given
            # A missing rating is below every threshold; text that is no number is a mistake.
            required = (
                numbers
                if role == "position"
                else numbers.fill_null(0).zip_with(given.is_null() | numbers.is_not_null(), numbers)
            )
            where = f"column {chosen[role]!r}"
            _refuse_nulls(required, frame, path, where, "is no number", advice, given)
            # NaN would compare as larger than every number.
            frame = frame.with_columns(numbers.cast(pl.Float64).fill_nan(None).alias(role))
    return frame.drop(ROW)


def _refuse_nulls(
    values: pl.Series,
    frame: pl.DataFrame,
    path: Path,
    where: str,
    what: str,
    advice: str,
    given: pl.Series | None = None,
) -> None:
    """Names the first row without a value; ``given`` holds the values before they were read."""
    if values.null_count() == 0:
        return
    first = int(values.is_null().arg_max() or 0)
    more = f" and {values.null_count() - 1:,} more" if values.null_count() > 1 else ""
    value = "" if given is None else f" {given[first]!r}"
    row = frame[ROW][first]
    raise InputError(f"{path}, {where}, row {row:,}{more}:{value} {what}; {advice}")


def _ids(values: pl.Series, path: Path, column: str) -> pl.Series:
    """Ids that can be compared, null where there is none."""
    if values.dtype.is_nested():
        raise InputError(f"{path}, column {column!r}: ids are single values, not {values.dtype}")
    if isinstance(values.dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    if values.dtype == pl.String:
        return values.set(values == "", None)
    return values.fill_nan(None) if values.dtype.is_float() else values


def _index(values: pl.Series) -> tuple[Ints, pl.Series]:
    """The index of each value, and the value of each index, ascending.

    Texts and floats that are all written as whole numbers become numbers.
    """
    distinct = values.unique()
    own = distinct
    if own.dtype == pl.String or own.dtype.is_float():
        whole = own.cast(pl.Int64, strict=False)
        if whole.null_count() == 0 and (whole.cast(own.dtype) == own).all():
            own = whole
    ids = pl.DataFrame({"value": distinct, "id": own}).sort("id").with_row_index("index")
    index = pl.DataFrame({"value": values}).join(ids, on="value", how="left", maintain_order="left")
    return index["index"].cast(pl.Int64).to_numpy(), ids["id"].rename("id")


def _core(user: Ints, item: Ints, k: int | None) -> NDArray[np.bool_]:
    """The rows of the k-core: each of its users and items has at least k of its rows, (n,)."""
    kept = np.ones(len(user), dtype=bool)
    if k is None:
        return kept
    while True:
        rows = np.flatnonzero(kept)
        enough = np.ones(len(rows), dtype=bool)
        for index in (user[rows], item[rows]):
            enough &= np.bincount(index)[index] >= k
        if enough.all():
            return kept
        kept[rows[~enough]] = False


def _compressed(index: Ints, ids: pl.Series) -> tuple[Ints, pl.Series]:
    """The same indices without those that no longer occur."""
    occurs = np.bincount(index, minlength=len(ids)) > 0
    return (np.cumsum(occurs) - 1)[index], ids.filter(pl.Series(occurs))
