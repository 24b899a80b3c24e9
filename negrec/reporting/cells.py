"""Runs sorted into what can be compared: comparisons, and cells that differ in the seed only."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import polars as pl

from negrec.errors import InputError
from negrec.reporting import wording
from negrec.reporting.runs import Run

# What is measured and on what; it tells comparisons apart. `trainer.metric` belongs to it: the
# choice is made on its validation values.
_MEASURED = ("dataset.", "split.", "evaluation.", "trainer.metric")
# What tells neither cells nor comparisons apart.
_SAME = ("seed", "trainer.threads", "trainer.device", "evaluation.batch_size")
# Groups by which a cell may be named, the most telling first.
_GROUPS = (
    *("sampler", "sampler/false_negatives", "loss", "model", "objective"),
    *("scorer", "targets", "trainer", "experiment"),
)
_EVERYTHING = math.inf  # negatives per query of a run that samples none
_REFUSED_AT_MOST = 3  # runs that an error names, of each side

_Item = TypeVar("_Item")
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Cell:
    """Runs that differ in their seed only.

    Attributes:
        label: short, and unlike that of any other cell of the comparison.
        runs: finished ones, one per seed, by seed.
    """

    label: str
    runs: tuple[Run, ...]

    def __getstate__(self) -> dict[str, object]:
        # Another process reads the history again where it wants it: it is large.
        return {"label": self.label, "runs": self.runs}

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.runs)

    @property
    def negatives(self) -> float:
        """Per query, as configured; infinity where the whole catalogue takes part."""
        return negatives(self.runs[0].config)

    @property
    def trials(self) -> int:
        """How many settings were tried to tune it."""
        return max(run.trials for run in self.runs)

    @property
    def tuning(self) -> str:
        """How its values were found: "20 trials", "as published (experiment genni)"."""
        published = self.runs[0].published
        if published is not None:
            return f"as published (experiment {published}, trials unknown)"
        return wording.counted(self.trials, "trial")

    @property
    def unconverged(self) -> int:
        """Of its runs, those whose best epoch is their last."""
        return sum(not run.converged for run in self.runs)

    @property
    def trained(self) -> bool:
        """Whether there is something that validation could choose."""
        return all(run.epochs for run in self.runs)

    @property
    def seconds(self) -> float:
        """Of training with its validations, mean over seeds."""
        return _mean(self.values("cost/seconds").values())

    @property
    def seconds_per_epoch(self) -> float:
        """Of training with its validation, mean over seeds."""
        return _mean(run.metric("cost/seconds") / max(run.epochs, 1) for run in self.runs)

    @property
    def epochs(self) -> float:
        """Trained, mean over seeds."""
        return _mean(float(run.epochs) for run in self.runs)

    def values(self, name: str) -> dict[int, float]:
        """A final metric by seed; seeds without a number are left out."""
        found = {run.seed: run.metric(name) for run in self.runs}
        return {seed: value for seed, value in found.items() if math.isfinite(value)}

    def mean(self, name: str) -> float:
        """Of a final metric over seeds; NaN where it has none."""
        return _mean(self.values(name).values())

    @cached_property
    def history(self) -> pl.DataFrame:
        """Seed, and what ``Run.history`` has: epoch (from 0), seconds, metric, value."""
        return pl.concat(
            [run.history().select(pl.lit(run.seed).alias("seed"), pl.all()) for run in self.runs]
        )

    def reached_within(self, seconds: float, metric: str) -> dict[int, float]:
        """The best validation value by seed that was reached in so many seconds of training."""
        best = (
            self.history.filter(
                (pl.col("metric") == f"valid/{metric}")
                # The last epoch of the cell that sets the limit belongs to it.
                & (pl.col("seconds") <= seconds * (1 + 1e-9))
                & pl.col("value").is_finite()
            )
            .group_by("seed")
            .agg(pl.col("value").max())
            .sort("seed")
        )
        return dict(best.iter_rows())

    @property
    def training_seconds(self) -> float:
        """Of training alone, the shortest of its seeds."""
        last = self.history.group_by("seed").agg(pl.col("seconds").max())["seconds"].min()
        return float(str(last)) if last is not None else 0.0


@dataclass(frozen=True)
class Comparison:
    """Cells that were trained and measured on the same held-out targets.

    Attributes:
        title: data set and split, and what of the evaluation is not as in the others.
        dataset: its name.
        metric: of validation, by which epochs and cells are chosen ("ndcg_10").
        cells: by label.
    """

    title: str
    dataset: str
    metric: str
    cells: tuple[Cell, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        return tuple(run for cell in self.cells for run in cell.runs)

    def at_equal_k(self) -> dict[float, Comparison]:
        """The comparison once for each number of negatives per query, smallest first."""
        groups = _grouped(self.cells, lambda cell: cell.negatives)
        return {k: replace(self, cells=tuple(groups[k])) for k in sorted(groups)}

    def cell(self, label: str) -> Cell:
        """The cell of a label."""
        return next(cell for cell in self.cells if cell.label == label)


@dataclass(frozen=True)
class Sorted:
    """Runs as comparisons.

    Attributes:
        comparisons: by title.
        superseded: runs with the cell and the seed of a newer one, each with the newer.
        untested: finished runs that were not measured on the test targets.
    """

    comparisons: tuple[Comparison, ...]
    superseded: tuple[tuple[Run, Run], ...]
    untested: tuple[Run, ...]


def sort(runs: Sequence[Run]) -> Sorted:
    """Sorts finished runs into comparisons and cells.

    Raises:
        InputError: runs of one data set, split and evaluation saw other data, or other held-out
            targets for the same seed.
    """
    tested = [run for run in runs if "test/n" in run.metrics]
    untested = tuple(run for run in runs if "test/n" not in run.metrics)
    superseded: list[tuple[Run, Run]] = []
    groups = [
        _grouped(of_same, _cell_key) for of_same in _grouped(tested, _comparison_key).values()
    ]
    cells = []
    for group in groups:
        kept: list[list[Run]] = []
        for runs_of_cell in group.values():
            newest, old = _newest_of_each_seed(runs_of_cell)
            kept.append(newest)
            superseded += old
        cells.append(kept)
    titles = _titles([of_cells[0][0] for of_cells in cells])
    comparisons = []
    for title, of_cells in zip(titles, cells, strict=True):
        _refuse_different_data(title, [run for same in of_cells for run in same])
        named = zip(labels([same[0] for same in of_cells]), of_cells, strict=True)
        first = of_cells[0][0]
        comparisons.append(
            Comparison(
                title,
                first.choices.get("dataset", str(first.config.get("dataset.name", "data"))),
                str(first.config["trainer.metric"]),
                tuple(
                    Cell(label, tuple(same)) for label, same in sorted(named, key=lambda x: x[0])
                ),
            )
        )
    comparisons.sort(key=lambda comparison: comparison.title)
    return Sorted(tuple(comparisons), tuple(superseded), untested)


def negatives(config: Mapping[str, object]) -> float:
    """Negatives per query that a configuration asks for; infinity for the whole catalogue."""
    for key in ("k", "sampler.k"):
        value = config.get(key)
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):  # all targets of the batch
            return _EVERYTHING
    parts = [
        value
        for key, value in config.items()
        if key.startswith("sampler.parts.") and key.endswith(".k") and isinstance(value, int)
    ]
    return float(sum(parts)) if parts else _EVERYTHING


def labels(runs: Sequence[Run]) -> list[str]:
    """A short name for each run, built from what tells it from the others.

    The options of groups come first, then single keys, and each only where it tells runs of the
    same name apart: "uniform", "genni alpha=1", "genni alpha=2.5".
    """
    names = ["" for _ in runs]
    for group in _GROUPS:
        options = [_option(run, group) for run in runs]
        if len(set(options)) > 1 and _tells_apart(names, options):
            names = [f"{a} {b}".strip() for a, b in zip(names, options, strict=True)]
    if not any(names):
        # What all have in common would still be missed in a sentence.
        names = [run.choices.get("sampler", "run") for run in runs]
    while len(set(names)) < len(names):
        before = list(names)
        for name in sorted(set(before)):
            same = [i for i, other in enumerate(before) if other == name]
            if len(same) > 1:
                for i, text in zip(same, _values([runs[i].config for i in same]), strict=True):
                    names[i] = f"{name} {text}".strip()
        if names == before:
            raise AssertionError(f"cells that nothing tells apart: {names}")
    return names


def _option(run: Run, group: str) -> str:
    """The chosen option of a group; "" where it says nothing."""
    option = run.choices.get(group, "none")
    return "" if option in ("none", "None", "null", "default") else option


def _tells_apart(names: Sequence[str], options: Sequence[str]) -> bool:
    return len(set(zip(names, options, strict=True))) > len(set(names))


def _values(configs: Sequence[Mapping[str, object]]) -> list[str]:
    """``KEY=VALUE`` of the shortest key in which some of the configurations differ."""
    keys = sorted({*(key for config in configs for key in config)} - {*_SAME}, key=_shortest)
    for key in keys:
        values = [_text(config.get(key)) for config in configs]
        if len(set(values)) > 1:
            return [f"{_short(key, keys, configs)}={value}" for value in values]
    return ["" for _ in configs]


def _shortest(key: str) -> tuple[bool, int, int, str]:
    return key.rpartition(".")[2].startswith("_"), key.count("."), len(key), key


def _short(key: str, keys: Sequence[str], configs: Sequence[Mapping[str, object]]) -> str:
    """The last part of a key, or all of it where another key ends alike and says otherwise."""
    last = key.rpartition(".")[2]
    alike = [other for other in keys if other.rpartition(".")[2] == last]
    same = all(config.get(other) == config.get(key) for config in configs for other in alike)
    return last if same and not last.startswith("_") else key


def _text(value: object) -> str:
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.startswith("negrec.") else value
    return f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _comparison_key(run: Run) -> str:
    return _part(run, measured=True)


def _cell_key(run: Run) -> str:
    return _part(run, measured=False)


def _part(run: Run, measured: bool) -> str:
    part = {
        key: value
        for key, value in run.config.items()
        if key.startswith(_MEASURED) is measured and key not in _SAME
    }
    return json.dumps(part, sort_keys=True, default=str)


def _titles(runs: Sequence[Run]) -> list[str]:
    """Data set and split; what else of the measurement differs where that is not enough."""
    titles = [f"{_option(run, 'dataset')} {_option(run, 'split')}".strip() for run in runs]
    while len(set(titles)) < len(titles):
        before = list(titles)
        for title in sorted(set(before)):
            same = [i for i, other in enumerate(before) if other == title]
            if len(same) > 1:
                parts = [
                    {k: v for k, v in runs[i].config.items() if k.startswith(_MEASURED)}
                    for i in same
                ]
                for i, text in zip(same, _values(parts), strict=True):
                    titles[i] = f"{title} {text}"
        if titles == before:
            raise AssertionError(f"comparisons that nothing tells apart: {titles}")
    return titles


def _newest_of_each_seed(runs: Sequence[Run]) -> tuple[list[Run], list[tuple[Run, Run]]]:
    """One run per seed, by seed, and the others each with the one that takes its place."""
    newest: dict[int, Run] = {}
    for run in runs:
        if run.seed not in newest or newest[run.seed].written < run.written:
            newest[run.seed] = run
    others = [(run, newest[run.seed]) for run in runs if run is not newest[run.seed]]
    return [newest[seed] for seed in sorted(newest)], others


def _refuse_different_data(title: str, runs: Sequence[Run]) -> None:
    """Results on different targets are not comparable, however equal the configuration looks."""
    by_data = _grouped(runs, lambda run: run.data_hash)
    if len(by_data) > 1:
        _refuse(title, "data (data_hash)", by_data)
    for seed, of_seed in sorted(_grouped(runs, lambda run: run.seed).items()):
        by_split = _grouped(of_seed, lambda run: run.split_hash)
        if len(by_split) > 1:
            _refuse(title, f"held-out targets for seed {seed} (split_hash)", by_split)


def _refuse(title: str, what: str, groups: Mapping[str, Sequence[Run]]) -> None:
    # Those that most runs agree on first.
    order = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    listed = "; ".join(f"{_ids(runs)} saw {name[:12]}" for name, runs in order)
    keep = ",".join(run.run_id for run in order[0][1][:_REFUSED_AT_MOST])
    more = ",..." if len(order[0][1]) > _REFUSED_AT_MOST else ""
    raise InputError(
        f"{title}: runs with other {what} do not go into one table: {listed}; report one side with "
        f"runs={keep}{more}, or delete the other side's folders and type the sweep's command again"
    )


def _ids(runs: Sequence[Run]) -> str:
    shown = ", ".join(run.run_id for run in runs[:_REFUSED_AT_MOST])
    rest = len(runs) - _REFUSED_AT_MOST
    return f"{shown} and {rest} more" if rest > 0 else shown


def _grouped(items: Iterable[_Item], key: Callable[[_Item], _Key]) -> dict[_Key, list[_Item]]:
    groups: dict[_Key, list[_Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan
