"""How validation rises over epochs and over seconds of training, and where test was looked at."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from negrec.reporting.figures import style
from negrec.reporting.figures.frames import finite, over_seeds, seeds
from negrec.reporting.figures.labels import name_lines, shorten
from negrec.reporting.figures.quantities import quantity

_MARKS = 8  # markers along a line


@style.house_style()
def over_epochs(
    history: pl.DataFrame,
    metric: str,
    chosen: pl.DataFrame | None = None,
    *,
    title: str = "",
    looks: Mapping[str, style.Look] | None = None,
) -> Figure:
    """The validation curve of each cell, with test marked at the chosen epoch and nowhere else.

    As figure 4 of UFNRec (Liu et al., 2022, arXiv:2208.04116), which shows one run.

    Args:
        history: cell, seed, epoch (from 1) and the metric.
        metric: such as "valid/ndcg_10".
        chosen: cell, seed, epoch, value (on test), one row per run; no marks by default.
        title: above the figure.
        looks: of the cells.

    Raises:
        NothingToDraw: no epoch has a value.
    """
    return _curves(history, metric, chosen, "epoch", "Epoch", title, looks)


@style.house_style()
def over_seconds(
    history: pl.DataFrame,
    metric: str,
    chosen: pl.DataFrame | None = None,
    *,
    title: str = "",
    looks: Mapping[str, style.Look] | None = None,
) -> Figure:
    """The same over wall-clock seconds of training; labels tell the seconds of an epoch.

    As figure 4 of GenNi (Chen et al., 2022, arXiv:2208.03645). A point is the mean of an epoch
    over seeds, in time and in value.

    Args:
        history: cell, seed, epoch (from 1), seconds and the metric.
        metric: such as "valid/ndcg_10".
        chosen: cell, seed, epoch, value (on test), one row per run; no marks by default.
        title: above the figure.
        looks: of the cells.

    Raises:
        NothingToDraw: no epoch has a value.
    """
    return _curves(history, metric, chosen, "seconds", "Training time (s)", title, looks)


def _curves(
    history: pl.DataFrame,
    metric: str,
    chosen: pl.DataFrame | None,
    x: str,
    x_label: str,
    title: str,
    given: Mapping[str, style.Look] | None,
) -> Figure:
    evaluated = history.filter(pl.col(metric).is_not_null())
    rows, left_out = finite(evaluated, list({metric, "epoch", x}), "cell")
    without = [name for name in history["cell"].unique() if name not in set(evaluated["cell"])]
    names = list(dict.fromkeys(rows["cell"]))
    looks = style.chosen_looks(names, given)
    shown = shorten(names)
    figure, (axes,) = style.new_figure(style.COLUMN, 2.8, title=title)
    of = quantity(metric.rpartition("/")[2])
    figure.set_label(f"{of.label} over {x_label}")
    axes.set_xlabel(x_label)
    style.label_axis(axes.yaxis, of)
    bands = len(names) <= style.DIRECT
    ends, early = {}, False
    for name in names:
        cell = rows.filter(cell=name)
        ends[name] = draw_mean(axes, cell, x, metric, looks[name], bands)
        early |= cell.group_by("seed").agg(pl.col("epoch").max())["epoch"].n_unique() > 1
    tested = ""
    if chosen is not None:
        # The time until an epoch is history's: a run's own until its best may count validation.
        keys = ["cell", "seed", "epoch"]
        if x not in keys:
            chosen = chosen.select(*keys, "value").join(
                history.select(*keys, x), keys, "left", maintain_order="left"
            )
        tested = _mark_test(axes, chosen.filter(pl.col("cell").is_in(names)), x, looks, bands)
    if x == "seconds":
        speed = rows.group_by("cell").agg((pl.col("seconds") / pl.col("epoch")).mean())
        per_epoch = dict(speed.iter_rows())
        shown = {name: f"{shown[name]}\n{per_epoch[name]:.3g} s/epoch" for name in names}
    n = rows.group_by("cell").agg(pl.col("seed").n_unique())
    name_lines(
        axes,
        ends,
        shown,
        looks,
        "Lines: validation, mean.",
        seeds(n["seed"].to_list(), intervals=bands),
        "" if bands else "Of so many cells no intervals are drawn.",
        "Thin: seeds that went on after another had stopped." if early else "",
        tested,
        left_out,
        f"Never evaluated: {', '.join(sorted(without))}." if without else "",
    )
    return figure


def draw_mean(
    axes: Axes, rows: pl.DataFrame, x: str, metric: str, look: style.Look, band: bool
) -> tuple[float, float]:
    """The mean over seeds with its band, as long as all seeds trained; then each seed alone.

    A mean over the seeds that are left would jump where one stops early.

    Args:
        axes: to draw on.
        rows: of one cell: cell, seed, epoch, x and the metric, numbers only.
        x: "epoch" or "seconds".
        metric: the column.
        look: of the cell.
        band: whether its interval is drawn.

    Returns:
        The line's last point.
    """
    last = rows.group_by("seed").agg(pl.col("epoch").max())["epoch"].min()
    mean = over_seeds(rows, ["epoch"], list({x, metric} - {"epoch"})).sort("epoch")
    line = mean.filter(pl.col("epoch") <= last)
    step = -(-len(line) // _MARKS)
    axes.plot(line[x], line[metric], markevery=step, label=rows["cell"][0], **look.both)
    if band and (line["n"] > 1).any():
        at, low, high = (line[name].to_numpy() for name in (x, f"{metric}_low", f"{metric}_high"))
        axes.fill_between(at, low, high, color=look.color, alpha=0.15, linewidth=0)
    for _, seed in rows.filter(pl.col("epoch") >= last).group_by("seed", maintain_order=True):
        if len(seed) > 1:
            tail = seed.sort("epoch")
            axes.plot(tail[x], tail[metric], alpha=0.6, **(look.line | {"linewidth": 0.5}))
    return line[x][-1], line[metric][-1]


def _mark_test(
    axes: Axes, chosen: pl.DataFrame, x: str, looks: Mapping[str, style.Look], bars: bool
) -> str:
    """One mark per cell: the mean test value at the mean chosen epoch."""
    rows, left_out = finite(chosen, ["value", x], "cell")
    for mark in over_seeds(rows, ["cell"], ["value", x]).iter_rows(named=True):
        arm = mark["value_high"] - mark["value"]
        look = looks[mark["cell"]]
        axes.errorbar(
            mark[x],
            mark["value"],
            yerr=arm if bars and mark["n"] > 1 else None,
            markersize=8 if bars else 6,
            markeredgewidth=1.2,
            elinewidth=1.2,
            zorder=4,
            **(look.marking | {"markerfacecolor": "white"}),
        )
    return f"Large markers: test, only at the epoch chosen on validation (means). {left_out}"
