"""What accuracy costs: balance, or training time, against accuracy, with the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from negrec.reporting.figures import style
from negrec.reporting.figures.frames import finite, seeds
from negrec.reporting.figures.labels import beside, legend, shorten
from negrec.reporting.figures.quantities import Better, quantity

Floats = NDArray[np.float64]
_DOTS = 12  # that stand for a line where labels look for room


@style.house_style()
def tradeoff(
    points: pl.DataFrame,
    x: str,
    y: str,
    *,
    title: str = "",
    looks: Mapping[str, style.Look] | None = None,
) -> Figure:
    """One point per cell, with 95% intervals in both directions and the Pareto front.

    As figure A1 of Prakash et al. (2024, arXiv:2410.17276) where the rows of a cell are sizes of
    its buffer. A time or a size has a log axis, unless one is 0.

    Args:
        points: cell, n, and NAME, NAME_low, NAME_high for x and y; label if they have one.
        x: a quantity, such as "test/balance_10" or "cost/seconds_per_epoch".
        y: such as "test/hr_10".
        title: above the figure.
        looks: of the cells.

    Raises:
        NothingToDraw: no cell has both values.
    """
    rows, left_out = finite(points, [x, y], "cell")
    names = list(dict.fromkeys(rows["cell"]))
    looks = style.chosen_looks(names, looks)
    shown = shorten(names)
    of_x, of_y = quantity(x), quantity(y)
    inside = len(names) <= style.DIRECT
    own = "label" in rows.columns
    figure, (axes,) = style.new_figure(style.COLUMN, 2.8, title=title)
    figure.set_label(f"{of_y.label} against {of_x.label}")

    front = pareto(rows[x].to_numpy(), rows[y].to_numpy(), of_x.better, of_y.better)
    style.label_axis(axes.xaxis, of_x)
    style.label_axis(axes.yaxis, of_y)
    marks = []
    for name in names:
        cell, look = rows.filter(cell=name), looks[name]
        axes.errorbar(
            cell[x],
            cell[y],
            xerr=_arms(cell, x),
            yerr=_arms(cell, y),
            elinewidth=0.8,
            zorder=3,
            label=name,
            **look.marking,
        )
        if len(cell) > 1:
            axes.plot(cell[x], cell[y], linewidth=0.8, zorder=2, **look.line)
        marks += _dots(cell, x, y)
    for axis, name, of in ((axes.xaxis, x, of_x), (axes.yaxis, y, of_y)):
        # A model without parameters trains for 0 seconds.
        if of.cost and (rows[name] > 0).all():
            style.log_axis(axis)
    axes.margins(0.08)
    line = _staircase(rows.filter(front).select(x, y).to_numpy(), of_x.better, of_y.better)
    # Drawn to the frame's edges: what is worse than a point of the front is dominated.
    limits = axes.get_xlim(), axes.get_ylim()
    ends = [(limits[0], of_x.better), (limits[1], of_y.better)]
    worst = [limit[0] if better == "high" else limit[1] for limit, better in ends]
    line = np.array([(worst[0], line[0, 1]), *line, (line[-1, 0], worst[1])])
    axes.plot(*line.T, color=style.GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
    axes.set(xlim=limits[0], ylim=limits[1])
    marks += [dot for a, b in pairwise(line) for dot in np.linspace(a, b, 4 * _DOTS)]

    if own or not inside:
        handles = [Line2D([], [], **looks[name].marking) for name in names]
        legend(figure, handles, [shown[name] for name in names])
    style.note(
        figure,
        seeds(rows["n"].to_list()),
        "Dashed: Pareto front; to its cells nothing is as good in both directions, better in one.",
        left_out,
    )
    if inside or own:
        texts = rows["label"].to_list() if own else [shown[name] for name in rows["cell"]]
        at_points = list(rows.select(x, y).iter_rows())
        beside(axes, [str(text) for text in texts], at_points, np.array(marks))
    return figure


def pareto(
    x: Sequence[float] | Floats, y: Sequence[float] | Floats, x_better: Better, y_better: Better
) -> list[bool]:
    """Which points no other is better than: as good in both directions and better in one.

    Args:
        x: numbers.
        y: numbers.
        x_better: which x are good.
        y_better: which y are good.
    """
    gains = [
        np.asarray(v, dtype=np.float64) * (1 if better == "high" else -1)
        for v, better in ((x, x_better), (y, y_better))
    ]
    value = np.stack(gains, axis=1)  # (n, 2)
    as_good = (value[:, None] >= value[None]).all(axis=2)  # row against column
    better_in_one = (value[:, None] > value[None]).any(axis=2)
    dominated: NDArray[np.bool_] = np.any(as_good & better_in_one, axis=0)
    return [not each for each in dominated]


def _staircase(front: Floats, x_better: Better, y_better: Better) -> Floats:
    """The edge of what the front's points dominate, from their best y to their best x."""
    sign = 1 if x_better == "high" else -1
    ordered = front[np.argsort(sign * front[:, 0], kind="stable")]
    corners = [ordered[:1]]
    for here, there in pairwise(ordered):
        corners.append(np.array([(here[0], there[1]), there]))
    return np.concatenate(corners)


def _arms(rows: pl.DataFrame, name: str) -> Floats | None:
    """Lengths of error bars, (2, n): NaN where there is no interval, None where there is none."""
    arms = rows.select(
        (pl.col(name) - pl.col(f"{name}_low")).cast(pl.Float64),
        (pl.col(f"{name}_high") - pl.col(name)).cast(pl.Float64),
    ).with_columns(pl.all().fill_null(float("nan")))
    lengths: Floats = arms.to_numpy().T
    return None if np.isnan(lengths).all() else lengths


def _dots(rows: pl.DataFrame, x: str, y: str) -> list[Floats]:
    """Dots along the error bars."""
    dots = []
    for row in rows.iter_rows(named=True):
        centre = np.array([row[x], row[y]])
        dots.append(np.tile(centre, (3, 1)))  # the marker itself counts three times
        for axis, name in enumerate((x, y)):
            low, high = row[f"{name}_low"], row[f"{name}_high"]
            if low is not None and np.isfinite([low, high]).all():
                bar = np.tile(centre, (_DOTS, 1))
                bar[:, axis] = np.linspace(low, high, _DOTS)
                dots.append(bar)
    return [dot for part in dots for dot in part]
