"""From a table as it came to interactions: checked, filtered, indexed, sorted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from uuid import UUID

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
from negrec.data.timestamps import FIRST, Reading
from negrec.errors import InputError

Duplicates = Literal["keep", "exact", "first", "last", "consecutive"]


@dataclass(frozen=True)
class Rules:
    """What is left out of a table, in this order.

    Attributes:
        events: rows of other events are dropped; None: all rows count alike.
        min_rating: rows with a lower or no rating are dropped.
        duplicates: "keep" all rows; keep one of rows that are "exact" copies in user, item, time
            and position; of each user and item only the "first" or the "last" interaction; or one
            of "consecutive" interactions of a user with the same item.
        min_interactions: users and items with fewer rows are dropped, again and again until none
            is left (k-core).
    """

    min_rating: float | None = None
    duplicates: Duplicates = "keep"
    min_interactions: int | None = None
    events: tuple[str, ...] | None = None

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
        if self.events is not None and not self.events:
            raise ValueError("dataset.events must name at least one event, or be null")


@dataclass(frozen=True)
class Rows:
    """The rows of a table that the rules on single rows keep, in the file's order.

    Attributes:
        frame: user and item (index, UInt32), and where they are needed timestamp (microseconds
            since 1970 in UTC, Int64), position and rating (Float64).
        user_ids: the user's own id of each index, ascending.
        item_ids: the item's.
        read: the table as it came.
        other_events: rows dropped for their event.
        below_rating: rows dropped for their rating.
    """

    frame: pl.DataFrame
    user_ids: pl.Series
    item_ids: pl.Series
    read: Counts
    other_events: int
    below_rating: int


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
    rows = read(path, table, columns, rules)
    keys = [key for key in ("timestamp", "position") if key in rows.frame.columns]
    frame = _sorted(rows.frame.select("user", "item", *keys), ["user", *keys])
    before = len(frame)
    match rules.duplicates:
        case "exact":
            frame = frame.unique(["user", "item", *keys], keep="first", maintain_order=True)
        case "first" | "last":
            frame = frame.unique(["user", "item"], keep=rules.duplicates, maintain_order=True)
        case "consecutive":
            # The very first row has none before it: null, which the filter would drop.
            other = pl.struct("user", "item") != pl.struct("user", "item").shift()
            frame = frame.filter(other.fill_null(True))
    duplicates = before - len(frame)
    user, item = (frame[role].cast(pl.Int64).to_numpy() for role in ("user", "item"))
    kept = _core(user, item, rules.min_interactions)
    outside = int(len(kept) - kept.sum())
    if not kept.any():
        raise InputError(
            f"{path}: nothing is left of its {rows.read.interactions:,} rows "
            f"({rows.below_rating:,} below min_rating, {duplicates:,} duplicates, {outside:,} "
            f"outside the {rules.min_interactions}-core): choose a smaller "
            "dataset.min_interactions or dataset.min_rating"
        )
    user, user_ids = _compressed(user[kept], rows.user_ids)
    item, item_ids = _compressed(item[kept], rows.item_ids)
    if len(item_ids) < 2:
        raise InputError(
            f"{path}: there is a single item, {item_ids[0]!r}, in column {columns.item!r}: nothing "
            "to rank; choose another column with dataset.columns.item=NAME"
        )
    timestamp = frame["timestamp"].to_numpy()[kept] if "timestamp" in keys else None
    del frame, kept
    return Interactions(
        name,
        user,
        item,
        timestamp,
        user_ids,
        item_ids,
        content_hash(user, item, timestamp, user_ids, item_ids),
        Cleaning(
            rows.read,
            rows.below_rating,
            duplicates,
            outside,
            rules.min_interactions,
            count_repeats(user, item),
            rows.other_events,
        ),
    )


def _sorted(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """The rows by the first key, those alike by the second and so on, the rest as they stand."""
    # One key after the other, the last first, takes a fraction of the time of all at once; tables
    # are often in order of time.
    for key in reversed(keys):
        if not frame[key].is_sorted():
            frame = frame.sort(key, maintain_order=True)
    return frame


def read(
    path: Path, table: pl.LazyFrame, columns: Columns, rules: Rules, ratings: bool = False
) -> Rows:
    """The rows of a scanned table, each value checked.

    The table goes by piece by piece; texts are numbered on the way and never stand in memory
    together.

    Args:
        path: where the table lies, for messages.
        table: with the column ``ROW``.
        columns: resolved names.
        rules: those on single rows, events and ratings, are followed.
        ratings: whether ratings are read although no rule needs them.

    Raises:
        InputError: a value that cannot be used.
    """
    chosen = _chosen(path, columns, rules, ratings)
    schema = table.collect_schema()
    types = {role: schema[name] for role, name in chosen.items()}
    times = _times(path, table, chosen)
    expressions = [pl.col(ROW)]
    for role, name in chosen.items():
        if role in _NAMED:
            text = _text(pl.col(name), types[role], path, name)
            # Categories of its own: those of all tables that a process reads would be shared.
            value = text.cast(pl.Categorical(pl.Categories.random()))
        elif role == "timestamp" and times is not None:
            value = times.expression(pl.col(name))
        else:
            value = pl.col(name).cast(pl.Float64, strict=False)
        # A missing rating is below every threshold; text that is no number is a mistake.
        if role == "rating":
            empty = pl.col(name).cast(pl.String) == ""  # in quotes, which Polars keeps
            expressions.append((pl.col(name).is_null() | empty).alias(_UNRATED))
        expressions.append(value.alias(role))
    frame = _collected(path, table.select(expressions))
    if len(frame) == 0:
        raise InputError(f"{path} has a header and no rows: nothing to learn from")
    if times is not None and times.wider is not None and frame["timestamp"].null_count():
        # Another way of writing them than in the first rows; or no times, which is told below.
        times = times.wider
        again = table.select(times.expression(pl.col(chosen["timestamp"])).alias("timestamp"))
        frame = frame.with_columns(_collected(path, again)["timestamp"])
    kind = ""
    if times is not None:
        scaled, kind = times.scaled(frame["timestamp"])
        frame = frame.with_columns(scaled.alias("timestamp"))
    own = {}
    for role in ("user", "item"):
        index, own[role] = _index(frame[role], types[role], path, chosen[role])
        frame = frame.with_columns(index.alias(role))
    counts = Counts(len(own["user"]), len(own["item"]), len(frame))
    if rules.events is not None:
        frame = _of_events(frame, path, chosen["event"], rules.events)
    other_events = counts.interactions - len(frame)
    _refuse_unusable(path, table, chosen, frame, kind)
    below = 0
    if rules.min_rating is not None:
        before = len(frame)
        # NaN would compare as larger than every number.
        frame = frame.filter(pl.col("rating").fill_nan(None) >= rules.min_rating)
        below = before - len(frame)
    return Rows(
        frame.drop(ROW, _UNRATED, strict=False),
        own["user"],
        own["item"],
        counts,
        other_events,
        below,
    )


_NAMED = ("user", "item", "event")  # roles whose values are names
_UNRATED = "__unrated__"


def _chosen(path: Path, columns: Columns, rules: Rules, ratings: bool) -> dict[str, str]:
    """Role -> column, of the roles that are needed."""
    chosen = columns.present()
    for role, setting, needed in (
        ("rating", "min_rating", rules.min_rating),
        ("event", "events", rules.events),
    ):
        if needed is None:
            if not (role == "rating" and ratings):
                chosen.pop(role, None)
        elif role not in chosen:
            raise InputError(
                f"{path}: dataset.{setting} needs a column of {role}s: name it with "
                f"dataset.columns.{role}=NAME"
            )
    return chosen


def _collected(path: Path, table: pl.LazyFrame) -> pl.DataFrame:
    try:
        return table.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise unreadable(path, error) from error


def _times(path: Path, table: pl.LazyFrame, chosen: dict[str, str]) -> Reading | None:
    """How the first times of a table are read; None where it has none."""
    if "timestamp" not in chosen:
        return None
    first = _collected(path, table.select(chosen["timestamp"]).head(FIRST))
    reading = Reading.of(first.to_series())
    column = pl.col(chosen["timestamp"])
    read = first.select(reading.expression(column)).to_series()
    return reading if read.null_count() == 0 else reading.wider or reading


def _text(values: pl.Expr, dtype: pl.DataType, path: Path, column: str) -> pl.Expr:
    """Names as text, null where there is none; ``_own`` makes ids of them again."""
    if dtype.is_nested():
        raise InputError(f"{path}, column {column!r}: ids are single values, not {dtype}")
    if dtype == pl.Binary:
        values = values.bin.encode("hex")
    elif dtype.is_float():
        values = values.fill_nan(None) + 0.0  # -0.0 and 0.0 are one id
    text = values.cast(pl.String)
    return pl.when(text != "").then(text)


def _index(
    values: pl.Series, dtype: pl.DataType, path: Path, column: str
) -> tuple[pl.Series, pl.Series]:
    """The index of each name, and the id of each index, ascending.

    Args:
        values: categories, null where there is no name.
        dtype: of the column.
        path: for messages.
        column: for messages.
    """
    distinct = values.unique().drop_nulls()
    texts = distinct.cast(pl.String)
    damaged = texts.filter(texts.str.contains("\0", literal=True))
    if len(damaged):
        raise InputError(
            f"{path}, column {column!r}: {damaged[0][:40]!r} has a NUL byte: the file is damaged "
            "or no table of texts; write it anew"
        )
    own = _own(texts, dtype)
    order = own.arg_sort()
    codes = distinct.to_physical().to_numpy()
    index = np.empty(codes.max(initial=0) + 1, dtype=np.uint32)
    index[codes[order.to_numpy()]] = np.arange(len(own))
    return pl.Series(index).gather(values.to_physical()), own.gather(order).rename("id")


def _own(texts: pl.Series, dtype: pl.DataType) -> pl.Series:
    """The ids of a column by their texts; whole numbers become numbers where all ids are some."""
    if dtype == pl.Binary:
        return _of_bytes(texts)
    own = texts.cast(dtype) if dtype.is_numeric() else texts
    if own.dtype == pl.String or own.dtype.is_float():
        for integer in (pl.Int64(), pl.UInt64()):
            whole = own.cast(integer, strict=False)
            if whole.null_count() == 0 and (whole.cast(own.dtype) == own).all():
                return whole
    return own


def _of_bytes(texts: pl.Series) -> pl.Series:
    """Ids of bytes, given as hexadecimal digits: UUIDs, else texts, else the digits."""
    # RFC 9562: byte 6 begins with the version, byte 8 with the bits 10.
    if texts.str.contains("^[0-9a-f]{12}[1-8][0-9a-f]{3}[89ab][0-9a-f]{15}$").all():
        return pl.Series([str(UUID(text)) for text in texts], dtype=pl.String)
    try:
        return _own(
            pl.Series([bytes.fromhex(t).decode() for t in texts], dtype=pl.String), pl.String()
        )
    except UnicodeDecodeError:
        return texts


def _of_events(
    frame: pl.DataFrame, path: Path, column: str, events: tuple[str, ...]
) -> pl.DataFrame:
    """The rows of these events."""
    present = frame["event"].value_counts(sort=True)
    names = present["event"].cast(pl.String).to_list()
    unknown = [event for event in events if event not in names]
    if unknown:
        listed = ", ".join(
            f"{name} ({count:,})"
            for name, count in zip(names[:20], present["count"], strict=False)
            if name is not None
        )
        raise InputError(
            f"{path}: dataset.events: no row has {unknown[0]!r} in column {column!r}: there "
            f"are {listed}"
        )
    return frame.filter(pl.col("event").cast(pl.String).is_in(events)).drop("event")


def _refuse_unusable(
    path: Path, table: pl.LazyFrame, chosen: dict[str, str], frame: pl.DataFrame, kind: str
) -> None:
    """Names the first row with a value that cannot be used."""
    for role, what, advice in (
        ("user", "has no value", "remove it"),
        ("item", "has no value", "remove it"),
        (
            "timestamp",
            "is no time",
            f"give Unix times or ISO 8601 (the column was read as {kind}), or leave times out "
            "with dataset.columns.timestamp=null",
        ),
        (
            "position",
            "is no number",
            "positions are numbers; leave them out with dataset.columns.position=null",
        ),
        (
            "rating",
            "is no number",
            "ratings are numbers; name their column with dataset.columns.rating=NAME",
        ),
    ):
        if role not in chosen:
            continue
        missing = frame[role].is_null()
        if role == "rating":
            missing &= ~frame[_UNRATED]
        if not missing.any():
            continue
        row = frame[ROW][int(missing.arg_max() or 0)]
        more = f" and {missing.sum() - 1:,} more" if missing.sum() > 1 else ""
        value = ""
        if role in ("timestamp", "position", "rating"):
            given = _collected(path, table.filter(pl.col(ROW) == row).select(chosen[role]))
            value = f" {given.item()!r}"
        raise InputError(
            f"{path}, column {chosen[role]!r}, row {row:,}{more}:{value} {what}; {advice}"
        )


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
