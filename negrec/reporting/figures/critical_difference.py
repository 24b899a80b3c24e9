"""Methods ranked over data sets, and which of them do not differ."""

from __future__ import annotations

from matplotlib.figure import Figure

from negrec.reporting.figures import style
from negrec.reporting.figures.labels import shorten
from negrec.reporting.significance import CriticalDifference

_ROW = 0.22  # inches


@style.house_style()
def critical_difference(result: CriticalDifference, *, title: str = "") -> Figure:
    """Demsar's diagram (2006, JMLR 7, figure 1): mean ranks, joined where they do not differ.

    Args:
        result: of ``significance.critical_difference``.
        title: above the figure.
    """
    m, shown = len(result.names), shorten(result.names)
    left = (m + 1) // 2  # the better half is named on the left
    groups = 0.5 * len(result.groups)  # rows, as all heights
    depth = groups + max(left, m - left) + 0.6
    figure, (axes,) = style.new_figure(1.7 * style.COLUMN, 0.7 + _ROW * (depth + 2.2), title=title)
    figure.set_label("Mean ranks with the critical difference")
    axes.set_axis_off()
    axes.grid(False)
    # Beside the scale, where the lines to the names turn.
    margin = 0.06 * (m - 1)
    axes.set(xlim=(1 - 2 * margin, m + 2 * margin), ylim=(-depth, 2.2))
    axes.plot([1, m], [0, 0], color="k", linewidth=0.8)
    for tick in range(1, m + 1):
        axes.plot([tick, tick], [0, 0.25], color="k", linewidth=0.8)
        axes.text(tick, 0.4, str(tick), ha="center", va="bottom", fontsize=style.SMALL)
    axes.plot([1, 1 + result.cd], [1.7, 1.7], color="k", linewidth=1.2, marker="|", label="CD")
    axes.text(
        1 + result.cd / 2,
        1.8,
        f"CD = {result.cd:.2f}",
        ha="center",
        va="bottom",
        fontsize=style.SMALL,
    )
    for i, (name, rank) in enumerate(zip(result.names, result.mean_ranks, strict=True)):
        on_left = i < left
        height = -(groups + 0.9 + (i if on_left else m - 1 - i))
        end = 1 - margin if on_left else m + margin
        axes.plot([rank, rank, end], [0, height, height], color="k", linewidth=0.7, label=name)
        axes.text(
            end,
            height,
            f" {shown[name]} ({rank:.2f}) ",
            ha="right" if on_left else "left",
            va="center",
            fontsize=style.FONT,
        )
    rank_of = dict(zip(result.names, result.mean_ranks, strict=True))
    for i, group in enumerate(result.groups):
        ranks = [rank_of[name] for name in group]
        height, ear = -0.5 * (i + 1), 0.03
        axes.plot(
            [min(ranks) - ear, max(ranks) + ear],
            [height, height],
            color="k",
            linewidth=3,
            solid_capstyle="butt",
            label=f"group {i + 1}",
        )
    style.note(
        figure,
        f"Mean ranks over n = {result.n} data sets, 1 is the best. Methods under a thick line do "
        f"not differ at 5% (Nemenyi); Friedman's test: p = {result.p:.2g}.",
    )
    return figure
