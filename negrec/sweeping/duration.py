"""Spans of time as people type and read them."""

from __future__ import annotations

import re

from negrec.errors import InputError

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_NUMBER = r"\d+(?:\.\d+)?"
_SPAN = re.compile("".join(rf"(?:({_NUMBER}){unit})?" for unit in _UNITS))


def parse(text: str) -> float:
    """Seconds of a text such as 90s, 30m, 8h, 1.5h, 2d or 1h30m.

    Raises:
        InputError: it is none, or no time at all.
    """
    found = _SPAN.fullmatch(text.strip().lower())
    numbers = found.groups(default="0") if found else ()
    seconds = sum(float(n) * size for n, size in zip(numbers, _UNITS.values(), strict=False))
    if not seconds > 0:
        raise InputError(f"{text!r} is no span of time: write it as 90s, 30m, 8h, 2d or 1h30m")
    return seconds


def words(seconds: float) -> str:
    """A span of at least 0 s in its two largest units, rounded: 1 h 20 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{round(seconds)} s"
    if round(seconds) < 3_600:
        return _two(round(seconds), 60, "min", "s")
    if round(seconds / 60) < 24 * 60:
        return _two(round(seconds / 60), 60, "h", "min")
    return _two(round(seconds / 3_600), 24, "d", "h")


def _two(total: int, size: int, large: str, small: str) -> str:
    whole, rest = divmod(total, size)
    return f"{whole} {large} {rest} {small}" if rest else f"{whole} {large}"
