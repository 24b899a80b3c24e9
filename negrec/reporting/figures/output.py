"""Figures as files, and as part of an HTML page."""

from __future__ import annotations

import hashlib
import html
import io
import re
from dataclasses import dataclass
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from negrec.reporting.figures.style import house_style, settle

_DPI = 300
_QUICK = {"compress_level": 3}  # half the time of the usual 6, a fifth more bytes
_TAG = re.compile(r"<[^!?>][^>]*>")  # matplotlib escapes ">" inside attributes
_ID = re.compile(r'(\sid="|href="#|url\(#)')


@dataclass(frozen=True)
class Drawn:
    """A finished figure.

    Attributes:
        figure: laid out.
        svg: its drawing, a whole file.
    """

    figure: Figure
    svg: str


@house_style()
def drawn(figure: Figure) -> Drawn:
    """Lays a figure out and draws it as SVG, once for all that is made of it."""
    settle(figure)
    buffer = io.StringIO()
    # Straight to the canvas: Figure.savefig would lay it out anew.
    canvas = FigureCanvasSVG(figure)
    canvas.print_svg(buffer, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    # Line ends without blanks, as editors and version control want them.
    text = "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
    return Drawn(figure, text)


@house_style()
def save(drawn: Drawn, folder: Path, name: str) -> list[Path]:
    """Writes NAME.png (300 dots per inch) and NAME.svg; the same figure gives the same bytes.

    Args:
        drawn: to be saved.
        folder: made where it is missing.
        name: of the files, without an ending.

    Returns:
        The two paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    drawn.figure.set_dpi(_DPI)
    canvas, nobody = FigureCanvasAgg(drawn.figure), {"Software": None}
    canvas.print_png(png, metadata=nobody, pil_kwargs=_QUICK)  # type: ignore[no-untyped-call]
    svg.write_text(drawn.svg, encoding="utf-8")
    return [png, svg]


def inline_svg(drawn: Drawn, name: str = "") -> str:
    """An ``<svg>`` element for an HTML page.

    All its ids begin with the name and a hash of the drawing, so the clip paths and markers of
    several figures on one page do not meet, and its style sheet is for itself alone. Its size is
    that of print; ``svg { max-width: 100%; height: auto }`` fits it to the page.

    Args:
        drawn: to be shown.
        name: tells apart two figures on a page that are equal.
    """
    text = drawn.svg[drawn.svg.index("<svg") :]
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    prefix = f"{re.sub(r'[^a-zA-Z0-9]+', '-', name) or 'figure'}-{digest}"
    text = _TAG.sub(lambda tag: _ID.sub(rf"\g<1>{prefix}-", tag[0]), text)
    # As it stands this rule is for every element of the page.
    text = text.replace(">*{", f">#{prefix} *{{", 1)
    described = html.escape(str(drawn.figure.get_label() or name))
    return text.replace("<svg", f'<svg id="{prefix}" role="img" aria-label="{described}"', 1)
