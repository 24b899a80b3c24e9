"""Published values beside what was measured, as a table."""

from __future__ import annotations

import math

from negrec.reporting import reported, wording
from negrec.reporting.cells import Comparison
from negrec.reporting.grid import Column, Entry, Grid, Row


def reported_table(comparison: Comparison) -> tuple[Grid | None, tuple[str, ...]]:
    """Published values beside what the cells measured."""
    columns = (
        Column("cell", align="left"),
        Column("published", align="left"),
        Column("metric", align="left"),
        *(Column(name) for name in ("reported, %", "measured, %", "difference", "n")),
        Column("differs in", align="left"),
    )
    rows: list[Row] = []
    notes: dict[tuple[str, ...], int] = {}
    remarks: dict[str, None] = {}
    sources: dict[str, None] = {}
    for cell in comparison.cells:
        remarks |= dict.fromkeys(f"{text}." for text in reported.near_misses(cell.runs))
        last = ""
        for match in reported.matches(cell.runs):
            row = match.reported
            source = f"{row.paper}, {row.table}: {row.model} {row.setting}".strip()
            mark = notes.setdefault(match.deviations, len(notes) + 1)
            rows.append(
                Row(
                    (
                        Entry(cell.label if last != source else ""),
                        Entry(source if last != source else ""),
                        Entry(row.metric),
                        Entry.percent(row.value, math.nan if row.std is None else row.std),
                        Entry.percent(match.measured, match.sd),
                        Entry(wording.points(match.difference)),
                        Entry(f"{match.n}"),
                        Entry(f"({mark})" if match.deviations else ""),
                    ),
                    begins=last != source,
                )
            )
            last = source
            sources[f"Source: {match.citation}."] = None
    if not rows:
        return None, tuple(remarks)
    told = tuple(
        f"({number}) {'; '.join(deviations)}." for deviations, number in notes.items() if deviations
    )
    title = f"{comparison.title}: reported against measured"
    return Grid(title, columns, tuple(rows), told), (*remarks, *sources)
