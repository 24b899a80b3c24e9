"""Times of any usual kind as microseconds since 1970."""

from datetime import UTC, datetime
from typing import Literal

import numpy as np
import polars as pl

Unit = Literal["seconds", "milliseconds", "microseconds", "nanoseconds"]

# The largest number of each unit, reached in the year 5138: seconds of today have 10 digits,
# milliseconds 13, microseconds 16.
_LARGEST: dict[Unit, float] = {"seconds": 1e11, "milliseconds": 1e14, "microseconds": 1e17}
_PER_SECOND: dict[Unit, int] = {
    "seconds": 1,
    "milliseconds": 10**3,
    "microseconds": 10**6,
    "nanoseconds": 10**9,
}
_NUMBER = r"^[+-]?\d+(\.\d*)?$"


def microseconds(times: pl.Series) -> tuple[pl.Series, str]:
    """Times as Int64 microseconds since 1970 in UTC, null where they cannot be read.

    Numbers are taken for seconds, milliseconds, microseconds or nanoseconds by the size of the
    largest; small ones (a counter in place of a time) keep their order as seconds. Texts are such
    numbers or ISO 8601. Times without a zone are taken for UTC.

    Returns:
        The times, and in words what they were taken for.
    """
    if times.dtype == pl.String:
        times = times.str.strip_chars()
        # Most decide: what does not fit them is a mistake to report.
        numbers = times.head(1000).str.contains(_NUMBER).cast(pl.Int64).sum()
        if 2 * numbers >= min(len(times), 1000) - times.head(1000).null_count():
            # Whole numbers first: Float64 would round beyond 2^53.
            whole = times.cast(pl.Int64, strict=False)
            lost = whole.is_null() & times.is_not_null()
            return _numbers(times.cast(pl.Float64, strict=False) if lost.any() else whole)
        return _iso(times), "ISO 8601"
    if times.dtype == pl.Date or isinstance(times.dtype, pl.Datetime):
        if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone is not None:
            times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return times.cast(pl.Datetime("us")).cast(pl.Int64), str(times.dtype)
    if times.dtype.is_numeric():
        return _numbers(times)
    return pl.repeat(None, len(times), dtype=pl.Int64, eager=True), "no time"


def _numbers(times: pl.Series) -> tuple[pl.Series, str]:
    if times.dtype.is_float():
        times = times.set(~times.is_finite(), None)
    largest = times.abs().max() if times.dtype.is_signed_integer() else times.max()
    size = abs(float(largest)) if isinstance(largest, int | float) else 0.0
    unit: Unit = next((u for u, limit in _LARGEST.items() if size < limit), "nanoseconds")
    per_second = _PER_SECOND[unit]
    if times.dtype.is_float() and per_second <= 10**6:
        return (times * (10**6 // per_second)).round().cast(pl.Int64), unit
    times = times.cast(pl.Int64, strict=False)
    if per_second > 10**6:
        return times // (per_second // 10**6), unit
    return times * (10**6 // per_second), unit


def _iso(times: pl.Series) -> pl.Series:
    """Date, optionally time, fraction and zone, with a blank or a T between."""
    frame = pl.select(
        times.alias("t")
        .str.replace(r"^(\d{4})/(\d{2})/(\d{2})", "$1-$2-$3")
        .str.replace(r"^(\d{4}-\d{2}-\d{2})$", "${1}T00:00")
        .str.replace(" ", "T", literal=True)
        .str.replace(r"(T\d{2}:\d{2})($|[Zz+-])", "${1}:00$2")
        .str.replace(r"[Zz]$|( ?UTC)$|(TUTC)$", "+0000")
        .str.replace(r"(\d{2}:\d{2}:\d{2}(?:\.\d+)?)$", "${1}+0000")
    ).to_series()
    parsed = frame.str.to_datetime(
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
