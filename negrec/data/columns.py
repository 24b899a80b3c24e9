"""Which columns of a table say who took what and when."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from negrec.data.readers.base import ROW, scan, unreadable
from negrec.data.timestamps import microseconds
from negrec.errors import InputError

AUTO = "auto"  # in place of a column's name: guess it
_SAMPLE = 200  # rows that are looked at


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# For each role the names it goes by, the plainest first: a name of an earlier set wins over one of
# a later set, two of one set are a question to the user. Names are compared in lower case without
# blanks and signs.
_NAMES: dict[str, tuple[frozenset[str], ...]] = {
    "user": (
        _names("user userid uid users useridx userindex"),
        _names(
            "visitor visitorid customer customerid client clientid member memberid buyer buyerid "
            "reviewer reviewerid account accountid person personid reader readerid"
        ),
        _names("session sessionid visit visitid username"),
    ),
    "item": (
        _names("item itemid iid items itemidx itemindex"),
        _names(
            "product productid sku asin parentasin movie movieid track trackid song songid article "
            "articleid business businessid book bookid isbn video videoid game gameid news newsid "
            "recipe recipeid offer offerid listing listingid location locationid artist artistid "
            "page pageid poi poiid venue venueid app appid"
        ),
    ),
    "timestamp": (
        _names("timestamp ts unixtimestamp timestampms timestamps"),
        _names(
            "time datetime unixreviewtime eventtime eventtimestamp createdat createdtime "
            "clicktime purchasetime unixtime checkintime"
        ),
        _names("date day eventdate orderdate purchasedate reviewdate"),
    ),
    "position": (_names("position pos"),),
    "rating": (_names("rating ratings stars overall"),),
    "event": (
        _names("event events eventtype eventname"),
        _names("action actiontype behavior type"),
    ),
}
_REQUIRED = ("user", "item")
_BESIDE = ("item_id", "item")  # in a table about items, besides the interactions' own name


@dataclass(frozen=True)
class Columns:
    """The columns of a table by what they say.

    Attributes:
        user: who; ids of any type.
        item: what; ids of any type.
        timestamp: when; None where the table does not say.
        position: the order among a user's interactions of the same time.
        rating: how well it was liked.
        event: what the user did, such as a view or a purchase.
    """

    user: str = AUTO
    item: str = AUTO
    timestamp: str | None = AUTO
    position: str | None = AUTO
    rating: str | None = AUTO
    event: str | None = None

    def __str__(self) -> str:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return ", ".join(f"{role}={name}" for role, name in given.items() if name is not None)

    def present(self) -> dict[str, str]:
        """Role -> column, without the roles that no column has."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {role: name for role, name in given.items() if name is not None}


def sniff(path: Path, columns: Mapping[str, object] | Columns | None = None) -> Columns:
    """The columns of a file, guessed from their names and types where they are not given.

    Reads the names, the types and some rows only.

    Args:
        path: a table, see ``readers.base.scan``.
        columns: role -> the column's name, None for "there is none", or "auto".

    Raises:
        InputError: an unknown role, a column that is not there, or a guess that cannot be made.
    """
    wanted = columns if isinstance(columns, Columns) else _given(columns or {})
    return find(path, scan(path), wanted)


def find(path: Path, table: pl.LazyFrame, wanted: Columns) -> Columns:
    """The columns of a scanned table; see ``sniff``."""
    there = [name for name in table.collect_schema().names() if name != ROW]
    listed = f"its columns are {', '.join(there)}"
    # A number is a name too: a table without a header has its first row for names.
    given = {field.name: getattr(wanted, field.name) for field in fields(Columns)}
    found: dict[str, Any] = {r: None if name is None else str(name) for r, name in given.items()}
    for role, name in found.items():
        if name is None and role in _REQUIRED:
            raise InputError(f"dataset.columns.{role}: every table needs a column of {role}s")
        if name not in (None, AUTO) and name not in there:
            raise InputError(
                f"{path} has no column {name!r}: {listed}; name one of them with "
                f"dataset.columns.{role}=NAME"
            )
    if AUTO not in found.values():
        return Columns(**found)
    try:
        sample = table.head(_SAMPLE).collect()
    except pl.exceptions.PolarsError as error:
        raise unreadable(path, error) from error
    taken = {name for name in found.values() if name not in (None, AUTO)}
    for role, name in found.items():
        if name == AUTO:
            free = [column for column in there if column not in taken]
            found[role] = _guess(role, free, sample, path, listed)
            taken.add(found[role])
    return Columns(**found)


