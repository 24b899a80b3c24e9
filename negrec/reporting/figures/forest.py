"""Which cells are within noise of the best."""

from __future__ import annotations

import polars as pl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from negrec.reporting.figures import style
from negrec.reporting.figures.frames import finite, seeds
from negrec.reporting.figures.labels import shorten
from negrec.reporting.figures.quantities import quantity

_LEVEL = 0.05
_SPLITS = (("valid", "Validation: the choice"), ("test", "Test: the report"))


@style.house_style()
def forest(differences: pl.DataFrame, metric: str, best: str, *, title: str = "") -> Figure:
    """The difference of each cell to the best, with its 95% interval, on validation and on test.

    A hollow marker is a difference within noise: its corrected p is 0.05 or more, or there is
    none. An interval is of one comparison alone; the correction is in the marker.

    Args:
        differences: cell, split ("valid" or "test"), difference, low, high, n, p (corrected).
        metric: without its split, such as "ndcg_10".
        best: the cell that the others are compared with, chosen on validation.
        title: above the figure.

    Raises:
        NothingToDraw: there is no difference.
        ValueError: a split that is neither.
    """
    if unknown := set(differences["split"]) - {split for split, _ in _SPLITS}:
        raise ValueError(f"split must be valid or test, got {sorted(unknown)}")
    differences = differences.with_columns(
        pl.col("p", "low", "high").cast(pl.Float64).fill_nan(None)
    )
    rows, left_out = finite(differences, ["difference"], "cell")
    shown_splits = [each for each in _SPLITS if each[0] in set(rows["split"])]
    first = rows.filter(split=shown_splits[0][0]).sort("difference", descending=True)
    names = list(dict.fromkeys([*first["cell"], *rows["cell"]]))
    shown = shorten(names)
    figure, axes = style.new_figure(
        style.COLUMN + 1.8 * (len(shown_splits) - 1),
        1.0 + 0.24 * len(names),
        1,
        len(shown_splits),
        title=title,
        sharey=True,
    )
    of = quantity(metric)
    unit = " (percentage points)" if of.percent else ""
    what = of.label.removesuffix(" (%)") if of.percent else of.label
    figure.set_label(f"Difference in {what} to {best}")
    for each, (split, heading) in zip(axes, shown_splits, strict=True):
        each.set_title(heading, loc="left")
        each.axvline(0, color="k", linewidth=0.8, zorder=1)
        for row in rows.filter(split=split).iter_rows(named=True):
            y, mean = names.index(row["cell"]), row["difference"]
            within = row["p"] is None or row["p"] >= _LEVEL
            known = row["low"] is not None
            arms = [[mean - row["low"]], [row["high"] - mean]] if known else None
            each.errorbar(
                mean,
                y,
                xerr=arms,
                marker="o",
                color="k",
                elinewidth=0.9,
                label=row["cell"],
                markerfacecolor="white" if within else "k",
            )
        if of.percent:
            each.xaxis.set_major_formatter(
                FuncFormatter(lambda v, _: f"{100 * v:+.6g}" if v else "0")
            )
    axes[0].set_yticks(range(len(names)), [shown[name] for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    for each in axes:
        each.grid(axis="y", visible=False)
        each.set_xlabel(f"Δ {what}{unit}")
    style.note(
        figure,
        seeds(rows["n"].to_list(), "difference"),
        f"Δ: cell minus {best}.",
        f"Hollow: within noise (p ≥ {_LEVEL} after Holm's correction, or none).",
        left_out,
    )
    return figure
