"""The report of a sweep: a folder that opens in a browser with no network."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import negrec
from negrec.errors import InputError
from negrec.reporting import cells, drawings, grid, significance, verdict, wording
from negrec.reporting.cells import Cell, Comparison, Sorted
from negrec.reporting.comparison_table import (
    comparison_table,
    equal_seconds_table,
    overview,
    statistics_table,
)
from negrec.reporting.grid import Column, Entry, Grid, Row
from negrec.reporting.runs import SWEEP, Runs
from negrec.reporting.verdict import Answer, Verdict

if TYPE_CHECKING:
    import polars as pl

    from negrec.reporting.figures.style import Look

Format = Literal["html", "md", "latex", "all"]
FORMATS = get_args(Format)
METRICS = ("hr", "ndcg", "recall", "mrr")
DEFAULT_METRIC = "hr_10"

_PARTS = {"report.html", "report.md", "tables", "figures"}  # what a report's folder holds
_NAMED_AT_MOST = 20  # runs of one kind that are left out
_CUT = {"seeds": "seeds per cell", "max_epochs": "epochs per run"}  # of a sweep's record
_REPEATS = 2000  # of a bootstrap
_FEWEST_REPEATS = 200
# Draws of users that all bootstraps of a report may take together: some seconds.
_DRAWS = 200_000_000
# From so many runs on, data sets are worked at side by side: starting a process costs seconds.
_MANY_RUNS = 200
GLOSSARY = (
    ("HR@10", "How often the item that a user really took next is among the first ten shown."),
    (
        "NDCG@10",
        "The same, where a place further up counts more: 1 for the first place, 0.63 for the "
        "second, 0.29 for the tenth.",
    ),
    (
        "head, mid, tail",
        "The popular, the middling and the rare items: each group holds a third of all training "
        "interactions, so the head is few items and the tail is most of the catalogue.",
    ),
    (
        "balance",
        "How evenly the three groups are served. 100 % = head, mid and tail have equal hit rates; "
        "33.3 % (1/3) = one group gets everything.",
    ),
    (
        "popularity ranker",
        "Shows everybody the most popular items. What is not better than this is not worth "
        "deploying.",
    ),
    ("oracle", "Knows the true probabilities (embedded data only). Nothing can be better."),
    (
        "cell",
        "One setting: runs that are alike in everything but the seed, the number that fixes all "
        "chance.",
    ),
    ("n", "How many seeds a value is the mean of."),
    (
        "± and interval",
        "± is the standard deviation over seeds: how far single runs lie from the mean. A 95 % "
        "interval says where the mean itself lies.",
    ),
    (
        "p",
        "How often chance alone would make a difference at least as large, if there were none. "
        "Small means hardly by chance. Holm's correction pays for looking at several cells.",
    ),
    ("within noise", "No test tells the two apart; more seeds might."),
    (
        "converged",
        "Epochs after the best one were seen, and were not better. Where the best epoch is the "
        "last, more training may have changed the picture.",
    ),
    (
        "validation and test",
        "Epochs and cells are chosen on validation. Test was looked at once per run, at the chosen "
        "epoch, and chooses nothing: it says what to expect.",
    ),
    ("negatives (k)", "Items per query that the model learns to rank below the one taken."),
    ("seconds per epoch", "Of training and the validation after it."),
)


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        name: of its files, without an ending.
        caption: what it shows.
        svg: an element for the page.
        inches: its width in print.
    """

    name: str
    caption: str
    svg: str
    inches: float


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
class LeftOut:
    """Runs that are in no table.

    Attributes:
        why: of all of them.
        what: one line each.
        count: of them.
    """

    why: str
    what: tuple[str, ...]
    count: int


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
    """

    title: str
    metric: str
    sections: tuple[Section, ...]
    figures: tuple[Figure, ...]
    runs: int
    left_out: tuple[LeftOut, ...]
    repeat: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]


Tell = Callable[[str, float], None]


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
        _write(report, new, formats)
    return report


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
    pairs = sum(len(comparison.cells) - 1 for comparison in comparisons)
    tasks = [
        Task(
            comparison,
            metric,
            k,
            looks,
            formats,
            folder,
            f"{anchor(comparison.title)}-" if len(comparisons) > 1 else "",
            pairs,
        )
        for comparison in comparisons
    ]
    sections = _sections(tasks, tell)
    over_all = _draw(
        drawings.over_data_sets(comparisons, metric), formats, folder, "", lambda *_: None
    )
    names = ", ".join(found.names)
    return Report(
        title=f"negrec report: {names}" if names else "negrec report",
        metric=wording.metric(metric),
        sections=tuple(sections),
        figures=tuple(over_all),
        runs=sum(len(comparison.runs) for comparison in comparisons),
        left_out=tuple(_left_out(found, sorted_runs)),
        repeat=tuple(_repeat(found, comparisons)),
        commands=tuple(_commands(found)),
    )


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


def anchor(title: str) -> str:
    """A title as the name of a file or of a place on a page."""
    return "".join(sign if sign.isalnum() else "-" for sign in title.lower()).strip("-")


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
        pairs: of cells that the whole report compares: they share the time for resampling.
    """

    comparison: Comparison
    metric: str
    k: int
    looks: Mapping[str, Look]
    formats: Format
    folder: Path
    prefix: str
    pairs: int


