"""One table, written as Markdown, LaTeX, HTML (by the report's template) or for a terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Literal, Self

from negrec.reporting import wording

if TYPE_CHECKING:
    from rich.table import Table

DAGGER = "†"
_LATEX = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "†": r"$^\dagger$",
    "–": "--",
    "Δ": r"$\Delta$",
}


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        head: its name.
        group: what it shares a head with its neighbours by; "" for none.
        align: of its entries.
    """

    head: str
    group: str = ""
    align: Literal["left", "right"] = "right"

    @property
    def name(self) -> str:
        """Group and head."""
        return f"{self.group} {self.head}".strip()


@dataclass(frozen=True)
class Entry:
    """What stands in a row and a column.

    Attributes:
        text: the value, as it is shown.
        spread: what follows it in small letters, such as "± 0.12".
        best: set in bold.
        mark: a sign that the notes explain.
    """

    text: str = ""
    spread: str = ""
    best: bool = False
    mark: str = ""

    @classmethod
    def percent(
        cls, value: float, sd: float = math.nan, best: bool = False, mark: str = ""
    ) -> Self:
        """A fraction in percent, with its standard deviation where there is one."""
        spread = "" if math.isnan(sd) else f"± {wording.percent(sd)}"
        return cls(wording.percent(value), spread, best, mark)


@dataclass(frozen=True)
class Row:
    """Entries, one per column.

    Attributes:
        entries: one per column.
        begins: whether a line separates it from the row above.
        quiet: whether it is set back: not one of those that are ranked.
    """

    entries: tuple[Entry, ...]
    begins: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        title: above it.
        columns: at least one.
        rows: each with as many entries as there are columns.
        notes: below it.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.entries) != len(self.columns):
                raise ValueError(f"{len(row.entries)} entries for {len(self.columns)} columns")

    def only(self, names: Collection[str]) -> Grid:
        """The columns of these names (group and head)."""
        keep = [i for i, column in enumerate(self.columns) if column.name in names]
        return replace(
            self,
            columns=tuple(self.columns[i] for i in keep),
            rows=tuple(
                replace(row, entries=tuple(row.entries[i] for i in keep)) for row in self.rows
            ),
        )

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Heads of groups in order, each with the number of its columns."""
        return [(name, len([*some])) for name, some in groupby(self.columns, lambda c: c.group)]


def markdown(grid: Grid) -> str:
    """A table in GitHub's Markdown, with its title and notes."""

    def line(texts: list[str]) -> str:
        return f"| {' | '.join(texts)} |\n"

    rules = {"left": ":---", "right": "---:"}
    text = f"**{plain(grid.title)}**\n\n" if grid.title else ""
    text += line([plain(column.name) for column in grid.columns])
    text += line([rules[column.align] for column in grid.columns])
    for row in grid.rows:
        shown = []
        for entry in row.entries:
            value = plain(entry.text)
            value = f"**{value}**" if entry.best else f"*{value}*" if row.quiet and value else value
            shown.append(f"{value}{entry.mark} {plain(entry.spread)}".strip())
        text += line(shown)
    notes = "".join(f"\n{plain(note)}\n" for note in grid.notes)
    return text + notes


def plain(text: str) -> str:
    """No sign of a text ends a cell or begins emphasis or markup."""
    return re.sub(r"([\\|*_`<\[\]])", r"\\\1", text.replace("\n", " "))


def latex(grid: Grid, label: str) -> str:
    r"""A ``table`` with booktabs (``\usepackage{booktabs}``), as wide as its page at the most.

    Args:
        grid: the table.
        label: for ``\ref``.
    """
    spec = "".join("l" if column.align == "left" else "r" for column in grid.columns)
    lines = ["% \\usepackage{booktabs,graphicx}", r"\begin{table}", r"\centering"]
    lines += [rf"\caption{{{escape(grid.title)}}}", rf"\label{{{label}}}"]
    lines += [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"]
    lines += [rf"\begin{{tabular}}{{{spec}}}", r"\toprule"]
    if any(name for name, _ in grid.groups):
        heads, rules, at = [], [], 1
        for name, span in grid.groups:
            heads.append(rf"\multicolumn{{{span}}}{{c}}{{{escape(name)}}}")
            if name:
                rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
            at += span
        lines += [" & ".join(heads) + r" \\", " ".join(rules)]
    lines += [" & ".join(escape(column.head) for column in grid.columns) + r" \\", r"\midrule"]
    for row in grid.rows:
        if row.begins:
            lines.append(r"\midrule")
        lines.append(" & ".join(map(_latex_entry, row.entries)) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}}"]
    lines += [rf"\par\smallskip\footnotesize {escape(note)}" for note in grid.notes]
    return "\n".join([*lines, r"\end{table}", ""])


def _latex_entry(entry: Entry) -> str:
    text = escape(entry.text)
    text = rf"\textbf{{{text}}}" if entry.best else text
    spread = rf" {{\scriptsize {escape(entry.spread)}}}" if entry.spread else ""
    return f"{text}{escape(entry.mark)}{spread}"


def escape(text: str) -> str:
    """A text that LaTeX sets as it stands."""
    return "".join(_LATEX.get(sign, sign) for sign in text)


def terminal(grid: Grid, spread: bool = False) -> Table:
    """For a terminal; without what follows the values it is narrower."""
    from rich import box
    from rich.markup import escape as literal
    from rich.table import Table

    table = Table(
        title=literal(grid.title),
        title_style="bold",
        title_justify="left",
        caption=literal("\n".join(grid.notes)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    for column in grid.columns:
        # Names may take two lines; numbers are whole or worthless.
        table.add_column(
            literal(column.name), justify=column.align, no_wrap=column.align == "right"
        )
    for at, row in enumerate(grid.rows):
        shown = []
        for entry in row.entries:
            text = literal(entry.text)
            text = f"[bold]{text}[/]" if entry.best else text
            more = f" {literal(entry.spread)}" if spread and entry.spread else ""
            shown.append(f"{text}{entry.mark}{more}")
        ends = at + 1 < len(grid.rows) and grid.rows[at + 1].begins
        table.add_row(*shown, style="dim" if row.quiet else None, end_section=ends)
    return table
