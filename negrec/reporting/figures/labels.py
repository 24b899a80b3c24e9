"""Text beside what it names: shortened, and moved until nothing overlaps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from negrec.reporting.figures.style import DIRECT, EM, GREY, SMALL, Look, note, settle

Floats = NDArray[np.float64]

_WIDTH = 20  # characters of a row
_ROWS = 2
_PARTS = re.compile(r"[^ _/,-]*[ _/,-]?")  # names break behind these signs
_NEAR = 0.75  # of the longest line: how far lines must go to be named where they end
_KEY, _TEXT = 1.06, 1.09  # of the axes: where the marker and the name stand
_GAP = 1.15  # of two rows, in heights
# Where the middle of a label may stand, seen from its point, best first.
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_DISTANCES = (4.0, 9.0, 16.0, 26.0, 38.0)  # points, between what is marked and the label's edge
_AMBIGUOUS = 5.0  # marks that a label may rather hide than stand next to another point


def shorten(names: Sequence[str]) -> dict[str, str]:
    """A label of at most two rows of 20 characters for each name.

    What does not fit is cut out of the middle; names that would look the same are numbered.
    """
    shown: dict[str, str] = {}
    for name in dict.fromkeys(names):
        text, number = _fit(name), 2
        while text in shown.values():
            text, number = f"{_fit(name, room=4)} ({number})", number + 1
        shown[name] = text
    return shown


def _fit(name: str, room: int = 0) -> str:
    """``name`` in two rows, the last of which leaves some room."""
    rows = [""]
    for part in _PARTS.findall(name):
        if len(rows[-1]) + len(part.rstrip()) > _WIDTH:
            rows.append("")
        rows[-1] += part
    rows = [row.strip() for row in rows if row.strip()] or [""]
    fits = len(rows) <= _ROWS and all(len(row) <= _WIDTH for row in rows)
    if fits and len(rows[-1]) + room <= _WIDTH:
        return "\n".join(rows)
    head, tail = _WIDTH, _WIDTH - room
    if len(name) <= head + tail:
        return f"{name[:head]}\n{name[head:]}"
    return f"{name[: head - 1]}…\n{name[-tail:]}"


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Positions in [0, 1], ``gap`` apart, in the order of those wanted, that move the least.

    The least squares: with y_i = position_i - i gap this is isotonic regression, where neighbours
    that would collide are merged and stand around the mean of what they want. Where there is not
    room for all, they go on above 1.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    blocks: list[list[float]] = []  # of positions less their gaps
    for rank, i in enumerate(order):
        blocks.append([wanted[i] - rank * gap])
        while len(blocks) > 1 and np.mean(blocks[-2]) >= np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    highest = max(0.0, 1 - (len(wanted) - 1) * gap)
    placed = [min(max(float(np.mean(block)), 0.0), highest) for block in blocks for _ in block]
    positions = [0.0] * len(wanted)
    for rank, i in enumerate(order):
        positions[i] = placed[rank] + rank * gap
    return positions


def legend(figure: Figure, handles: Sequence[Artist], labels: Sequence[str]) -> None:
    """Beside the axes; the figure grows to the right, and down where the legend needs it.

    Args:
        figure: not settled yet.
        handles: what stands for each cell.
        labels: as shown.
    """
    rows = sum(label.count("\n") + 1 for label in labels)
    longest = max(len(row) for label in labels for row in label.split("\n"))
    width, height = figure.get_size_inches()
    # In points: handle and text; rows and what is between entries.
    wide = SMALL * (5 + EM * longest)
    high = SMALL * (1.25 * rows + 0.5 * len(labels) + 4)
    figure.set_size_inches(width + wide / 72, max(height, high / 72))
    figure.legend(handles, labels, loc="outside right upper", labelspacing=0.5, borderaxespad=0.2)


def name_lines(
    axes: Axes,
    ends: Mapping[str, tuple[float, float]],
    shown: Mapping[str, str],
    looks: Mapping[str, Look],
    *sentences: str,
) -> None:
    """Names each line where it ends, or all in a legend; then the note.

    The legend is for many lines, and for those that end far from the right.

    Args:
        axes: the only ones of their figure, complete but for this.
        ends: last point of each cell's line, in data coordinates.
        shown: label of each cell.
        looks: of each cell.
        sentences: of the note.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    start, last = axes.get_xlim()[0], max(x for x, _ in ends.values())
    near = [x - start > _NEAR * (last - start) for x, _ in ends.values()]
    direct = len(ends) <= DIRECT and all(near)
    if not direct:
        legend(figure, [Line2D([], [], **looks[n].both) for n in ends], [shown[n] for n in ends])
    note(figure, *sentences)
    if direct:
        at_ends(axes, [shown[n] for n in ends], list(ends.values()), [looks[n] for n in ends])


