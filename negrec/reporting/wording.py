"""Numbers and names as a report writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

NOTHING = "–"
MINUS = "−"
_NAMES = {"hr": "HR", "ndcg": "NDCG", "mrr": "MRR", "recall": "recall", "balance": "balance"}
_FRACTIONS = ((0.45, 0.55, "half"), (0.31, 0.36, "a third"), (0.23, 0.27, "a quarter"))


def metric(name: str) -> str:
    """Such as HR@10 for hr_10, NDCG@10 head for ndcg_10_head."""
    found = re.fullmatch(r"([a-z]+)(?:_(\d+))?(?:_([a-z]+))?", name)
    if found is None or found[1] not in _NAMES:
        return name
    at = f"@{found[2]}" if found[2] else ""
    part = f" {found[3]}" if found[3] else ""
    return f"{_NAMES[found[1]]}{at}{part}"


def cutoff(name: str) -> int | None:
    """The k of a metric's name; None where it has none."""
    found = re.search(r"_(\d+)(_[a-z]+)?$", name)
    return int(found[1]) if found else None


def percent(value: float, sd: float = math.nan, digits: int = 2) -> str:
    """A fraction in percent without its sign, with its standard deviation where there is one."""
    if math.isnan(value):
        return NOTHING
    text = f"{100 * value:.{digits}f}"
    return text if math.isnan(sd) else f"{text} ± {100 * sd:.{digits}f}"


def points(value: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return NOTHING if math.isnan(value) else f"{100 * value:+.2f}".replace("-", MINUS)


def interval(low: float, high: float) -> str:
    """Of a difference of fractions, in percentage points."""
    return NOTHING if math.isnan(low) else f"[{points(low)}, {points(high)}]"


def p_value(p: float | None) -> str:
    """To three digits, and never zero."""
    if p is None:
        return NOTHING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def seconds(value: float) -> str:
    """Of an epoch: "0.35 s", "4.9 s", "148 s"."""
    if math.isnan(value):
        return NOTHING
    digits = 2 if value < 1 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} s"


def duration(value: float) -> str:
    """Of a training: "12 s", "4.2 min", "1.5 h"."""
    if math.isnan(value):
        return NOTHING
    if value < 120:
        return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def share(ratio: float) -> str:
    """How much of another's cost: "half", "a third", "80 % of it"."""
    for low, high, word in _FRACTIONS:
        if low <= ratio <= high:
            return word
    return f"{100 * ratio:.0f} % of it" if ratio >= 0.01 else "less than 1 % of it"


def listed(names: Sequence[str], last: str = "and") -> str:
    """Several as one: a, b and c."""
    return f" {last} ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def whole(values: Sequence[int]) -> str:
    """Of counts: "5" or "3 to 5"."""
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def counted(n: int, name: str) -> str:
    """Such as "1 trial", "1,000 runs"."""
    return f"{n:,} {name}{'s' if n != 1 else ''}"


def negatives(k: float) -> str:
    """Of a query: "1 negative", "the whole catalogue"."""
    if math.isinf(k):
        return "the whole catalogue or batch"
    return counted(int(k), "negative")


def sampled(n: object) -> str:
    """A warning: what was ranked among some items does not compare with the whole catalogue."""
    return (
        f"WARNING: ranked among {n} random items, not the catalogue; compare with published "
        "sampled metrics only"
    )