def beside(key: str, path: Path, columns: Columns) -> tuple[pl.LazyFrame, str, list[str]]:
    """A scanned table about the items of another one, its column of items, and all its columns.

    Args:
        key: the setting that names the table, for messages.
        path: of the table.
        columns: of the interactions' table.

    Raises:
        InputError: a file that cannot be read, or without a column of items.
    """
    try:
        table = scan(path)
    except InputError as error:
        raise InputError(f"{key}: {error}") from error
    there = [name for name in table.collect_schema().names() if name != ROW]
    names = list(dict.fromkeys([columns.item, *_BESIDE]))
    item = next((name for name in names if name in there), None)
    if item is None:
        raise lacks(key, path, " or ".join(names), there)
    return table, item, there


def lacks(key: str, path: Path, column: str, there: list[str]) -> InputError:
    """The line for a table without a column that is needed."""
    return InputError(f"{key}: {path} has no column {column}: its columns are {', '.join(there)}")


def _given(columns: Mapping[str, object]) -> Columns:
    roles = [field.name for field in fields(Columns)]
    for role in columns:
        if role not in roles:
            raise InputError(f"dataset.columns.{role}: there is no such setting, only {roles}")
    return Columns(**columns)  # type: ignore[arg-type] # a configuration's values: see `find`


def _guess(
    role: str, there: list[str], sample: pl.DataFrame, path: Path, listed: str
) -> str | None:
    candidates = [name for name in there if _fits(role, sample[name])]
    for names in _NAMES[role]:
        found = [name for name in candidates if re.sub(r"[\W_]", "", name.lower()) in names]
        if len(found) > 1:
            raise InputError(
                f"{path}: {' and '.join(found)} may both be the column of {role}s: choose with "
                f"dataset.columns.{role}=NAME"
            )
        if found:
            return found[0]
    if role == "timestamp":
        # Whatever its name is: without it the file's order would be taken for that of time.
        times = [name for name in candidates if _says_when(sample[name])]
        if len(times) > 1:
            raise InputError(
                f"{path}: {' and '.join(times)} hold times: choose with "
                "dataset.columns.timestamp=NAME, or null for none of them"
            )
        if times:
            return times[0]
    if role in _REQUIRED:
        raise InputError(
            f"{path}: no column looks like {role}s: {listed}; name it with "
            f"dataset.columns.{role}=NAME (a first line must name the columns of a text table)"
        )
    return None


def _says_when(values: pl.Series) -> bool:
    """Whether values are dates or times by their type, or texts that all read as ISO 8601."""
    if values.dtype != pl.String:
        return values.dtype.is_temporal()
    texts = values.drop_nulls()
    read, kind = microseconds(texts)
    return len(texts) > 0 and kind == "ISO 8601" and read.null_count() == 0


def _fits(role: str, values: pl.Series) -> bool:
    """Whether a column's type, as the sample shows it, can have the role."""
    if role in _REQUIRED:
        return values.dtype != pl.Boolean and not values.dtype.is_nested()
    if role == "timestamp":
        # Text that cannot be read is an error to report, not a sign of another meaning.
        return values.dtype.is_numeric() or values.dtype.is_temporal() or values.dtype == pl.String
    if role == "event":
        return values.dtype in (pl.String, pl.Categorical, pl.Enum) or values.dtype.is_integer()
    if values.dtype == pl.String:
        return bool(values.cast(pl.Float64, strict=False).is_not_null().any()) or len(values) == 0
    return values.dtype.is_numeric()
