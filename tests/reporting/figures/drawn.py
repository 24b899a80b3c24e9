"""What a test reads back from a figure."""

import numpy as np
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text


def texts(figure: Figure) -> str:
    """All that a reader can read, one piece a line."""
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_text())


def note(figure: Figure) -> str:
    """The small print, on one line."""
    return figure.get_supxlabel().replace("\n", " ")


def line(figure: Figure, label: str) -> Line2D:
    """The only line of this name."""
    (found,) = [each for each in figure.findobj(Line2D) if each.get_label() == label]
    return found


def bars(container: ErrorbarContainer) -> list[np.ndarray]:
    """The error bars of each direction, (n, 2 ends, 2 coordinates)."""
    return [np.array(collection.get_segments()) for collection in container.lines[2]]


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for each in figure.legends for text in each.get_texts()]