def at_ends(
    axes: Axes, names: Sequence[str], ends: Sequence[tuple[float, float]], looks: Sequence[Look]
) -> None:
    """Names lines to the right of the axes, at the height where each ends.

    Labels that would touch are moved apart; a thin line leads from each to its end.

    Args:
        axes: whose limits are final.
        names: as shown.
        ends: last points of the lines, in data coordinates.
        looks: of the lines.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    labels = [
        axes.annotate(
            name,
            end,
            xytext=(_TEXT, 0.5),
            textcoords="axes fraction",
            fontsize=SMALL,
            va="center",
            linespacing=1.1,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": look.color,
                "linewidth": 0.5,
                "relpos": (0, 0.5),
                "shrinkA": 4,
                "shrinkB": 2,
            },
        )
        for name, end, look in zip(names, ends, looks, strict=True)
    ]
    settle(figure)
    frame = axes.get_window_extent()
    heights = [_text_box(label).height / frame.height for label in labels]
    wanted = [
        float(axes.transAxes.inverted().transform(axes.transData.transform(end))[1]) for end in ends
    ]
    places = spread(wanted, _GAP * max(heights))
    for label, look, y in zip(labels, looks, places, strict=True):
        label.set_position((_TEXT, y))
        # The line's own marker beside its name: a thin leader alone is hard to follow.
        axes.plot(_KEY, y, transform=axes.transAxes, clip_on=False, **look.marking)


def beside(
    axes: Axes, names: Sequence[str], points: Sequence[tuple[float, float]], marks: Floats
) -> list[Annotation]:
    """Names points where there is room beside them.

    One label after the other, each where it hides the least of what is drawn and of the labels
    before it, near its point if it can be; a label that is not next to its point has a thin line.

    Args:
        axes: whose limits are final.
        names: as shown.
        points: in data coordinates.
        marks: what should stay visible (points, dots along lines), (n, 2), data coordinates.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    settle(figure)
    drawn: Floats = axes.transData.transform(marks)
    own: Floats = axes.transData.transform(np.array(points).reshape(-1, 2))
    frame = axes.get_window_extent()
    point = figure.dpi / 72
    taken: list[Bbox] = []
    labels = []
    for i, name in enumerate(names):
        label = axes.annotate(
            name,
            points[i],
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=SMALL,
            ha="center",
            va="center",
            linespacing=1.1,
            arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0},
        )
        size = _text_box(label)
        costs: list[tuple[float, int, float, Bbox]] = []
        for distance in _DISTANCES:
            for side in _SIDES:
                half = np.array([size.width / 2, size.height / 2])
                # On the diagonal it is the label's corner that is near.
                away = distance * point * (1 if 0 in side else 0.7)
                middle = own[i] + np.array(side) * (half + away)
                box = Bbox([middle - half, middle + half])
                cost = _hidden(box, drawn, taken, frame) + 0.05 * distance
                if _nearest(box, own) != i:
                    cost += _AMBIGUOUS
                costs.append((cost, len(costs), distance, box))
        _, _, distance, box = min(costs)
        middle = np.mean([box.min, box.max], axis=0)
        label.set_position(tuple((middle - own[i]) / point))
        if distance <= _DISTANCES[1]:
            assert label.arrow_patch is not None
            label.arrow_patch.set_visible(False)
        taken.append(box)
        labels.append(label)
    return labels


def _text_box(label: Annotation) -> Bbox:
    """Of the text alone, without its line, in pixels."""
    label.update_positions(label.get_figure(root=True).canvas.get_renderer())  # type: ignore
    return Text.get_window_extent(label)


def _hidden(box: Bbox, drawn: Floats, taken: Sequence[Bbox], frame: Bbox) -> float:
    """How much is under a label: marks, other labels (worse), what lies outside the frame."""
    low, high = np.array(box.min), np.array(box.max)
    marks = ((drawn > low - 1) & (drawn < high + 1)).all(axis=1).sum()
    overlaps = sum(10 + 20 * share for other in taken if (share := _share(box, other)) > 0)
    outside = 1 - _share(box, frame)
    return float(marks + overlaps + 20 * outside)


def _nearest(box: Bbox, points: Floats) -> int:
    """Which point a reader would take a label for."""
    outside = np.maximum(np.maximum(box.min - points, points - box.max), 0)
    return int(np.argmin((outside**2).sum(1)))


def _share(box: Bbox, other: Bbox) -> float:
    """Of ``box`` that ``other`` covers."""
    common = Bbox.intersection(box, other)
    return 0.0 if common is None else common.width * common.height / (box.width * box.height)
