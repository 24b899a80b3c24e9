"""What a report says of one comparison: verdict, tables, statistics and figures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from negrec.reporting import drawings, knobs, significance, verdict, wording
from negrec.reporting.cells import Cell, Comparison
from negrec.reporting.comparison_table import (
    comparison_table,
    equal_seconds_table,
    overview,
    statistics_table,
)
from negrec.reporting.grid import Grid
from negrec.reporting.reported_table import reported_table
from negrec.reporting.verdict import Answer, Verdict

if TYPE_CHECKING:
    import polars as pl

    from negrec.reporting.figures.style import Look

Format = Literal["html", "md", "latex", "all"]
FORMATS = get_args(Format)
# Is told what goes on, and the share of the work that is done, in [0, 1].
Tell: TypeAlias = Callable[[str, float], None]

_REPEATS = 2000  # of a bootstrap
_FEWEST_REPEATS = 200
# Draws of users that all bootstraps of a report may take together: some seconds.
_DRAWS = 60_000_000
# From so many runs on, data sets are worked at side by side: starting a process costs seconds.
_MANY_RUNS = 200


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        name: of its files, without an ending.
        caption: what it shows.
        svg: an element for the page.
        inches: its width in print.
        first: whether it belongs beside the cells at a glance.
    """

    name: str
    caption: str
    svg: str
    inches: float
    first: bool = False


@dataclass(frozen=True)
class Section:
    """What is said of one comparison.

    Attributes:
        anchor: its id on the page.
        answer: the verdicts.
        overview: its cells at a glance.
        tables: methods by metrics, one per number of negatives.
        equal_seconds: all cells at equal training time; None where there is one cell only.
        statistics: one per table with something to compare.
        reported: measured beside published values; None where nothing was published.
        remarks: on published tables that only look alike.
        figures: drawn.
    """

    anchor: str
    answer: Answer
    overview: Grid
    tables: tuple[Grid, ...]
    equal_seconds: Grid | None
    statistics: tuple[Grid, ...]
    reported: Grid | None
    remarks: tuple[str, ...]
    figures: tuple[Figure, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Of all its verdicts, each once."""
        verdicts = [self.answer.verdict, *(verdict for _, verdict in self.answer.at_equal_k)]
        notes = [note for verdict in verdicts for note in verdict.notes]
        return tuple(dict.fromkeys([self.answer.basis, *notes] if self.answer.basis else notes))


@dataclass(frozen=True)
class Task:
    """What a section is made from.

    Attributes:
        comparison: it speaks of.
        metric: of test.
        k: the cut-off of tables.
        looks: of all cells of the report.
        formats: that are written.
        folder: of the report.
        prefix: of the names of its figures.
        comparisons: of the report, which share the time for resampling.
    """

    comparison: Comparison
    metric: str
    k: int
    looks: Mapping[str, Look]
    formats: Format
    folder: Path
    prefix: str
    comparisons: int


def sections(tasks: Sequence[Task], tell: Tell) -> list[Section]:
    """All sections, in order; many runs side by side on the machine's cores."""
    runs = sum(len(task.comparison.runs) for task in tasks)
    workers = min(len(tasks), os.cpu_count() or 1)
    if runs < _MANY_RUNS or workers == 1:
        made = []
        for at, task in enumerate(tasks):

            def told(what: str, share: float, at: int = at, task: Task = task) -> None:
                tell(f"{task.comparison.title}: {what}", (at + share) / len(tasks))

            made.append(section(task, told))
        return made
    # Spawned: a fork would take over locks of Polars' threads.
    context = get_context("spawn")
    with _one_thread_each(), ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = [pool.submit(section, task) for task in tasks]
        for at, _ in enumerate(as_completed(waiting)):
            tell(f"{at + 1} of {len(tasks)} data sets", (at + 1) / len(tasks))
        return [done.result() for done in waiting]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that are started meanwhile take one thread each: more would only wait."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def section(task: Task, tell: Tell = lambda what, share: None) -> Section:
    """Decides, tests and draws one comparison."""
    comparison, metric, k = task.comparison, task.metric, task.k
    tell("reading", 0.0)
    answer = verdict.answer(comparison, metric)
    tables, statistics = [], []
    for negatives, of_k in answer.at_equal_k:
        title = comparison.title
        if not answer.one_k:
            title += f", {wording.negatives(negatives)} per query"
        tables.append(comparison_table(title, of_k, k))
        if len(of_k.ranked) > 1 and of_k.recommended is not None:
            tell("resampling users", 0.2)
            statistics.append(statistics_table(title, of_k, *_bootstrapped(of_k, task.comparisons)))
    if answer.alone is not None:
        title = comparison.title
        if not answer.one_k:
            title += ", cells that no other equals in negatives per query"
        tables.append(comparison_table(title, answer.alone, k, compared=False))
    reported, remarks = reported_table(comparison)
    return Section(
        anchor=anchor(comparison.title),
        answer=answer,
        overview=overview(answer, k),
        tables=tuple(tables),
        equal_seconds=equal_seconds_table(answer) if len(comparison.cells) > 1 else None,
        statistics=tuple(statistics),
        reported=reported,
        remarks=remarks,
        figures=tuple(
            draw(
                [
                    *drawings.of_comparison(answer, metric, k, task.looks),
                    *knobs.of_comparison(comparison),
                ],
                task.formats,
                task.folder,
                task.prefix,
                lambda what, share: tell(what, 0.4 + 0.6 * share),
            )
        ),
    )


def _bootstrapped(
    verdict: Verdict, comparisons: int
) -> tuple[dict[str, significance.Interval], int]:
    """Cell minus best, by label, of cells whose targets were saved; the repeats it took."""
    name, _, at = verdict.metric.partition("_")
    if name not in ("hr", "ndcg", "mrr"):
        return {}, 0
    gain = significance.gain(name, int(at or 1))  # type: ignore[arg-type]

    def targets(cell: Cell) -> dict[int, pl.DataFrame]:
        return {
            run.seed: run.targets() for run in cell.runs if (run.folder / "ranks.parquet").exists()
        }

    best, *others = verdict.ranked
    of_best = targets(best.cell)
    if not of_best:
        return {}, 0
    users = of_best[min(of_best)]["user"].n_unique()
    repeats = min(_REPEATS, max(_FEWEST_REPEATS, int(_DRAWS / max(comparisons * users, 1))))
    of_cells = {judged.cell.label: targets(judged.cell) for judged in others}
    return significance.bootstrap_each(of_cells, of_best, gain, repeats), repeats


def draw(
    several: Iterable[drawings.Drawing],
    formats: Format,
    folder: Path,
    prefix: str,
    tell: Tell,
) -> list[Figure]:
    """Draws, and saves where the format has files of figures."""
    from negrec.reporting.figures import output, style

    drawn = []
    listed = list(several)
    for at, drawing in enumerate(listed):
        tell(f"figure {drawing.name}", at / len(listed))
        try:
            made = output.drawn(drawing.draw())
        except style.NothingToDraw:
            continue
        name = f"{prefix}{drawing.name}"
        if formats != "html":
            output.save(made, folder / "figures", name)
        svg = output.inline_svg(made, name) if formats in ("html", "all") else ""
        width = float(made.figure.get_size_inches()[0])
        drawn.append(Figure(name, drawing.caption, svg, width, drawing.name == "balance"))
    return drawn


def anchor(title: str) -> str:
    """A title as the name of a file or of a place on a page."""
    return "".join(sign if sign.isalnum() else "-" for sign in title.lower()).strip("-")
