"""Figures as files, and as part of an HTML page."""

from __future__ import annotations

import hashlib
import html
import io
import re
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from negrec.reporting.figures.style import house_style

_DPI = 300
_TAG = re.compile(r"<[^!?>][^>]*>")  # matplotlib escapes ">" inside attributes
_ID = re.compile(r'(\sid="|href="#|url\(#)')


@house_style()
def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes NAME.png (300 dots per inch) and NAME.svg; the same figure gives the same bytes.

    Args:
        figure: to be saved.
        folder: made where it is missing.
        name: of the files, without an ending.

    Returns:
        The two paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    figure.savefig(png, dpi=_DPI, metadata={"Software": None})
    svg.write_text(_svg(figure), encoding="utf-8")
    return [png, svg]


def inline_svg(figure: Figure, name: str = "") -> str:
    """An ``<svg>`` element for an HTML page.

    All its ids begin with the name and a hash of the drawing, so the clip paths and markers of
    several figures on one page do not meet, and its style sheet is for itself alone. Its size is
    that of print; ``svg { max-width: 100%; height: auto }`` fits it to the page.

    Args:
        figure: to be shown.
        name: tells apart two figures on a page that are equal.
    """
    text = _svg(figure)
    text = text[text.index("<svg") :]
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    prefix = f"{re.sub(r'[^a-zA-Z0-9]+', '-', name) or 'figure'}-{digest}"
    text = _TAG.sub(lambda tag: _ID.sub(rf"\g<1>{prefix}-", tag[0]), text)
    # As it stands this rule is for every element of the page.
    text = text.replace(">*{", f">#{prefix} *{{", 1)
    described = html.escape(str(figure.get_label() or name))
    return text.replace("<svg", f'<svg id="{prefix}" role="img" aria-label="{described}"', 1)


@house_style()
def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    figure.savefig(buffer, format="svg", metadata=metadata)
    # Line ends without blanks, as editors and version control want them.
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"