def _sections(tasks: Sequence[Task], tell: Tell) -> list[Section]:
    """All sections, in order; many runs side by side on the machine's cores."""
    runs = sum(len(task.comparison.runs) for task in tasks)
    workers = min(len(tasks), os.cpu_count() or 1)
    if runs < _MANY_RUNS or workers == 1:
        sections = []
        for at, task in enumerate(tasks):

            def told(what: str, share: float, at: int = at, task: Task = task) -> None:
                tell(f"{task.comparison.title}: {what}", (at + share) / len(tasks))

            sections.append(section(task, told))
        return sections
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
        if len(of_k.ranked) > 1:
            tell("resampling users", 0.2)
            statistics.append(statistics_table(title, of_k, *_bootstrapped(of_k, task.pairs)))
    if answer.alone is not None:
        title = comparison.title
        if not answer.one_k:
            title += ", cells that no other equals in negatives per query"
        tables.append(comparison_table(title, answer.alone, k, compared=False))
    reported, remarks = _reported(comparison)
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
            _draw(
                drawings.of_comparison(answer, metric, k, task.looks),
                task.formats,
                task.folder,
                task.prefix,
                lambda what, share: tell(what, 0.4 + 0.6 * share),
            )
        ),
    )


def _bootstrapped(verdict: Verdict, pairs: int) -> tuple[dict[str, significance.Interval], int]:
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
    found, repeats = {}, 0
    for judged in others:
        of_cell = targets(judged.cell)
        common = of_best.keys() & of_cell.keys()
        if not common:
            continue
        users = of_best[min(common)]["user"].n_unique()
        repeats = int(_DRAWS / max(pairs * users, 1))
        repeats = min(_REPEATS, max(_FEWEST_REPEATS, repeats))
        found[judged.cell.label] = significance.bootstrap(of_cell, of_best, gain, repeats)
    return found, repeats


