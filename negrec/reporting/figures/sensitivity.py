"""How much one setting matters: a metric over the values that were swept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from negrec.reporting.figures import style
from negrec.reporting.figures.frames import finite, over_seeds, seeds
from negrec.reporting.figures.labels import legend, name_lines, shorten
from negrec.reporting.figures.quantities import quantity

_TICKS = 8  # so many values are all named on the axis
_PER_ROW = 3  # panels


@style.house_style()
def sensitivity(
    runs: pl.DataFrame,
    knob: str,
    metric: str,
    *,
    by: str = "sampler",
    title: str = "",
    looks: Mapping[str, style.Look] | None = None,
) -> Figure:
    """The mean with its 95% interval at each value of a knob, one line per sampler.

    As figures 5 to 8, 10 and 11 of GenNi (Chen et al., 2022, arXiv:2208.03645) and figure 3 of
    UFNRec (Liu et al., 2022, arXiv:2208.04116), which have no intervals. The axis is logarithmic
    where the values span more than two decades; a value of 0 then stands in a linear part below
    the smallest other one.

    Args:
        runs: seed, the knob (numbers), the metric and ``by``.
        knob: the setting that was swept.
        metric: such as "test/ndcg_10".
        by: the column that decides the line.
        title: above the figure.
        looks: of the values of ``by``.

    Raises:
        NothingToDraw: no run has both values.
    """
    means, left_out = _means(runs, [by, knob], metric)
    names = list(dict.fromkeys(means[by]))
    looks = style.chosen_looks(names, looks)
    figure, (axes,) = style.new_figure(style.COLUMN, 2.6, title=title)
    of_x, of_y = quantity(knob), quantity(metric)
    figure.set_label(f"{of_y.label} over {of_x.label}")
    style.label_axis(axes.yaxis, of_y)
    ends = {
        name: _draw(axes, means.filter(pl.col(by) == name), knob, metric, looks[name])
        for name in names
    }
    style.label_axis(axes.xaxis, of_x)
    _scale(axes, sorted(set(means[knob])))
    sentences = seeds(means["n"].to_list(), "point"), left_out
    name_lines(axes, ends, shorten(names), looks, *sentences)
    return figure


@style.house_style()
def panels(
    runs: pl.DataFrame,
    metric: str,
    knob: str = "k",
    *,
    by: str = "loss",
    panel: str = "model",
    title: str = "",
    looks: Mapping[str, style.Look] | None = None,
) -> Figure:
    """A panel per model, a line per loss, over the number of negatives on a log2 axis.

    As figure 4 of gSASRec (Petrov & Macdonald, 2023, arXiv:2308.07192), with 95% intervals.

    Args:
        runs: seed, the knob (numbers above 0), the metric, ``by`` and ``panel``.
        metric: such as "test/ndcg_10".
        knob: along the axis.
        by: the column that decides the line.
        panel: the column that decides the panel.
        title: above the figure.
        looks: of the values of ``by``.

    Raises:
        NothingToDraw: no run has both values.
        ValueError: a value of the knob that is not above 0.
    """
    means, left_out = _means(runs, [panel, by, knob], metric)
    if (lowest := min(means[knob])) <= 0:
        raise ValueError(f"{knob} must be above 0 on a log axis, got {lowest}")
    names, titles = (list(dict.fromkeys(means[column])) for column in (by, panel))
    looks = style.chosen_looks(names, looks)
    columns = min(len(titles), _PER_ROW)
    rows = -(-len(titles) // columns)
    width = style.COLUMN if columns == 1 else style.PAGE - 1.2
    figure, axes = style.new_figure(
        width, 0.6 + 1.9 * rows, rows, columns, title=title, sharex=True, sharey=True
    )
    of_x, of_y = quantity(knob), quantity(metric)
    figure.set_label(f"{of_y.label} over {of_x.label}, by {panel} and {by}")
    values = sorted(set(means[knob]))
    for i, (each, name) in enumerate(zip(axes, titles, strict=False)):
        each.set_title(shorten([name])[name], loc="left")
        for line in names:
            rows_of = means.filter((pl.col(panel) == name) & (pl.col(by) == line))
            if len(rows_of):
                _draw(each, rows_of, knob, metric, looks[line])
        each.set_xscale("log", base=2)
        if i % columns == 0:
            style.label_axis(each.yaxis, of_y)
        if i + columns >= len(titles):
            each.set_xlabel(of_x.label)
            each.xaxis.set_tick_params(labelbottom=True)
        _name_values(each, values)
    for empty in axes[len(titles) :]:
        empty.remove()
    shown = shorten(names)
    handles = [Line2D([], [], **looks[name].both) for name in names]
    legend(figure, handles, [shown[name] for name in names])
    style.note(figure, seeds(means["n"].to_list(), "point"), left_out)
    return figure


def _means(runs: pl.DataFrame, by: Sequence[str], metric: str) -> tuple[pl.DataFrame, str]:
    """Over seeds, sorted by the knob, the last of ``by``; lines in order of appearance."""
    *names, knob = by
    runs = runs.with_columns(pl.col(names).cast(pl.String))
    rows, left_out = finite(runs, [knob, metric], names[-1])
    return over_seeds(rows, by, [metric]).sort(knob, maintain_order=True), left_out


def _draw(
    axes: Axes, means: pl.DataFrame, knob: str, metric: str, look: style.Look
) -> tuple[float, float]:
    """A line with its intervals; its last point."""
    arms = (means[f"{metric}_high"] - means[metric]).to_numpy()
    some = bool((means["n"] > 1).any())
    axes.errorbar(
        means[knob], means[metric], yerr=arms if some else None, elinewidth=0.8, **look.both
    )
    return means[knob][-1], means[metric][-1]


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Of the x axis, by what was swept."""
    positive = [value for value in values if value > 0]
    if positive and values[0] >= 0 and positive[-1] / positive[0] > style.SPANS:
        if values[0] == 0:
            axes.set_xscale("symlog", linthresh=positive[0])
        else:
            axes.set_xscale("log")
    _name_values(axes, values)


def _name_values(axes: Axes, values: Sequence[float]) -> None:
    """A tick at each value, where they are few."""
    if len(values) <= _TICKS:
        axes.xaxis.set_major_locator(FixedLocator(list(values)))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
