"""Whether scores, read as probabilities, mean what they say."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from negrec.reporting.figures import style
from negrec.reporting.figures.frames import finite, over_seeds, seeds
from negrec.reporting.figures.labels import beside, legend, shorten

Floats = NDArray[np.float64]
_MARKED = (1, 10, 100)  # K
_POINTS = 200  # of a line of the theorem
_DOTS = 10  # that stand for a piece of a line where labels look for room


@style.house_style()
def calibration(
    points: pl.DataFrame,
    *,
    title: str = "",
    looks: Mapping[str, style.Look] | None = None,
) -> Figure:
    """Mean predicted probability@K over mean precision@K, K = 1, 2, ..., with theorem 5.1.

    Figure 2 of gSASRec (Petrov & Macdonald, 2023, arXiv:2308.07192), on log axes. The diagonal is
    a calibrated model; above it, it is overconfident. The thin line of a cell is theorem 5.1: what
    it converges to with its sampling rate and its beta (see
    ``negrec.evaluation.calibration.theorem_5_1``), with precision@K for the true probability.

    Args:
        points: cell, seed, k, probability, precision, sampling_rate, beta; the last two null where
            the theorem does not hold.
        title: above the figure.
        looks: of the cells.

    Raises:
        NothingToDraw: no point has a precision and a probability above 0.
    """
    rows, left_out = finite(points, ["precision", "probability"], "cell")
    means = over_seeds(rows, ["cell", "k"], ["precision", "probability"])
    # Where nothing is hit there is no place on a log axis.
    means = means.filter((pl.col("precision") > 0) & (pl.col("probability") > 0)).sort("k")
    if means.is_empty():
        raise style.NothingToDraw("no precision and probability above 0")
    names = [name for name in dict.fromkeys(rows["cell"]) if name in set(means["cell"])]
    looks = style.chosen_looks(names, looks)
    figure, (axes,) = style.new_figure(style.COLUMN, 2.9, title=title)
    figure.set_label("Predicted probability over precision, by cut-off K")
    for name in names:
        _draw(axes, means.filter(cell=name), looks[name])
    style.log_axis(axes.xaxis)
    limits = axes.get_xlim()
    axes.set_yscale("log")
    calibrated(axes, *limits)
    some = False
    for name in names:
        setting = rows.filter(cell=name).select("sampling_rate", "beta").drop_nulls().unique()
        for rate, beta in setting.sort("sampling_rate", "beta").iter_rows():
            theorem(axes, *limits, rate, beta, looks[name].color)
            some = True
    axes.set_xlim(limits)
    style.log_axis(axes.yaxis)
    axes.set(xlabel="Mean precision@K", ylabel="Mean predicted probability@K")
    shown = shorten(names)
    handles = [Line2D([], [], **looks[name].both) for name in names]
    legend(figure, handles, [shown[name] for name in names])
    n = rows.group_by("cell").agg(pl.col("seed").n_unique())["seed"]
    style.note(
        figure,
        f"Means over seeds, K = {min(means['k'])} to {max(means['k'])}.",
        seeds(n.to_list(), intervals=False),
        "Grey: calibrated.",
        "Thin: theorem 5.1 of gSASRec for the cell's sampling rate and beta." if some else "",
        left_out,
    )
    marked = means.filter(pl.col("k").is_in(_MARKED), cell=names[0])
    where = ["precision", "probability"]
    at = list(marked.select(where).iter_rows())
    beside(axes, [f"K = {k}" for k in marked["k"]], at, _dots(means.select("cell", *where)))
    return figure


def calibrated(axes: Axes, low: float, high: float) -> None:
    """The line where predicted and true probability are the same, between these."""
    axes.plot([low, high], [low, high], color="0.75", linewidth=2, zorder=1, label="calibrated")


def theorem(
    axes: Axes, low: float, high: float, sampling_rate: float, beta: float, color: str
) -> None:
    """What training with uniform negatives converges to, for true probabilities between these."""
    # It comes with torch, which a report that shows no calibration need not wait for.
    from negrec.evaluation.calibration import theorem_5_1

    true = np.geomspace(low, min(high, 1.0), _POINTS)
    predicted = theorem_5_1(true, sampling_rate, beta)
    label = f"theorem 5.1, alpha {sampling_rate:.3g}, beta {beta:.3g}"
    axes.plot(true, predicted, color=color, linewidth=0.6, zorder=2, label=label)


def _draw(axes: Axes, means: pl.DataFrame, look: style.Look) -> None:
    axes.plot(means["precision"], means["probability"], **(look.line | {"zorder": 3}))
    marked = means.filter(pl.col("k").is_in(_MARKED))
    axes.plot(marked["precision"], marked["probability"], **(look.marking | {"zorder": 4}))


def _dots(means: pl.DataFrame) -> Floats:
    """Dots along the lines between the points of each cell, as they look on log axes, (n, 2)."""
    parts = []
    for _, cell in means.group_by("cell", maintain_order=True):
        points = cell.drop("cell").to_numpy()
        parts += [np.geomspace(a, b, _DOTS) for a, b in pairwise(points)] or [points]
    return np.concatenate(parts)
