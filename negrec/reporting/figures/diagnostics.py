"""What the samplers drew, epoch by epoch: every diagnostic as a small panel."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from negrec.reporting.figures import style
from negrec.reporting.figures.curves import draw_mean
from negrec.reporting.figures.frames import finite, seeds
from negrec.reporting.figures.labels import legend, shorten
from negrec.reporting.figures.quantities import quantity

_COLUMNS = 3
_TITLE = 28  # characters of a row


@style.house_style()
def diagnostics(
    history: pl.DataFrame,
    *,
    title: str = "",
    looks: Mapping[str, style.Look] | None = None,
) -> Figure:
    """A panel per metric under diag/, a line per cell: mean over seeds with its band.

    The intervals of single runs (diag/..._low, _high) and the time of measuring are not shown.

    Args:
        history: cell, seed, epoch (from 1) and columns diag/...
        title: above the figure.
        looks: of the cells.

    Raises:
        NothingToDraw: no diagnostic has a value.
    """
    metrics = [
        name
        for name in history.columns
        if name.startswith("diag/")
        and not name.endswith(("_low", "_high", "/seconds"))
        and history[name].cast(pl.Float64).is_finite().any()
    ]
    if not metrics:
        raise style.NothingToDraw("no diag/ metric has a number")
    names = list(dict.fromkeys(history["cell"]))
    looks = style.chosen_looks(names, looks)
    columns = min(_COLUMNS, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, axes = style.new_figure(
        0.4 + 1.8 * columns, 0.6 + 1.45 * rows, rows, columns, title=title, sharex=True
    )
    figure.set_label("Diagnostics of the negatives over epochs")
    bands, missing = len(names) <= style.DIRECT, False
    for i, (each, metric) in enumerate(zip(axes, metrics, strict=False)):
        of = quantity(metric)
        style.label_axis(each.yaxis, of)
        each.set_ylabel("")
        heading = textwrap.fill(of.label, _TITLE)
        each.set_title(heading, loc="left", fontsize=style.SMALL)
        if i + columns >= len(metrics):
            each.set_xlabel("Epoch")
            each.xaxis.set_tick_params(labelbottom=True)
        found, _ = finite(history.filter(pl.col(metric).is_not_null()), [metric, "epoch"], "cell")
        for name in names:
            cell = found.filter(cell=name)
            if len(cell):
                draw_mean(each, cell, "epoch", metric, looks[name], bands)
            else:
                missing = True
    for empty in axes[len(metrics) :]:
        empty.remove()
    shown = shorten(names)
    handles = [Line2D([], [], **looks[name].both) for name in names]
    legend(figure, handles, [shown[name] for name in names])
    n = history.group_by("cell").agg(pl.col("seed").n_unique())["seed"].to_list()
    style.note(
        figure,
        seeds(n, intervals=bands),
        "" if bands else "Of so many cells no intervals are drawn.",
        "A cell without a line in a panel has no such value." if missing else "",
    )
    return figure
