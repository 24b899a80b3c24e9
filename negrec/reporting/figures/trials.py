"""Every trial of a tuning as a point."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from negrec.reporting.figures import style
from negrec.reporting.figures.frames import finite
from negrec.reporting.figures.labels import legend, shorten
from negrec.reporting.figures.quantities import quantity

_GOLDEN = 0.6180339887  # its multiples, modulo 1, fill an interval evenly
_JITTER = 0.6  # width that the points of a category are spread over


@style.house_style()
def trials(
    runs: pl.DataFrame,
    knob: str,
    metric: str,
    *,
    by: str = "sampler",
    title: str = "",
    looks: Mapping[str, style.Look] | None = None,
) -> Figure:
    """One point per trial, the best of each sampler large and black-edged.

    As figure 5 of Prakash et al. (2024, arXiv:2410.17276): the learning rate against NDCG@10 on
    validation. A tuning chooses on validation, so that is the metric to show.

    Args:
        runs: the knob, the metric and ``by``; one row per trial.
        knob: the setting that was varied: numbers (a log axis from two decades on) or text, whose
            points are spread sideways.
        metric: such as "valid/ndcg_10" or "best/value".
        by: the column that decides the marker.
        title: above the figure.
        looks: of the values of ``by``.

    Raises:
        NothingToDraw: no trial has both values.
    """
    numeric = runs[knob].dtype.is_numeric()
    runs = runs.with_columns(pl.col(by).cast(pl.String))
    rows, left_out = finite(runs, [knob, metric] if numeric else [metric], by)
    names = list(dict.fromkeys(rows[by]))
    looks = style.chosen_looks(names, looks)
    of_x, of_y = quantity(knob), quantity(metric)
    figure, (axes,) = style.new_figure(style.COLUMN, 2.8, title=title)
    figure.set_label(f"{of_y.label} of every trial, by {of_x.label}")
    style.label_axis(axes.yaxis, of_y)
    if numeric:
        rows = rows.with_columns(x=pl.col(knob))
    else:
        rows = rows.with_columns(pl.col(knob).cast(pl.String).fill_null("none"))
        values = list(dict.fromkeys(rows[knob]))
        rows = _in_categories(rows, knob, values)
        axes.set_xticks(range(len(values)), [shorten(values)[value] for value in values])
        if len(values) > 3:
            axes.tick_params(axis="x", rotation=30, rotation_mode="xtick")
    handles = []
    for name in names:
        of, look = rows.filter(pl.col(by) == name), looks[name]
        axes.plot(of["x"], of[metric], alpha=0.75, **look.marking)
        best = of.sort(metric, descending=of_y.better == "high", maintain_order=True).row(
            0, named=True
        )
        axes.plot(
            best["x"], best[metric], **(look.marking | {"markersize": 8, "markeredgecolor": "k"})
        )
        handles.append(Line2D([], [], **look.marking))
    style.label_axis(axes.xaxis, of_x)
    lowest, highest = min(rows["x"]), max(rows["x"])
    if numeric and lowest > 0 and highest / lowest > style.SPANS:
        style.log_axis(axes.xaxis)
    counts = [len(rows.filter(pl.col(by) == name)) for name in names]
    shown = shorten(names)
    legend(
        figure,
        handles,
        [f"{shown[name]} (n = {n})" for name, n in zip(names, counts, strict=True)],
    )
    style.note(
        figure,
        f"n = {len(rows)} trials; large: the best of each.",
        "They were tuned with different numbers of trials." if len(set(counts)) > 1 else "",
        left_out,
    )
    return figure


def _in_categories(rows: pl.DataFrame, knob: str, values: list[str]) -> pl.DataFrame:
    """With x: the number of the category, and a step aside that differs from point to point."""
    category = pl.col(knob).replace_strict(values, range(len(values)), return_dtype=pl.Float64)
    nth = pl.int_range(pl.len()).over(knob)
    return rows.with_columns(x=category + ((nth * _GOLDEN + 0.5) % 1 - 0.5) * _JITTER)
