"""Times of any usual kind as microseconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

import numpy as np
import polars as pl

Unit = Literal["seconds", "milliseconds", "microseconds", "nanoseconds"]

# The largest number of each unit, reached in the year 5138: seconds of today have 10 digits,
# milliseconds 13, microseconds 16.
_LARGEST: dict[Unit, float] = {"seconds": 1e11, "milliseconds": 1e14, "microseconds": 1e17}
PER_SECOND: dict[Unit, int] = {
    "seconds": 1,
    "milliseconds": 10**3,
    "microseconds": 10**6,
    "nanoseconds": 10**9,
}
FIRST = 1000  # texts that tell numbers from dates
_NUMBER = r"^[+-]?\d+(\.\d*)?([eE][+-]?\d+)?$"


def microseconds(times: pl.Series) -> tuple[pl.Series, str]:
    """Times as Int64 microseconds since 1970 in UTC, null where they cannot be read.

    Numbers are taken for seconds, milliseconds, microseconds or nanoseconds by the size of the
    largest; small ones (a counter in place of a time) keep their order as seconds. Texts are such
    numbers or ISO 8601. Times without a zone are taken for UTC.

    Returns:
        The times, and in words what they were taken for.
    """
    reading = Reading.of(times)
    read = pl.select(reading.expression(pl.lit(times))).to_series()
    if reading.wider is not None and read.null_count() > times.null_count():
        reading = reading.wider
        read = pl.select(reading.expression(pl.lit(times))).to_series()
    return reading.scaled(read)


@dataclass(frozen=True)
class Reading:
    """How the times of a column are read, so that it can be done piece by piece.

    Attributes:
        kind: texts: "whole" numbers, numbers with a "fraction", ISO 8601 in whole "seconds" of
            UTC, any "ISO 8601"; else "numbers", "dates" of any type, or "none" that are times.
        dtype: of the column.
    """

    kind: Literal["whole", "fraction", "seconds", "ISO 8601", "numbers", "dates", "none"]
    dtype: pl.DataType

    @classmethod
    def of(cls, first: pl.Series) -> Self:
        """By the type, and for texts by the first of them."""
        dtype = first.dtype
        if dtype == pl.String:
            texts = first.head(FIRST).str.strip_chars()
            # Most decide: what does not fit them is a mistake to report.
            numbers = texts.str.contains(_NUMBER).cast(pl.Int64).sum()
            return cls(
                "whole" if 2 * numbers >= len(texts) - texts.null_count() else "seconds", dtype
            )
        if dtype == pl.Date or isinstance(dtype, pl.Datetime):
            return cls("dates", dtype)
        return cls("numbers" if dtype.is_numeric() else "none", dtype)

    @property
    def wider(self) -> Reading | None:
        """What reads all that this one does and more, for values that this one cannot read."""
        match self.kind:
            case "whole":
                return Reading("fraction", self.dtype)
            case "seconds":
                return Reading("ISO 8601", self.dtype)
        return None

    def expression(self, column: pl.Expr) -> pl.Expr:
        """What ``scaled`` makes times of; null where there is none."""
        match self.kind:
            case "whole":  # Float64 would round beyond 2^53
                return column.str.strip_chars().cast(pl.Int64, strict=False)
            case "fraction":
                return column.str.strip_chars().cast(pl.Float64, strict=False)
            case "seconds":  # takes a tenth of the time
                texts = column.str.strip_chars().str.strip_suffix("Z")
                texts = texts.str.replace(" ", "T", literal=True)
                return texts.str.to_datetime(
                    "%Y-%m-%dT%H:%M:%S", time_unit="us", strict=False
                ).cast(pl.Int64)
            case "ISO 8601":
                return _iso(column.str.strip_chars())
            case "dates":
                if isinstance(self.dtype, pl.Datetime) and self.dtype.time_zone is not None:
                    column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
                return column.cast(pl.Datetime("us")).cast(pl.Int64)
            case "numbers":
                return column
        return column.is_null().replace_strict([True, False], None, return_dtype=pl.Int64)

    def scaled(self, read: pl.Series) -> tuple[pl.Series, str]:
        """Microseconds of a whole column, and in words what it was taken for."""
        match self.kind:
            case "seconds" | "ISO 8601":
                return read, "ISO 8601"
            case "dates":
                return read, str(self.dtype)
            case "none":
                return read, "no time"
        return _numbers(read)


def unit_of(largest: float) -> Unit:
    """What numbers are taken for, by the largest of them without its sign."""
    return next((u for u, limit in _LARGEST.items() if largest < limit), "nanoseconds")


def _numbers(times: pl.Series) -> tuple[pl.Series, str]:
    if times.dtype.is_float():
        # Float32 has no room for microseconds: different times would become equal.
        times = times.cast(pl.Float64).set(~times.is_finite(), None)
    largest = times.abs().max() if times.dtype.is_signed_integer() else times.max()
    unit = unit_of(abs(float(largest)) if isinstance(largest, int | float) else 0.0)
    per_second = PER_SECOND[unit]
    if times.dtype.is_float() and per_second <= 10**6:
        return (times * (10**6 // per_second)).round().cast(pl.Int64), unit
    times = times.cast(pl.Int64, strict=False)
    if per_second > 10**6:
        return times // (per_second // 10**6), unit
    return times * (10**6 // per_second), unit


def _iso(times: pl.Expr) -> pl.Expr:
    """Date, optionally time, fraction and zone, with a blank or a T between."""
    texts = (
        times.str.replace(r"^(\d{4})/(\d{2})/(\d{2})", "$1-$2-$3")
        .str.replace(r"^(\d{4}-\d{2}-\d{2})$", "${1}T00:00")
        .str.replace(" ", "T", literal=True)
        .str.replace(r"(T\d{2}:\d{2})($|[Zz+-])", "${1}:00$2")
        .str.replace(r"[Zz]$|( ?UTC)$|(TUTC)$", "+0000")
        .str.replace(r"(\d{2}:\d{2}:\d{2}(?:\.\d+)?)$", "${1}+0000")
    )
    parsed = texts.str.to_datetime(
        "%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", time_zone="UTC", strict=False
    )
    return parsed.cast(pl.Int64)


def moment(value: str | int | float) -> int:
    """One time of a configuration, such as "2014-07-01" or 1404172800, in microseconds.

    Raises:
        ValueError: it cannot be read.
    """
    read = microseconds(pl.Series([value]))[0].item()
    if read is None:
        raise ValueError(f"{value!r} is no time: give a date such as 2014-07-01 or Unix seconds")
    return int(read)


def words(time: int | np.int64) -> str:
    """A time in microseconds, for people."""
    try:
        text = datetime.fromtimestamp(int(time) / 1e6, tz=UTC).isoformat(sep=" ")
    except (ValueError, OverflowError, OSError):  # beyond the year 9999
        return str(int(time))
    return text.removesuffix("+00:00").removesuffix(" 00:00:00")
