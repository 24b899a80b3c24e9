"""How interactions are spread over items: a few are taken by many, most by few."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from negrec.evaluation.cohorts import COHORTS, popularity_cohorts
from negrec.reporting.figures import style
from negrec.reporting.figures.labels import legend, shorten

Counts = NDArray[np.int64]
_POINTS = 400  # of a curve, evenly spaced on a log axis


@style.house_style()
def popularity(panels: Mapping[str, Counts], *, title: str = "") -> Figure:
    """Training count over rank, on log axes, in the colours of the cohorts.

    Args:
        panels: name -> training interactions of each item, (V,); panels stand side by side.
        title: above the figure.

    Raises:
        NothingToDraw: no item has an interaction.
    """
    if not any(counts.any() for counts in panels.values()):
        raise style.NothingToDraw("no item with a training interaction")
    width = style.COLUMN if len(panels) == 1 else style.PAGE
    figure, axes = style.new_figure(
        width, 2.9, columns=len(panels), title=title, sharex=True, sharey=True
    )
    figure.set_label("Training interactions of each item over its rank")
    unseen = []
    for panel, (name, counts) in zip(axes, panels.items(), strict=True):
        _draw_cohorts(panel, counts)
        panel.set(title=name, xlabel="Item, by rank")
        zeros = int((counts == 0).sum())
        unseen.append(f"{zeros:,} of {len(counts):,} ({name})" if zeros else "")
    axes[0].set_ylabel("Training interactions")
    for axis in (axes[0].xaxis, axes[0].yaxis):
        style.log_axis(axis)
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
    style.note(
        figure,
        "Items by training interactions; each cohort holds about a third of them.",
        f"Not drawn, without any: {', '.join(filter(None, unseen))}." if any(unseen) else "",
    )
    return figure


def _draw_cohorts(axes: Axes, counts: Counts) -> None:
    order = np.argsort(-counts, kind="stable")
    ordered, cohort = counts[order], popularity_cohorts(counts)[order]
    looks = style.looks(COHORTS)
    for index, name in enumerate(COHORTS):
        inside = np.flatnonzero(cohort == index)
        drawn = inside[ordered[inside] > 0]
        label = f"{name}: {len(inside):,} items, {_percent(len(inside) / len(counts))}"
        if not len(drawn):
            axes.plot([], [], label=label, **looks[name].line)
            continue
        ranks = _thinned(int(drawn[0]) + 1, int(drawn[-1]) + 1)
        look = looks[name].line | {"linewidth": 2}
        if len(ranks) == 1:  # no line
            look |= {"marker": "o", "markersize": 3}
        axes.plot(ranks, ordered[ranks - 1], label=label, **look)
        if index:
            axes.axvline(drawn[0] + 0.5, color="0.6", linewidth=0.6, zorder=1)
    # A curve that falls leaves the corner below it free.
    axes.legend(loc="lower left")


@style.house_style()
def popularity_overlaid(
    curves: Mapping[str, Counts],
    *,
    counted: str = "",
    title: str = "",
    looks: Mapping[str, style.Look] | None = None,
) -> Figure:
    """Several data sets: an item's share of the interactions over its rank as a share of items.

    On the left a semi-log plot as in figure 3 of Prakash et al. (2024, arXiv:2410.17276), on the
    right the same cumulated: the share of the interactions that the most popular items hold.

    Args:
        curves: data set -> training interactions of each item, (V,).
        counted: a sentence on which interactions these are.
        title: above the figure.
        looks: of the data sets.

    Raises:
        NothingToDraw: no item has an interaction.
    """
    drawn = {name: counts for name, counts in curves.items() if counts.any()}
    if not drawn:
        raise style.NothingToDraw("no item with a training interaction")
    looks = style.chosen_looks(list(drawn), looks)
    figure, (single, cumulated) = style.new_figure(style.PAGE, 2.9, columns=2, title=title)
    figure.set_label("Popularity of items in several data sets")
    handles = []
    for name, counts in drawn.items():
        share = np.sort(counts)[::-1] / counts.sum()
        n = len(share)
        # Evenly spaced here, and where the curve is steep, near 0.
        ranks = np.union1d(_thinned(1, n), np.linspace(1, n, _POINTS).round().astype(np.int64))
        taken = ranks[share[ranks - 1] > 0]
        (line,) = single.plot(taken / n, share[taken - 1], **looks[name].line)
        total = np.concatenate([[0.0], share.cumsum()])
        ranks = np.append(0, ranks)
        cumulated.plot(ranks / n, total[ranks], **looks[name].line)
        handles.append(line)
    for axes in (single, cumulated):
        axes.set_xlabel("Items, most popular first (% of the catalogue)")
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}"))
    single.set_yscale("log")
    single.yaxis.set_major_locator(LogLocator(base=10))
    single.yaxis.set_minor_formatter(NullFormatter())
    single.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}"))
    single.set_ylabel("Interactions of an item (% of all)")
    cumulated.set_ylim(0, 1)
    cumulated.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}"))
    cumulated.set_ylabel("Interactions of these items (% of all)")
    for level in (1 / 3, 2 / 3):
        cumulated.axhline(level, color="0.6", linewidth=0.6, zorder=1)
    shown = shorten(list(drawn))
    legend(figure, handles, [shown[name] for name in drawn])
    style.note(
        figure,
        counted,
        "Grey lines: where head ends and where tail begins.",
    )
    return figure


def _thinned(first: int, last: int) -> Counts:
    """Ranks from ``first`` to ``last``, as many as can be told apart on a log axis."""
    return np.unique(np.geomspace(first, last, _POINTS).round().astype(np.int64))


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 0.1 else f"{100 * share:.0f}%"
