"""Random tables of interactions, and what a plain reading makes of them."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any
from uuid import UUID

import polars as pl
from hypothesis import strategies as st

INT64 = (-(2**63), 2**63 - 1)
NAMES = ("user", "item", "timestamp", "position", "rating")
# Names that nobody guesses: they are given in the configuration.
ODD_NAMES = ("who, or what", 'said "x"', "Wann? [s]", "über", "=cmd()")


@dataclass(frozen=True)
class Column:
    """A column's values as they are meant and as they are written; None is a missing value.

    Attributes:
        meant: ids of their own type, moments in microseconds, numbers.
        series: for Parquet.
        text: for CSV.
        ordered: False where a value is there that a reader may refuse.
        refused: whether it cannot be read from Parquet at all.
        moments: whether times are known in microseconds; else only their order is.
    """

    meant: Sequence[Any]
    series: pl.Series
    text: Sequence[str]
    ordered: bool = True
    refused: bool = False
    moments: bool = True


@dataclass(frozen=True)
class Table:
    """A table in memory.

    Attributes:
        columns: by role.
        names: of the columns in the file, by role.
        ending: of the file's name.
        quoting: of the csv module.
    """

    columns: dict[str, Column]
    names: dict[str, str]
    ending: str
    quoting: int

    def __len__(self) -> int:
        return len(self.columns["user"].meant)

    def write(self, folder: Path) -> Path:
        path = folder / f"clicks{self.ending}"
        if self.ending == ".parquet":
            columns = [c.series.alias(self.names[role]) for role, c in self.columns.items()]
            pl.DataFrame(columns).write_parquet(path)
            return path
        out = io.StringIO()
        # Without quotes a carriage return before the end of a line would be part of that end.
        end = "\n" if self.quoting == csv.QUOTE_ALL else "\r\n"
        writer = csv.writer(out, quoting=self.quoting, lineterminator=end)  # type: ignore[arg-type]
        writer.writerow([self.names[role] for role in self.columns])
        writer.writerows(zip(*(c.text for c in self.columns.values()), strict=True))
        content = out.getvalue().encode()
        path.write_bytes(gzip.compress(content) if self.ending.endswith(".gz") else content)
        return path

    @property
    def as_text(self) -> bool:
        return self.ending != ".parquet"

    @property
    def missing(self) -> bool:
        """Whether a value that every row needs is not there."""
        needed = [c.meant for role, c in self.columns.items() if role != "rating"]
        return any(value is None for values in needed for value in values)

    @property
    def ordered(self) -> bool:
        return all(column.ordered for column in self.columns.values())

    @property
    def refused(self) -> bool:
        return not self.as_text and any(column.refused for column in self.columns.values())

    def ids(self, role: str) -> list[Any]:
        """The own ids, as this project promises to keep them."""
        column = self.columns[role]
        values = list(column.text if self.as_text else column.meant)
        return kept(values)

    def rows(self) -> list[Row]:
        users, items = self.ids("user"), self.ids("item")
        rest = [
            self.columns[role].meant if role in self.columns else [None] * len(self)
            for role in ("timestamp", "position", "rating")
        ]
        return [Row(*values) for values in zip(users, items, *rest, strict=True)]

    def __repr__(self) -> str:
        rows = list(zip(*(c.text for c in self.columns.values()), strict=True))
        types = {role: c.series.dtype for role, c in self.columns.items()}
        return f"Table({self.ending}, {self.names}, {types}, {rows})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis would print the columns one by one


@dataclass(frozen=True)
class Row:
    """One interaction: own ids, microseconds, numbers."""

    user: Any
    item: Any
    moment: int | None
    position: float | None
    rating: float | None


def kept(values: list[Any]) -> list[Any]:
    """Texts and floats that are all whole numbers become numbers; dates and the like texts."""
    values = [_readable(value) for value in values]
    if values and all(isinstance(value, bytes) for value in values):
        values = _from_bytes(values)
    whole: list[Any] = []
    for value in values:
        if isinstance(value, str):
            if not (value.isascii() and value.lstrip("-").isdigit() and str(int(value)) == value):
                return values
            whole.append(int(value))
        elif isinstance(value, float):
            if not (math.isfinite(value) and value == int(value)):
                return values
            whole.append(int(value))
        else:
            return values
    signed = all(INT64[0] <= value <= INT64[1] for value in whole)
    return whole if signed or all(0 <= value < 2**64 for value in whole) else values


def _readable(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date | time) else value


def _from_bytes(values: list[bytes]) -> list[Any]:
    """Bytes are UUIDs, else texts, else their hexadecimal digits."""
    if all(len(b) == 16 and UUID(bytes=b).version in range(1, 9) for b in values):
        return [str(UUID(bytes=b)) for b in values]
    try:
        return [b.decode() for b in values]
    except UnicodeDecodeError:
        return [b.hex() for b in values]


def histories(rows: Sequence[Row]) -> dict[Any, list[Row]]:
    """The rows of each user in order of time, position and place in the file."""
    of: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        of[row.user].append(row)
    key: Callable[[Row], Any] = lambda row: (row.moment or 0, row.position or 0)  # noqa: E731
    return {user: sorted(own, key=key) for user, own in of.items()}


# --- ids -----------------------------------------------------------------------------------------

# NUL bytes are refused: no text has them.
_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
_NASTY = (
    *(" a", "a ", "a b", "a,b", 'a"b', "'", '"', "a;b", "a|b", "a\tb", "a\nb", "\r", "\\", "\\n"),
    *(
        "null",
        "None",
        "NaN",
        "nan",
        "NA",
        "inf",
        "True",
        "#x",
        "007",
        "7",
        "7.0",
        "-0",
        "+7",
        "1e5",
    ),
    *("ä", "ä", "日本", "🙂", "‮", "\u2028", "\x85", "\x1b[31m", "=1+1", "../x", "${x}"),
    *("9223372036854775808", "<script>", "user", "__row__", "\ufeff"),
)
_NO_IDS = ("durations", "lists")  # refused
_ID_KINDS: dict[str, tuple[st.SearchStrategy[Any], pl.DataType | None]] = {
    "words": (_TEXT | st.sampled_from(_NASTY), pl.String()),
    "numbers as text": (st.integers(*INT64).map(str) | st.integers(-9, 9).map(str), pl.String()),
    "uuids": (st.integers(0, 2**128 - 1).map(lambda n: str(UUID(int=n))), pl.String()),
    "categories": (_TEXT, pl.Categorical()),
    "int64": (st.integers(*INT64) | st.sampled_from(INT64) | st.integers(0, 99), pl.Int64()),
    "uint64": (st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**64 - 1]), pl.UInt64()),
    "int8": (st.integers(-128, 127), pl.Int8()),
    "floats": (
        st.floats(allow_nan=False)
        | st.integers(-(2**40), 2**40).map(float)
        | st.sampled_from([0.0, -0.0, 1e300, 2.0**63, 0.1 + 0.2, math.inf]),
        pl.Float64(),
    ),
    "whole floats": (st.integers(-(2**53), 2**53).map(float), pl.Float64()),
    "dates": (st.dates(date(1, 1, 1), date(9999, 12, 31)), pl.Date()),
    "truths": (st.booleans(), pl.Boolean()),
    "decimals": (st.decimals(-999, 999, places=2), pl.Decimal(10, 2)),
    "times of day": (st.times().map(lambda t: t.replace(microsecond=0)), pl.Time()),
    "durations": (st.timedeltas(timedelta(-9999), timedelta(9999)), pl.Duration("us")),
    "bytes": (st.binary(min_size=1, max_size=5) | _TEXT.map(str.encode), pl.Binary()),
    "bytes of uuids": (st.uuids().map(lambda uuid: uuid.bytes), pl.Binary()),
    "lists": (st.lists(st.integers(0, 9), max_size=2).map(tuple), pl.List(pl.Int64())),
}


@st.composite
def ids(draw: st.DrawFn, index: Sequence[int], kinds: Sequence[str] | None = None) -> Column:
    """A column of ids, by which of some distinct ones each row has; -1: it has none."""
    kind = draw(st.sampled_from(list(kinds or _ID_KINDS)))
    values, dtype = _ID_KINDS[kind]
    n = max([0, *index]) + 1
    if kind == "truths":
        index, n = [min(i, 1) for i in index], 2
    distinct = draw(st.lists(values, min_size=n, max_size=n, unique=True))
    meant = [None if i < 0 else distinct[i] for i in index]
    series = pl.Series(meant, dtype=dtype)
    return Column(
        meant,
        series,
        ["" if v is None else _written(v) for v in meant],
        refused=kind in _NO_IDS,
    )


def _written(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


# --- times ---------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BERLIN_SUMMER = timezone(timedelta(hours=2))


def _at(seconds: int) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)


def _iso(separator: str, zone: timezone | None) -> Callable[[int], str]:
    def text(seconds: int) -> str:
        moment = _at(seconds)
        if zone is None:
            return moment.replace(tzinfo=None).isoformat(separator)
        return moment.astimezone(zone).isoformat(separator)

    return text


# Kind -> how a moment, in seconds since 1970, is written, and the column's type.
_TIME_KINDS: dict[str, tuple[Callable[[int], Any], pl.DataType]] = {
    "seconds": (lambda s: s, pl.Int64()),
    "small seconds": (lambda s: s, pl.Int32()),
    "milliseconds": (lambda s: s * 10**3, pl.Int64()),
    "microseconds": (lambda s: s * 10**6, pl.Int64()),
    "nanoseconds": (lambda s: s * 10**9, pl.Int64()),
    "unsigned": (lambda s: s * 10**3, pl.UInt64()),
    "floats": (float, pl.Float64()),
    "float milliseconds": (lambda s: s * 1e3, pl.Float64()),
    "text seconds": (str, pl.String()),
    "text milliseconds": (lambda s: str(s * 10**3), pl.String()),
    "iso": (_iso("T", None), pl.String()),
    "iso with a blank": (_iso(" ", None), pl.String()),
    "iso in UTC": (lambda s: _iso("T", None)(s) + "Z", pl.String()),
    "iso with a zone": (_iso("T", _BERLIN_SUMMER), pl.String()),
    "datetimes": (lambda s: _at(s).replace(tzinfo=None), pl.Datetime("us")),
    "datetimes in ms": (lambda s: _at(s).replace(tzinfo=None), pl.Datetime("ms")),
    "datetimes in ns": (lambda s: _at(s).replace(tzinfo=None), pl.Datetime("ns")),
    "datetimes in UTC": (_at, pl.Datetime("us", "UTC")),
    "datetimes in Berlin": (_at, pl.Datetime("us", "Europe/Berlin")),
}
_SINCE_2001 = st.integers(10**9, 2 * 10**9)  # seconds that have ten digits
_DAYS = st.integers(-30_000, 40_000).map(lambda day: day * 86_400)
# Far from each other, so that no unit takes two of them for one.
_WILD = [0, -1, *INT64, 10**5, -(10**5), 10**10, 10**12, 10**15, 10**18, -(10**18), -(10**12)]
_GARBAGE = ("yesterday", "2024-13-01", "12:30", "nan", "1e400", "2024-02-30T00:00:00", " ", "0x10")


@st.composite
def times(draw: st.DrawFn, index: Sequence[int], sound: bool) -> Column:
    """A column of times, by which of some moments each row has; -1: it has none."""
    n = max([0, *index]) + 1
    kinds = [*_TIME_KINDS, "dates", *([] if sound else ["extremes", "garbage"])]
    kind = draw(st.sampled_from(kinds))
    if kind == "extremes":
        distinct = draw(st.lists(st.sampled_from(_WILD), min_size=n, max_size=n))
        meant = [None if i < 0 else distinct[i] for i in index]
        # In order where it is read at all; what moments they are is anybody's guess.
        return Column(meant, pl.Series(meant, dtype=pl.Int64), _texts(meant), moments=False)
    if kind == "garbage":
        odd = st.sampled_from(_GARBAGE) | _TEXT | _SINCE_2001.map(str)
        distinct = draw(st.lists(odd, min_size=n, max_size=n))
        meant = [None if i < 0 else distinct[i] for i in index]
        return Column(meant, pl.Series(meant, dtype=pl.String), _texts(meant), ordered=False)
    moments_ = _DAYS if kind == "dates" else _SINCE_2001
    seconds = draw(st.lists(moments_, min_size=n, max_size=n, unique=sound))
    moments = [None if i < 0 else seconds[i] * 10**6 for i in index]
    if kind == "dates":
        days = [None if i < 0 else date(1970, 1, 1) + timedelta(seconds=seconds[i]) for i in index]
        return Column(moments, pl.Series(days, dtype=pl.Date), _texts(days))
    written, dtype = _TIME_KINDS[kind]
    values = [None if i < 0 else written(seconds[i]) for i in index]
    return Column(moments, pl.Series(values, dtype=dtype), _texts(values))


def _texts(values: Sequence[Any]) -> list[str]:
    return ["" if value is None else str(value) for value in values]


# --- numbers -------------------------------------------------------------------------------------


@st.composite
def numbers(draw: st.DrawFn, index: Sequence[int], sound: bool) -> Column:
    """A column of positions or ratings, by which of some numbers each row has; -1: none."""
    n = max([0, *index]) + 1
    kind = draw(st.sampled_from(["whole", "float", "text", *([] if sound else ["garbage"])]))
    halves = draw(st.lists(st.integers(-20, 20), min_size=n, max_size=n))
    if kind == "garbage":
        odd = [draw(st.sampled_from(["", "good", "nan", "inf", "5"])) for _ in range(n)]
        meant = [None if i < 0 else odd[i] for i in index]
        return Column(meant, pl.Series(meant, dtype=pl.String), _texts(meant), ordered=False)
    distinct = [float(h) if kind == "whole" else h / 2 for h in halves]
    meant = [None if i < 0 else distinct[i] for i in index]
    match kind:
        case "whole":
            values = [None if m is None else int(m) for m in meant]
            return Column(meant, pl.Series(values, dtype=pl.Int16), _texts(values))
        case "float":
            return Column(meant, pl.Series(meant, dtype=pl.Float32), _texts(meant))
    return Column(meant, pl.Series(_texts(meant)).replace("", None), _texts(meant))


# --- tables --------------------------------------------------------------------------------------

SOUND_IDS = ("words", "numbers as text", "uuids", "int64", "uint64", "floats", "categories")


@st.composite
def tables(draw: st.DrawFn, sound: bool = False) -> Table:
    """A table of up to 200 rows.

    Args:
        sound: with everything that a run needs: no missing values, plain times.
    """
    n = draw(st.sampled_from([20, 60, 200] if sound else [1, 2, 5, 20, 60, 200]))
    n_users = draw(st.integers(4 if sound else 1, 12))
    n_items = draw(st.integers(6 if sound else 1, 20))
    none = 0 if sound else -draw(st.sampled_from([0, 0, 0, 1]))  # -1 stands for a missing value
    pairs = st.tuples(
        st.integers(none, n_users - 1),
        st.integers(none, n_items - 1),
        st.integers(none, draw(st.sampled_from([30, 200] if sound else [0, 3, 30]))),
        st.integers(none, 3),  # positions
        st.integers(-1, 8),  # ratings, of which some are missing
    )
    rows = draw(st.lists(pairs, min_size=n, max_size=n))
    if sound:  # every item occurs, and moments differ
        rows[:n_items] = [(at % n_users, at, at, *row[3:]) for at, row in enumerate(rows[:n_items])]
    user, item, moment, position, rating = zip(*rows, strict=True)
    kinds = SOUND_IDS if sound else None
    columns = {"user": draw(ids(user, kinds)), "item": draw(ids(item, kinds))}
    for role, index, strategy in (
        ("timestamp", moment, times),
        ("position", position, numbers),
        ("rating", rating, numbers),
    ):
        if draw(st.integers(0, 9)) < (9 if sound and role == "timestamp" else 5):
            columns[role] = draw(strategy(index, sound))
    odd = draw(st.booleans())
    return Table(
        columns,
        {role: ODD_NAMES[i] if odd else role for i, role in enumerate(columns)},
        draw(st.sampled_from([".parquet", ".csv", ".csv.gz"])),
        draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
