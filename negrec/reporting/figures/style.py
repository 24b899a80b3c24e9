"""What all figures have in common: sizes, fonts, and how cells are told apart."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
)

from negrec.reporting.figures.quantities import Quantity

COLUMN = 3.5  # inches: the column of a two-column page
PAGE = 7.1  # inches: both columns
FONT = 8.0  # points
SMALL = 7.0  # points: ticks, labels of points, notes
EM = 0.56  # mean width of a character of DejaVu Sans, in font sizes
GREY = "0.45"
SPANS = 100  # highest over lowest value above which a setting has a log axis
DIRECT = 8  # so many cells are labelled in the plot; more have a legend outside

# Okabe and Ito (2008), without the yellow that white paper swallows.
_COLORS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "*")
_DASHES: tuple[tuple[float, ...], ...] = (
    (),
    (5, 1.5),
    (1.2, 1.2),
    (5, 1.5, 1.2, 1.5),
    (9, 2),
    (3, 1.2, 1.2, 1.2, 1.2, 1.2),
)
_SETTINGS: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same on every machine
    "font.size": FONT,
    "axes.labelsize": FONT,
    "axes.titlesize": FONT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 3.2,  # a whole period of the longest dashes
    "lines.linewidth": 1.3,
    "lines.markersize": 4.5,
    "lines.dash_capstyle": "butt",
    "errorbar.capsize": 2.0,
    "text.parse_math": False,  # a "$" in a label is a "$"
    "figure.dpi": 100,
    "svg.fonttype": "none",  # text stays text: small files, found by a search, read aloud
    "svg.hashsalt": "negrec",  # the same figure gives the same bytes
}


class NothingToDraw(ValueError):  # noqa: N818 - it reads as a sentence where it is caught
    """No value is left that a figure could show; the message says of what."""


@contextmanager
def house_style() -> Iterator[None]:
    """The settings of all figures, whatever the user's matplotlibrc says; also a decorator."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


@dataclass(frozen=True, slots=True)
class Look:
    """How a cell is drawn. Marker and line tell cells apart without colour.

    Attributes:
        color: safe for the colour-blind, of a lightness that shows on white.
        marker: matplotlib's.
        filled: whether the marker is.
        dashes: of the line, in line widths; () is solid.
    """

    color: str
    marker: str
    filled: bool
    dashes: tuple[float, ...]

    @property
    def face(self) -> str:
        """Colour of the marker's inside."""
        return self.color if self.filled else "white"

    @property
    def marking(self) -> dict[str, Any]:
        """Arguments of a plot that draws markers alone."""
        return {
            "marker": self.marker,
            "color": self.color,
            "markerfacecolor": self.face,
            "linestyle": "none",
        }

    @property
    def line(self) -> dict[str, Any]:
        """Arguments of a plot that draws a line alone."""
        return {"color": self.color, "linestyle": (0, self.dashes) if self.dashes else "-"}

    @property
    def both(self) -> dict[str, Any]:
        """Arguments of a plot that draws a line with markers."""
        return self.marking | self.line


def looks(names: Sequence[str]) -> dict[str, Look]:
    """A look for each name, in their order; all differ in marker or filling up to 20 names."""
    return {
        name: Look(
            _COLORS[i % len(_COLORS)],
            _MARKERS[i % len(_MARKERS)],
            filled=i // len(_MARKERS) % 2 == 0,
            dashes=_DASHES[i % len(_DASHES)],
        )
        for i, name in enumerate(dict.fromkeys(names))
    }


def chosen_looks(names: Sequence[str], given: Mapping[str, Look] | None) -> Mapping[str, Look]:
    """Those given, or new ones.

    Raises:
        ValueError: a name without a look.
    """
    if given is None:
        return looks(names)
    if missing := [name for name in names if name not in given]:
        raise ValueError(f"looks has none for {missing}")
    return given


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, title: str = "", **subplots: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with its axes, row by row.

    Args:
        width: inches.
        height: inches.
        rows: of axes.
        columns: of axes.
        title: of the figure.
        subplots: what else ``Figure.subplots`` takes.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)  # measures text
    axes = figure.subplots(rows, columns, squeeze=False, **subplots)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=FONT, fontweight="bold")
    return figure, list(axes.flat)


def note(figure: Figure, *sentences: str) -> None:
    """Small print below the figure: what n is, what is left out. Empty sentences are none."""
    width, _ = figure.get_size_inches()
    characters = int(72 * width / (EM * SMALL))
    text = textwrap.fill(" ".join(filter(None, sentences)), characters)
    figure.supxlabel(text, x=0.01, ha="left", fontsize=SMALL, color="0.25")


def settle(figure: Figure) -> None:
    """Lays the figure out, so that what is measured now stays where it is; once is enough."""
    engine = figure.get_layout_engine()
    if engine is None or isinstance(engine, PlaceHolderLayoutEngine):
        return
    engine.execute(figure)
    figure.set_layout_engine("none")


def label_axis(axis: Axis, quantity: Quantity) -> None:
    """Names a quantity with its unit; the numbers stand in that unit."""
    axis.set_label_text(quantity.label)
    if quantity.percent:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.6g}"))


def log_axis(axis: Axis) -> None:
    """Makes an axis logarithmic, with plain numbers at round values."""
    scale = axis.axes.set_xscale if axis is axis.axes.xaxis else axis.axes.set_yscale
    scale("log")
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    if decades > 2:
        axis.set_major_locator(LogLocator(base=10))
    elif decades > 0.5:
        axis.set_major_locator(LogLocator(base=10, subs=(1.0, 2.0, 5.0)))
    else:
        axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.6g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())