def _draw(
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
            figure = drawing.draw()
        except style.NothingToDraw:
            continue
        style.settle(figure)  # once, not once per file
        name = f"{prefix}{drawing.name}"
        if formats != "html":
            output.save(figure, folder / "figures", name)
        svg = output.inline_svg(figure, name) if formats in ("html", "all") else ""
        drawn.append(Figure(name, drawing.caption, svg, float(figure.get_size_inches()[0])))
    return drawn


def _reported(comparison: Comparison) -> tuple[Grid | None, tuple[str, ...]]:
    """Published values beside what the cells measured."""
    from negrec.reporting import reported

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
    for cell in comparison.cells:
        remarks |= dict.fromkeys(reported.near_misses(cell.runs))
        last = ""
        for match in reported.matches(cell.runs):
            row = match.reported
            source = f"{row.paper}, {row.table}: {row.model} {row.setting}".strip()
            mark = notes.setdefault(match.deviations, len(notes) + 1)
            std = math.nan if row.std is None else row.std
            rows.append(
                Row(
                    (
                        Entry(cell.label if last != source else ""),
                        Entry(source if last != source else ""),
                        Entry(row.metric),
                        Entry(wording.percent(row.value), _spread(std)),
                        Entry(wording.percent(match.measured), _spread(match.sd)),
                        Entry(f"{100 * match.difference:+.2f}".replace("-", "−")),
                        Entry(f"{match.n}"),
                        Entry(f"({mark})" if match.deviations else ""),
                    ),
                    begins=last != source,
                )
            )
            last = source
            remarks.setdefault(f"Source: {match.citation}.", None)
    if not rows:
        return None, tuple(f"{text}." for text in remarks)
    told = tuple(
        f"({number}) {'; '.join(deviations)}." for deviations, number in notes.items() if deviations
    )
    sources = tuple(text for text in remarks if text.startswith("Source: "))
    others = tuple(f"{text}." for text in remarks if text not in sources)
    table = Grid(f"{comparison.title}: reported against measured", columns, tuple(rows), told)
    return table, (*others, *sources)


def _spread(sd: float) -> str:
    return "" if math.isnan(sd) else f"± {wording.percent(sd)}"


def _left_out(found: Runs, sorted_runs: Sorted) -> Iterator[LeftOut]:
    """Everything that is in no table, and why."""
    counted = Counter(run.status for run in found.unfinished)
    for status in sorted(counted):
        runs = [run for run in found.unfinished if run.status == status]
        yield _of_kind(
            f"{status.lower()}, not finished",
            [f"{run.run_id} ({run.folder.name}): negrec train run={run.run_id}" for run in runs],
        )
    if found.damaged:
        yield _of_kind(
            "incomplete: something was deleted or broken",
            [f"{damaged.folder.name}: {damaged.reason}" for damaged in found.damaged],
        )
    if sorted_runs.superseded:
        yield _of_kind(
            "run twice with the same setting and seed: the newest counts",
            [
                f"{old.run_id} ({old.folder.name}), for which {new.run_id} ({new.folder.name}) "
                "counts"
                for old, new in sorted_runs.superseded
            ],
        )
    if sorted_runs.untested:
        yield _of_kind(
            "never measured on the test targets",
            [f"{run.run_id} ({run.folder.name})" for run in sorted_runs.untested],
        )


def _of_kind(why: str, what: Sequence[str]) -> LeftOut:
    shown = [*what[:_NAMED_AT_MOST]]
    if len(what) > _NAMED_AT_MOST:
        shown.append(f"and {len(what) - _NAMED_AT_MOST} more")
    return LeftOut(why, tuple(shown), len(what))


def _repeat(found: Runs, comparisons: Sequence[Comparison]) -> Iterator[tuple[str, str]]:
    """What is needed to repeat the runs."""
    runs = [run for comparison in comparisons for run in comparison.runs]
    yield "sweep", ", ".join(found.names) or "single runs"
    yield "runs", f"{len(runs)} in the tables, of: {found.states}"
    yield "negrec", ", ".join(sorted({run.version for run in runs}))
    commits = sorted({run.git_commit or "not from a checkout" for run in runs})
    yield "commit", ", ".join(commits) + (" (several: not one code)" if len(commits) > 1 else "")
    for comparison in comparisons:
        data = {run.data_hash for run in comparison.runs}
        splits = sorted({run.split_hash for run in comparison.runs})
        more = f" and {len(splits) - 1} more, by seed" if len(splits) > 1 else ""
        yield comparison.title, f"data {', '.join(sorted(data))}; split {splits[0]}{more}"
        seeds = sorted({run.seed for run in comparison.runs})
        yield f"{comparison.title}, seeds", ", ".join(map(str, seeds))
    took = math.fsum(run.metric("cost/seconds") for run in runs)
    yield "time", f"{wording.duration(took)} of training and validation, all runs together"
    for name, record in zip(found.names, map(_record, found.folders), strict=False):
        if isinstance(seconds := record.get("seconds"), int | float):
            at_once = record.get("at_once", 1)
            yield (
                f"foretold for {name}",
                f"{wording.duration(seconds)}, {at_once} job{'' if at_once == 1 else 's'} at once",
            )
        cut = [f"{record[key]} {what}" for key, what in _CUT.items() if record.get(key) is not None]
        if cut:
            yield f"{name} was cut for its budget to", " and ".join(cut)
    hardware = sorted({run.hardware for run in runs if run.hardware})
    yield "hardware", "; ".join(hardware) or "not written down"
    yield "report", f"negrec {negrec.__version__}"


def _record(folder: Path) -> Mapping[str, Any]:
    """What a sweep wrote down of itself; nothing where it did not."""
    try:
        record = json.loads((folder / SWEEP).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _commands(found: Runs) -> Iterator[str]:
    """What was typed."""
    single = []
    for folder in found.folders:
        command = _record(folder).get("command")
        if isinstance(command, str):
            yield command
        else:
            single.append(folder)
    if single:
        kinds = dict.fromkeys(
            f"negrec train {' '.join(run.overrides)}"
            for run in found.finished
            if any(run.folder.is_relative_to(folder) for folder in single)
        )
        yield from [*kinds][:_NAMED_AT_MOST]
        if len(kinds) > _NAMED_AT_MOST:
            yield f"# and {len(kinds) - _NAMED_AT_MOST} more"


def _write(report: Report, folder: Path, formats: Format) -> None:
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
