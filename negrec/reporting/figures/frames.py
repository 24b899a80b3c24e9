"""From rows of runs to what is drawn: numbers only, means and intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from negrec.reporting.figures.style import NothingToDraw


def finite(frame: pl.DataFrame, columns: Sequence[str], by: str) -> tuple[pl.DataFrame, str]:
    """The rows with a number in all of these columns, and a sentence on those without.

    Args:
        frame: with the columns and ``by``.
        columns: that must hold finite numbers; they become floats.
        by: the column that names whose rows they are.

    Raises:
        NothingToDraw: no row is left.
    """
    numbers = frame.with_columns(pl.col(columns).cast(pl.Float64))
    kept = numbers.filter(pl.all_horizontal(pl.col(columns).is_finite().fill_null(False)))
    if kept.is_empty():
        raise NothingToDraw(f"no row has a number in {', '.join(columns)}")
    before, after = (_sizes(each, by) for each in (frame, kept))
    missing = [
        name if name not in after else f"{name} ({n - after[name]} of {n})"
        for name, n in before.items()
        if after.get(name) != n
    ]
    return kept, f"Not shown, no number: {', '.join(missing)}." if missing else ""


def _sizes(frame: pl.DataFrame, by: str) -> dict[str, int]:
    return dict(frame.group_by(by, maintain_order=True).len().iter_rows())


def over_seeds(frame: pl.DataFrame, by: Sequence[str], values: Sequence[str]) -> pl.DataFrame:
    r"""Means over the rows that agree in ``by``, in order of appearance.

    .. math:: \\bar x \\pm t_{0.975, n - 1} \\, s / \\sqrt n

    Args:
        frame: one row per seed, numbers only.
        by: columns.
        values: columns.

    Returns:
        The columns of ``by``; n; and for each value NAME (the mean), NAME_low, NAME_high: its
        95% interval by Student's t, NaN where n = 1.
    """
    # A report opens without scipy; only its figures wait for it.
    from scipy.stats import t

    means = frame.group_by(by, maintain_order=True).agg(
        pl.len().cast(pl.Int64).alias("n"),
        pl.col(values).mean(),
        pl.col(values).std().name.suffix("_sd"),
    )
    n = means["n"].to_numpy().astype(np.float64)
    # t has no quantile at 0 degrees of freedom: NaN, as the standard deviation of one value.
    half = pl.Series("half", t.ppf(0.975, n - 1) / np.sqrt(n))
    return means.with_columns(
        *(
            (pl.col(name) + sign * half * pl.col(f"{name}_sd").fill_null(float("nan"))).alias(
                f"{name}_{end}"
            )
            for name in values
            for end, sign in (("low", -1), ("high", 1))
        )
    ).drop(f"{name}_sd" for name in values)


def seeds(n: Sequence[int], what: str = "cell", intervals: bool = True) -> str:
    """A sentence that states n, and what follows from it for the intervals, if there are any."""
    low, high = min(n), max(n)
    said = f"n = {low}" + (f" to {high}" if low != high else "")
    said += f" seed{'s' if high != 1 else ''} per {what}"
    if not intervals:
        return f"{said}."
    if high == 1:
        return f"{said}: no intervals."
    return f"{said}; 95% intervals" + (" where n > 1." if low == 1 else ".")
