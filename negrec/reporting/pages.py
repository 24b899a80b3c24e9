"""A report as files: one HTML page, the same as Markdown, and tables for LaTeX."""

from __future__ import annotations

from collections import Counter
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from negrec.reporting import grid, verdict, wording
from negrec.reporting.glossary import GLOSSARY
from negrec.reporting.sections import Format

if TYPE_CHECKING:
    from negrec.reporting.report import Report


def write(report: Report, folder: Path, formats: Format) -> None:
    """Writes the files of a report, but for those of its figures."""
    if formats in ("html", "all"):
        (folder / "report.html").write_text(html(report), encoding="utf-8")
    if formats in ("md", "all"):
        (folder / "report.md").write_text(markdown(report), encoding="utf-8")
    if formats in ("latex", "all"):
        (folder / "tables").mkdir()
        for section in report.sections:
            tables = [
                *(("table", table) for table in section.tables),
                *(("equal-seconds", table) for table in [section.equal_seconds] if table),
                *(("statistics", table) for table in section.statistics),
                *(("reported", table) for table in [section.reported] if table),
            ]
            counted = Counter(kind for kind, _ in tables)
            at: Counter[str] = Counter()
            for kind, table in tables:
                at[kind] += 1
                number = f"-{at[kind]}" if counted[kind] > 1 else ""
                name = f"{section.anchor}-{kind}{number}"
                text = grid.latex(table, f"tab:{name}")
                (folder / "tables" / f"{name}.tex").write_text(text, encoding="utf-8")


def html(report: Report) -> str:
    """The page, in one piece."""
    return _rendered("report.html", report)


def markdown(report: Report) -> str:
    """The same as Markdown, with figures as files beside it."""
    return _rendered("report.md", report)


def _rendered(name: str, report: Report) -> str:
    from jinja2 import DictLoader, Environment, StrictUndefined, select_autoescape
    from markupsafe import Markup

    templates = resources.files("negrec.reporting") / "templates"
    sources = {
        path.name: path.read_text(encoding="utf-8")
        for path in templates.iterdir()
        if path.name.endswith((".html", ".md", ".css"))
    }
    environment = Environment(
        loader=DictLoader(sources),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["markdown_table"] = grid.markdown
    environment.filters["plain"] = grid.plain
    environment.filters["percent"] = wording.percent
    environment.filters["p_value"] = wording.p_value
    environment.filters["negatives"] = wording.negatives
    environment.filters["svg"] = Markup  # of our own figures, whose texts are escaped
    return environment.get_template(name).render(
        report=report, glossary=GLOSSARY, rule=verdict.RULE, style=Markup(sources["report.css"])
    )
