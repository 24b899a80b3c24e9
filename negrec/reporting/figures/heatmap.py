"""Two settings at once."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from negrec.reporting.figures import style
from negrec.reporting.figures.frames import finite, seeds
from negrec.reporting.figures.labels import shorten
from negrec.reporting.figures.quantities import quantity

_COLORS = colormaps["cividis"]  # its lightness rises all the way, for all eyes and on grey paper
_LEVEL = 0.05
_CELL = 0.55, 0.36  # inches


@style.house_style()
def heatmap(cells: pl.DataFrame, x: str, y: str, metric: str, *, title: str = "") -> Figure:
    """The mean at each pair of values, the best marked, and those that do not differ from it.

    As figure 3 of gSASRec (Petrov & Macdonald, 2023, arXiv:2308.07192), whose star says that a
    cell differs from the baseline; here a dashed frame says that one does not differ from the best.

    Args:
        cells: x, y (numbers or text), the metric, n, and p: two-sided, against the best cell, not
            corrected; null where nothing was tested. p times the number of p in the frame is
            compared with 0.05 (Bonferroni).
        x: the setting along the columns.
        y: the setting along the rows, growing upwards.
        metric: such as "valid/ndcg_10".
        title: above the figure.

    Raises:
        NothingToDraw: no cell has a value.
        ValueError: two rows for one cell.
    """
    if cells.select(x, y).is_duplicated().any():
        raise ValueError(f"cells has two rows for the same {x} and {y}")
    pair = pl.format("{} = {}, {} = {}", pl.lit(x), x, pl.lit(y), y)
    named = cells.with_columns(pair.alias("pair"), pl.col("p").cast(pl.Float64).fill_nan(None))
    rows, left_out = finite(named, [metric], "pair")
    of = quantity(metric)
    columns, lines = (sorted(set(cells[name])) for name in (x, y))
    figure, (axes,) = style.new_figure(
        max(style.COLUMN, 1.3 + _CELL[0] * len(columns)), 1.2 + _CELL[1] * len(lines), title=title
    )
    figure.set_label(f"{of.label} by {quantity(x).label} and {quantity(y).label}")
    values = np.full((len(lines), len(columns)), np.nan)
    for row in rows.iter_rows(named=True):
        values[lines.index(row[y]), columns.index(row[x])] = row[metric]
    axes.grid(False)
    image = axes.imshow(values, cmap=_COLORS, origin="lower", aspect="auto")
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    style.label_axis(bar.ax.yaxis, of)
    for axis, setting, names in ((axes.xaxis, x, columns), (axes.yaxis, y, lines)):
        axis.set_ticks(range(len(names)), [_name(name) for name in names])
        axis.set_label_text(quantity(setting).label)
    low, high = np.nanmin(values), np.nanmax(values)
    best = high if of.better == "high" else low
    tests = rows["p"].count()  # without nulls
    # Three digits of the largest, and as many decimals in every cell.
    scale = 100 if of.percent else 1
    largest = scale * max(abs(low), abs(high))
    decimals = max(0, 2 - math.floor(math.log10(largest))) if largest else 0
    for row in rows.iter_rows(named=True):
        at = columns.index(row[x]), lines.index(row[y])
        level = (row[metric] - low) / (high - low) if high > low else 1.0
        ink = "black" if level > 0.5 else "white"
        text = f"{scale * row[metric]:.{decimals}f}"
        axes.text(*at, text, ha="center", va="center", fontsize=style.SMALL, color=ink)
        if row[metric] == best:
            _frame(axes, at, "-", ink)
        elif row["p"] is not None and row["p"] * tests >= _LEVEL:
            _frame(axes, at, "--", ink)
    style.note(
        figure,
        seeds(rows["n"].to_list(), intervals=False),
        "Solid frame: the best.",
        f"Dashed: no significant difference from it (p ≥ {_LEVEL}, Bonferroni over {tests} tests)."
        if tests
        else "Nothing was tested.",
        left_out,
    )
    return figure


def _frame(axes: Axes, at: tuple[int, int], linestyle: str, color: str) -> None:
    corner = at[0] - 0.44, at[1] - 0.42
    axes.add_patch(
        Rectangle(corner, 0.88, 0.84, fill=False, linestyle=linestyle, linewidth=1.4, color=color)
    )


def _name(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else shorten([str(value)])[str(value)]
