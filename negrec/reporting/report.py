"""The report of a sweep: a folder that opens in a browser with no network."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from negrec.errors import InputError
from negrec.reporting import cells, drawings, left_out, pages, provenance, wording
from negrec.reporting.cells import Comparison, Sorted
from negrec.reporting.left_out import LeftOut
from negrec.reporting.runs import Run, Runs
from negrec.reporting.sections import Figure, Format, Section, Task, Tell, anchor, draw, sections

METRICS = ("hr", "ndcg", "recall", "mrr")
DEFAULT_METRIC = "hr_10"

_PARTS = {"report.html", "report.md", "tables", "figures"}  # what a report's folder holds


@dataclass(frozen=True)
class Report:
    """All that the templates write.

    Attributes:
        title: of the page.
        metric: that sentences tell.
        sections: one per comparison.
        figures: over all data sets.
        runs: how many are in the tables.
        left_out: the others.
        repeat: names and values of what is needed to repeat it.
        commands: likewise, as typed.
        go_on: what to type where nothing is recommended yet, because runs were still improving.
    """

    title: str
    metric: str
    sections: tuple[Section, ...]
    figures: tuple[Figure, ...]
    runs: int
    left_out: tuple[LeftOut, ...]
    repeat: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]
    go_on: tuple[str, ...]


def write(
    found: Runs,
    folder: Path,
    metric: str = DEFAULT_METRIC,
    formats: Format = "all",
    tell: Tell = lambda what, share: None,
) -> Report:
    """Writes the report of runs; the folder appears whole or not at all.

    Args:
        found: what ``runs.find`` found.
        folder: to be made; an earlier report there is replaced.
        metric: of test, that sentences and figures tell ("hr_10"), in hr, ndcg, recall, mrr.
        formats: html (one file), md (with figures), latex (tables and figures), or all.
        tell: is told what goes on, and the share of the work that is done, in [0, 1].

    Returns:
        What was written.

    Raises:
        InputError: runs that do not go into one table, a metric that they do not have, or a
            folder with something else in it.
    """
    refuse_foreign(folder)
    tell("sorting runs", 0.0)
    sorted_runs = cells.sort(found.finished)
    if not sorted_runs.comparisons:
        raise InputError(
            f"none of the {len(found.finished)} finished runs was measured on the test targets: "
            "there is nothing to report"
        )
    _refuse_unknown_metric(metric, sorted_runs.comparisons)
    with _replaced(folder) as new:
        report = _report(found, sorted_runs, metric, formats, new, tell)
        pages.write(report, new, formats)
    return report


def _report(
    found: Runs,
    sorted_runs: Sorted,
    metric: str,
    formats: Format,
    folder: Path,
    tell: Tell,
) -> Report:
    from negrec.reporting.figures import style

    comparisons = sorted_runs.comparisons
    k = cutoff(metric, comparisons)
    looks = style.looks(sorted({cell.label for c in comparisons for cell in c.cells}))
    tasks = [
        Task(
            comparison,
            metric,
            k,
            looks,
            formats,
            folder,
            f"{anchor(comparison.title)}-" if len(comparisons) > 1 else "",
            len(comparisons),
        )
        for comparison in comparisons
    ]
    written = sections(tasks, tell)
    over_all = draw(
        drawings.over_data_sets(comparisons, metric), formats, folder, "", lambda *_: None
    )
    names = ", ".join(found.names)
    return Report(
        title=f"negrec report: {names}" if names else "negrec report",
        metric=wording.metric(metric),
        sections=tuple(written),
        figures=tuple(over_all),
        runs=sum(len(comparison.runs) for comparison in comparisons),
        left_out=tuple(left_out.left_out(found, sorted_runs)),
        repeat=tuple(provenance.repeat(found, comparisons)),
        commands=tuple(provenance.commands(found)),
        go_on=tuple(provenance.go_on(found, _to_be_continued(written))),
    )


def _to_be_continued(written: Sequence[Section]) -> list[Run]:
    """Runs that were still improving, where that leaves a question without an answer."""
    verdicts = [s.answer.verdict for s in written if s.answer.verdict.recommended is None]
    return [
        run
        for verdict in verdicts
        for cell in verdict.unconverged
        for run in cell.runs
        if not run.converged
    ]


def cutoff(metric: str, comparisons: Sequence[Comparison]) -> int:
    """That of the metric; for one without, 10 where the runs have it, else their first."""
    given = wording.cutoff(metric)
    if given is not None:
        return given
    names = comparisons[0].runs[0].metrics
    known = sorted(int(name.removeprefix("test/hr_")) for name in names if _plain_hr(name))
    return 10 if 10 in known or not known else known[0]


def _plain_hr(name: str) -> bool:
    return name.startswith("test/hr_") and name.removeprefix("test/hr_").isdecimal()


def refuse_foreign(folder: Path) -> None:
    """A report replaces a report, never somebody's files.

    Raises:
        InputError: the folder holds something else.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"out={folder} is a file: name a folder for the report")
    foreign = sorted({path.name for path in folder.iterdir()} - _PARTS)
    if foreign:
        raise InputError(
            f"out={folder} holds {foreign[0]}, which is no part of a report: name a new folder"
        )


def _refuse_unknown_metric(metric: str, comparisons: Sequence[Comparison]) -> None:
    def has(comparison: Comparison, name: str) -> bool:
        return all(f"test/{name}" in run.metrics for run in comparison.runs)

    if metric.partition("_")[0] in METRICS and all(has(c, metric) for c in comparisons):
        return
    names = {
        name.removeprefix("test/")
        for run in comparisons[0].runs
        for name in run.metrics
        if name.startswith(tuple(f"test/{kind}" for kind in METRICS))
    }
    cohorts = ("_head", "_mid", "_tail", "_warm")
    known = [
        name
        for name in sorted(names, key=lambda name: (name.rpartition("_")[0], len(name), name))
        if not name.endswith(cohorts) and all(has(comparison, name) for comparison in comparisons)
    ]
    raise InputError(f"metric={metric}: the runs have no such metric, but {', '.join(known)}")


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder beside this one, which takes its place when all went well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield new
        new.chmod(0o755)
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            folder.replace(old)
            new.replace(folder)
            shutil.rmtree(old)
        else:
            new.replace(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
