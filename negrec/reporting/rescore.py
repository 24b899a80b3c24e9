"""Metrics of finished runs, recomputed from the saved ranks of their targets.

Other cut-offs and other popularity groups need no training: a run saves where each test target was
ranked (``ranks.parquet``) and how often each item occurs in training (``items.parquet``).
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich import box
from rich.markup import escape
from rich.table import Table

from negrec.errors import InputError
from negrec.evaluation.cohorts import COHORTS
from negrec.evaluation.evaluator import Evaluation, accuracy
from negrec.reporting import wording
from negrec.reporting.cells import Comparison
from negrec.reporting.runs import Run
from negrec.reporting.significance import Summary, describe
from negrec.writing import replacing

METRICS = ("hr", "ndcg", "mrr", "recall", "balance")
_MOST_GROUPS = 10  # that a table has room for


@dataclass(frozen=True)
class Groups:
    """Popularity groups of items, the most popular first.

    Items stand in the order of their training counts, descending, ties by id. Each cut is where a
    group ends:

    * of "mass", a share of all interactions: an item belongs to the group while the cumulated
      count, itself included, is below it. An item that alone holds more than the first share is in
      the first group. Cuts at 1/3 and 2/3 are ``popularity_cohorts``;
    * of "items", a share of the catalogue;
    * of "counts", the least count of the group's items.

    Attributes:
        kind: what is cut.
        cuts: where, one fewer than there are groups; exact, so that no last digit decides.
        text: as it was typed.
    """

    kind: Literal["mass", "items", "counts"]
    cuts: tuple[Fraction, ...]
    text: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Reads ``3`` (groups of equal mass), ``mass:..``, ``items:0.2,0.8``, ``counts:100,10``.

        Raises:
            InputError: anything else.
        """
        kind, colon, listed = text.partition(":")
        if not colon:
            if not text.isdecimal() or not 2 <= int(text) <= _MOST_GROUPS:
                raise _unreadable(text, f"a number of groups is one of 2 to {_MOST_GROUPS}")
            n = int(text)
            return cls("mass", tuple(Fraction(i, n) for i in range(1, n)), text)
        try:
            cuts = tuple(map(Fraction, listed.split(",")))
        except (ValueError, ZeroDivisionError) as error:
            raise _unreadable(text, f"{listed!r} is no list of numbers") from error
        if len(cuts) >= _MOST_GROUPS:
            raise _unreadable(text, f"at most {_MOST_GROUPS} groups")
        match kind:
            case "mass" | "items":
                if list(cuts) != sorted({*cuts}) or not 0 < cuts[0] <= cuts[-1] < 1:
                    raise _unreadable(text, "shares rise between 0 and 1")
                return cls(kind, cuts, text)
            case "counts":
                if list(cuts) != sorted({*cuts}, reverse=True) or cuts[-1] < 1:
                    raise _unreadable(text, "least counts fall and are at least 1")
                return cls(kind, cuts, text)
        raise _unreadable(text, f"{kind!r} is not one of mass, items, counts")

    @property
    def names(self) -> tuple[str, ...]:
        """Head and tail, head, mid and tail, or g1, g2, ..."""
        n = len(self.cuts) + 1
        by_size = {2: ("head", "tail"), 3: COHORTS}
        return by_size.get(n, tuple(f"g{i}" for i in range(1, n + 1)))

    def of_items(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The group of each item, 0 for the most popular, (V,).

        Args:
            counts: training interactions of each item, (V,).
        """
        order = np.argsort(-counts, kind="stable")
        ordered = counts[order]
        cumulated, total = ordered.cumsum(), ordered.sum()
        group = np.zeros(len(counts), dtype=np.int64)
        for cut in self.cuts:
            match self.kind:
                case "mass":
                    group += cumulated >= math.ceil(cut * int(total))
                case "items":
                    group[math.floor(cut * len(counts)) :] += 1
                case "counts":
                    group += ordered < math.ceil(cut)
        if self.kind == "mass":
            group[ordered > math.floor(self.cuts[0] * int(total))] = 0
        of_item = np.empty_like(group)
        of_item[order] = group
        return of_item


def _unreadable(text: str, why: str) -> InputError:
    return InputError(
        f"cohorts={text}: {why}; write cohorts=5 (groups of equal shares of the interactions), "
        "cohorts=mass:0.5,0.9, cohorts=items:0.2,0.8 (shares, most popular first) or "
        "cohorts=counts:100,10 (least training counts)"
    )


@dataclass(frozen=True)
class Row:
    """A metric of a cell.

    Attributes:
        comparison: its title.
        cell: its label.
        metric: such as "hr_10_head".
        values: over seeds.
    """

    comparison: str
    cell: str
    metric: str
    values: Summary


@dataclass(frozen=True)
class Rescored:
    """The recomputed metrics of some comparisons.

    Attributes:
        groups: of items.
        metrics: of each run, by its id.
        rows: of each cell, in the order of the comparisons.
    """

    groups: Groups
    metrics: Mapping[str, Mapping[str, float]]
    rows: tuple[Row, ...]


def rescore(
    comparisons: Sequence[Comparison],
    groups: Groups,
    cutoffs: Sequence[int] | None,
    chosen: Sequence[str],
) -> Rescored:
    """Recomputes the metrics of all runs.

    Args:
        comparisons: cells of finished runs.
        groups: by which items are told apart.
        cutoffs: the k of the metrics; None takes those that each run was measured at.
        chosen: of METRICS; empty takes all.

    Raises:
        InputError: a run's files are missing or damaged, or no run has a chosen metric.
    """
    kept = (*(chosen or METRICS), "n", "items")
    metrics = {
        run.run_id: {
            name: value
            for name, value in of_run(run, groups, cutoffs or _own_cutoffs(run)).items()
            if name.split("_")[0] in kept
        }
        for comparison in comparisons
        for run in comparison.runs
    }
    if "recall" in chosen and not any("recall" in name for of in metrics.values() for name in of):
        raise InputError(
            "recall is the hit rate where every user has one target, as here: ask for hr"
        )
    rows = []
    for comparison in comparisons:
        for cell in comparison.cells:
            of_cell = [metrics[run.run_id] for run in cell.runs]
            # Only runs with cold targets have values without them.
            for name in dict.fromkeys(name for of in of_cell for name in of):
                values = describe([of.get(name, math.nan) for of in of_cell])
                rows.append(Row(comparison.title, cell.label, name, values))
    return Rescored(groups, metrics, tuple(rows))


def of_run(run: Run, groups: Groups, cutoffs: Sequence[int]) -> dict[str, float]:
    """What ``accuracy`` finds, with other groups and cut-offs, and the items of each group.

    Raises:
        InputError: the run's files are missing or damaged.
    """
    targets, items = _saved(run, "ranks.parquet"), _saved(run, "items.parquet")
    user, target, greater, ties = (
        targets[name].to_numpy() for name in ("user", "target", "greater", "ties")
    )
    group_of = groups.of_items(items.sort("item")["count"].to_numpy().astype(np.int64))
    group = group_of[target - 1]  # of a cold target, 0, that of the last item, which nobody reads
    evaluation = Evaluation(user, target, greater, ties, group, {})
    found = accuracy(evaluation, cutoffs, groups.names)
    return found | {
        f"items_{name}": float((group_of == index).sum()) for index, name in enumerate(groups.names)
    }


def _own_cutoffs(run: Run) -> Sequence[int]:
    own = run.config["evaluation.cutoffs"]
    assert isinstance(own, list)
    return own


def _saved(run: Run, name: str) -> pl.DataFrame:
    try:
        return pl.read_parquet(run.folder / name)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"run {run.run_id} cannot be rescored: {name} in {run.folder} is missing or damaged; "
            "delete that folder, or train the run again"
        ) from error


# ---- what is shown and saved


def table(rescored: Rescored, comparison: Comparison) -> Table:
    """The metrics of a comparison in percent: a line for each cell, below each metric's name."""
    rows = {
        (row.cell, row.metric): row.values
        for row in rescored.rows
        if row.comparison == comparison.title
    }
    first = comparison.cells[0]
    several = len(comparison.cells) > 1 or first.n > 1
    names = sorted((name for cell, name in rows if cell == first.label), key=_order)
    groups = rescored.groups.names
    warm = ["warm"] if any(name.endswith("_warm") for name in names) else []
    result = Table(
        title=f"{escape(comparison.title)}: test results, in percent",
        title_style="bold",
        title_justify="left",
        caption="\n".join(_notes(rescored, comparison, rows)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for header in ("", *(["cell", "n"] if several else [])):
        justify: Literal["left", "right"] = "right" if header == "n" else "left"
        result.add_column(header, justify=justify, no_wrap=True)
    for header in ("total", *groups, *warm):
        result.add_column(header, justify="right")
    margin = ["", ""] if several else []
    suffixes = ["", *(f"_{name}" for name in (*groups, *warm))]
    for label, prefix in (("items", "items"), ("targets", "n")):
        counts = [rows.get((first.label, prefix + suffix)) for suffix in suffixes]
        shown = ["" if of is None else f"{of.mean:,.0f}" for of in counts]
        result.add_row(label, *margin, *shown)
    result.add_section()
    # By metric, then by cell: what is compared stands together.
    for name in names:
        if name.endswith(tuple(suffixes[1:])) or name.split("_")[0] not in METRICS:
            continue
        label = wording.metric(name)
        for cell in comparison.cells:
            shown = [_cell(rows.get((cell.label, name + suffix)), cell.n) for suffix in suffixes]
            result.add_row(label, *([escape(cell.label), str(cell.n)] if several else []), *shown)
            label = ""
        if several:
            result.add_section()
    return result


def _order(name: str) -> tuple[int, int]:
    """HR at all cut-offs, then NDCG, ...; what is no metric comes first."""
    family = name.split("_")[0]
    return METRICS.index(family) if family in METRICS else -1, wording.cutoff(name) or 0


def _cell(values: Summary | None, n: int) -> str:
    """Mean and standard deviation, and of how many seeds where not of all."""
    if values is None:
        return ""
    text = wording.percent(values.mean, values.sd)
    return text if values.n in (0, n) else f"{text} (n={values.n})"


def _notes(
    rescored: Rescored, comparison: Comparison, rows: Mapping[tuple[str, str], Summary]
) -> list[str]:
    groups = rescored.groups
    notes = []
    sampled = {run.config.get("evaluation.sampled") for run in comparison.runs} - {None}
    if sampled:
        notes.append(wording.sampled(sampled.pop()))
    if any(name.startswith("balance_") for _, name in rows):
        notes.append(
            f"balance: 100 = the groups' hit rates are equal, {100 / len(groups.names):.2f} = one "
            "group gets everything"
        )
    first = comparison.cells[0].label
    empty = [name for name in groups.names if rows[first, f"n_{name}"].mean == 0]
    if empty:
        notes.append(f"no balance: no target in {wording.listed(empty)}")
    if comparison.cells[0].n > 1:
        notes.append("mean ± standard deviation over n seeds")
    return notes


def save(rescored: Rescored, folder: Path, comparisons: Sequence[Comparison]) -> tuple[Path, Path]:
    """Writes ``rescore.json`` (every run) and ``rescore.csv`` (every cell); earlier ones go."""
    runs = [
        {
            "run_id": run.run_id,
            "comparison": comparison.title,
            "cell": cell.label,
            "seed": run.seed,
            "metrics": {k: _number(v) for k, v in rescored.metrics[run.run_id].items()},
        }
        for comparison in comparisons
        for cell in comparison.cells
        for run in cell.runs
    ]
    groups = rescored.groups
    record = {"cohorts": groups.text, "groups": groups.names, "runs": runs}
    of_runs, of_cells = folder / "rescore.json", folder / "rescore.csv"
    with replacing(of_runs) as aside:
        aside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    with replacing(of_cells) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file)
        lines.writerow(["comparison", "cell", "metric", "n", "mean", "sd", "low", "high"])
        for row in rescored.rows:
            of = row.values
            numbers = ["" if math.isnan(x) else repr(x) for x in (of.mean, of.sd, of.low, of.high)]
            lines.writerow([row.comparison, row.cell, row.metric, of.n, *numbers])
    return of_runs, of_cells


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
