"""Finished runs as a report sees them, read from their folders."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from negrec.errors import InputError

SWEEP = "sweep.json"  # stands in the folder of a sweep
# As negrec.sweeping.jobs writes them, which a report does not import: in a sweep's folder one for
# runs that others took the place of, and in a job's folder why it failed.
SUPERSEDED, FAILURE = "superseded", "failure.json"
# What only a run that began leaves behind; a folder with one of them and no run.json lost it.
_LEFT_BY_A_RUN = {"events.jsonl", "results.json", "ranks.parquet", "items.parquet", "config.yaml"}
_LEFT_BY_A_JOB = {"run.json", FAILURE, *_LEFT_BY_A_RUN}
_STATES = ("FINISHED", "RUNNING", "FAILED", "KILLED")


@dataclass(frozen=True)
class Run:
    """One run, as its folder tells it.

    Attributes:
        folder: where its files lie.
        run_id: its own id.
        status: RUNNING, FINISHED, FAILED or KILLED.
        key: hash of what determines its result.
        data_hash: of the data.
        split_hash: of what is trained on and what is held out.
        version: of negrec.
        git_commit: of negrec's checkout; None where there was none.
        sweep: name of the sweep; None for a single run.
        config: the resolved configuration by dotted key, without what cannot change the result.
        choices: the option chosen of each group, such as {"sampler": "genni"}.
        trials: how many settings were tried to tune it; 0 where it was not tuned, or by others.
        metrics: the final values ("test/hr_10", "popularity/hr_10", "cost/seconds",
            "best/value", ...), as fractions; empty unless it is finished.
        epochs: trained; 0 unless it is finished.
        best_epoch: counted from 1; 0 where nothing was trained.
        converged: whether epochs after the best one were seen.
        overrides: the words behind ``negrec train``.
        hardware: what it ran on; "" where it was not written down.
        written: when its results were written, seconds since 1970; 0 unless it is finished.
    """

    folder: Path
    run_id: str
    status: str
    key: str
    data_hash: str
    split_hash: str
    version: str
    git_commit: str | None
    sweep: str | None
    config: Mapping[str, object]
    choices: Mapping[str, str]
    trials: int
    metrics: Mapping[str, float]
    epochs: int
    best_epoch: int
    converged: bool
    overrides: tuple[str, ...] = ()
    hardware: str = ""
    written: float = 0.0

    @property
    def seed(self) -> int:
        """Of the run."""
        return int(str(self.config["seed"]))

    @property
    def published(self) -> str | None:
        """The experiment whose published values it takes, from a folder of its own in conf/tuned.

        How many settings their authors tried is not known.
        """
        experiment = self.choices.get("experiment", "None")
        tuned = self.choices.get("tuned", "")
        return experiment if not self.trials and tuned.startswith(f"{experiment}/") else None

    def metric(self, name: str) -> float:
        """A final value; NaN where the run has none."""
        return self.metrics.get(name, math.nan)

    def history(self) -> pl.DataFrame:
        """What was logged per epoch: epoch (from 0), seconds, metric, value; sorted by epoch.

        ``seconds`` are of training alone, validation left out, from the beginning to the end of
        the epoch. Of an epoch that was logged twice (a process that died between two files) the
        later values count.
        """
        values: dict[tuple[int, str], float] = {}
        with (self.folder / "events.jsonl").open("rb") as file:
            for line in file:
                # Most of the file is something else; a torn last line belongs to a killed run.
                if not line.startswith(b'{"kind": "metrics"') or not line.endswith(b"}\n"):
                    continue
                try:
                    event = json.loads(line)
                except ValueError:
                    continue  # damaged: one line must not cost the others
                if event["step"] is not None:
                    step = int(event["step"])
                    # A float is made of "nan" and "inf" too, which stand as text.
                    values |= {(step, name): float(v) for name, v in event["values"].items()}
        order = sorted({epoch for epoch, _ in values})
        passed, seconds = 0.0, {}
        for epoch in order:
            passed += values.get((epoch, "train/epoch_seconds"), 0.0)
            seconds[epoch] = passed
        rows = sorted(values)
        return pl.DataFrame(
            {
                "epoch": [epoch for epoch, _ in rows],
                "seconds": [seconds[epoch] for epoch, _ in rows],
                "metric": [name for _, name in rows],
                "value": [values[row] for row in rows],
            },
            schema={
                "epoch": pl.Int64,
                "seconds": pl.Float64,
                "metric": pl.String,
                "value": pl.Float64,
            },
        )

    def targets(self) -> pl.DataFrame:
        """Where each test target was ranked: user, target, greater, ties, cohort."""
        return pl.read_parquet(self.folder / "ranks.parquet")


@dataclass(frozen=True)
class Damaged:
    """A run folder that cannot be reported.

    Attributes:
        folder: of the run.
        reason: what is missing or broken.
    """

    folder: Path
    reason: str


@dataclass(frozen=True)
class Failed:
    """A job of a sweep that came to nothing.

    Attributes:
        folder: of the job.
        error: the reason, in one line.
        command: what repeats it alone; "" where that was not written down.
    """

    folder: Path
    error: str
    command: str


@dataclass(frozen=True)
class Runs:
    """What was found in the folders of some sweeps.

    Attributes:
        names: of the sweeps; empty where single runs were asked for.
        folders: of the sweeps.
        finished: the runs with results, in the order of their folders' names.
        unfinished: those that run, failed or were killed.
        failed: jobs of sweeps that failed, whether or not they became a run.
        damaged: those of which something was deleted.
        superseded: how many a sweep has set aside, because others took their place.
        newest: whether no sweep was named and the newest was taken.
    """

    names: tuple[str, ...]
    folders: tuple[Path, ...]
    finished: tuple[Run, ...]
    unfinished: tuple[Run, ...] = ()
    failed: tuple[Failed, ...] = ()
    damaged: tuple[Damaged, ...] = ()
    superseded: int = 0
    newest: bool = False

    @property
    def states(self) -> str:
        """Such as "2 finished, 1 failed, 1 incomplete"."""
        count = Counter(run.status for run in (*self.finished, *self.unfinished))
        if self.failed:
            count["FAILED"] += len(self.failed)
        order = [*(s for s in _STATES if s in count), *sorted(set(count) - {*_STATES})]
        listed = [f"{count[state]} {state.lower()}" for state in order]
        if self.damaged:
            listed.append(f"{len(self.damaged)} incomplete")
        return ", ".join(listed) or "none"


def read(folder: Path) -> Run | None:
    """The run of a folder; None where there is none, or not all of it."""
    try:
        return _read(folder)
    except _DamagedError:
        return None


def find(
    root: Path, names: Sequence[str] | None = None, run_ids: Sequence[str] | None = None
) -> Runs:
    """The runs of sweeps.

    Args:
        root: the folder that holds all runs (``paths.runs_dir``).
        names: of sweeps, folders in ``root``; None takes the newest sweep, or with ``run_ids``
            all of ``root``.
        run_ids: only these runs; None takes all.

    Raises:
        InputError: no such sweep or run, or none of them is finished.
    """
    newest = names is None and run_ids is None
    if names is not None:
        folders = [_sweep_folder(root, name) for name in dict.fromkeys(names)]
    elif run_ids is not None:
        folders = [root]
    else:
        folders = [_newest(root)]
    named = () if folders == [root] else tuple(_name(folder, root) for folder in folders)
    finished: list[Run] = []
    unfinished: list[Run] = []
    failed: list[Failed] = []
    damaged: list[Damaged] = []
    places = _run_folders(folders)
    set_aside = [folder for folder in places if folder.parent.name == SUPERSEDED]
    # Whoever names a run by its id means it.
    for folder in places if run_ids is not None else [p for p in places if p not in set_aside]:
        if (folder / FAILURE).exists():
            failed.append(_failed(folder))
            continue
        try:
            run = _read(folder)
        except _DamagedError as error:
            damaged.append(Damaged(folder, str(error)))
            continue
        (finished if run.status == "FINISHED" else unfinished).append(run)
    if run_ids is not None:
        known = {run.run_id for run in (*finished, *unfinished)}
        for run_id in run_ids:
            if run_id not in known:
                where = f"sweep={','.join(named)}" if named else str(root)
                raise InputError(f"runs={run_id}: no such run in {where}{_near(run_id, known)}")
        finished = [run for run in finished if run.run_id in run_ids]
        unfinished = [run for run in unfinished if run.run_id in run_ids]
        failed, damaged, set_aside = [], [], []  # nobody asked for them
    found = Runs(
        named,
        tuple(folders),
        tuple(finished),
        tuple(unfinished),
        tuple(failed),
        tuple(damaged),
        len(set_aside),
        newest,
    )
    if not finished:
        what = f"sweep={','.join(named)}" if named else f"runs={','.join(run_ids or ())}"
        raise InputError(
            f"{what} has no finished run to report (runs: {found.states}): let it end, or type "
            "its command again to go on with it"
        )
    return found


def _failed(folder: Path) -> Failed:
    try:
        record = _json(folder, FAILURE)
    except _DamagedError as error:
        return Failed(folder, str(error), "")
    return Failed(folder, str(record.get("error")), str(record.get("command") or ""))


class _DamagedError(Exception):
    """A run folder of which something is missing or broken."""


def _read(folder: Path) -> Run:
    record = _json(folder, "run.json")
    finished = record.get("status") == "FINISHED"
    results: Mapping[str, object] = {}
    written = 0.0
    if finished:
        results = _json(folder, "results.json")
        written = (folder / "results.json").stat().st_mtime
        if not (folder / "events.jsonl").is_file():
            raise _DamagedError("events.jsonl is missing")
    try:
        metrics = results.get("metrics", {})
        assert isinstance(metrics, dict)
        config = dict(record["config"])
        choices = {str(k): str(v) for k, v in dict(record["choices"]).items()}
        int(str(config["seed"]))
        return Run(
            folder=folder,
            run_id=str(record["run_id"]),
            status=str(record["status"]),
            key=str(record["key"]),
            data_hash=str(record["data_hash"]),
            split_hash=str(record["split_hash"]),
            version=str(record["version"]),
            git_commit=record.get("git_commit"),
            sweep=record.get("sweep"),
            config=config,
            choices=choices,
            trials=int(record.get("trials") or 0),
            metrics={k: math.nan if v is None else float(v) for k, v in metrics.items()},
            epochs=int(str(results.get("epochs", 0))),
            best_epoch=int(str(results.get("best_epoch", 0))),
            converged=bool(results.get("converged", False)),
            overrides=tuple(map(str, record.get("overrides", ()))),
            hardware=str(record.get("hardware") or ""),
            written=written,
        )
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        raise _DamagedError(f"run.json or results.json is not as negrec writes it: {error}") from (
            error
        )


def _json(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_bytes())
    except FileNotFoundError as error:
        raise _DamagedError(f"{name} is missing") from error
    except (OSError, ValueError) as error:
        raise _DamagedError(f"{name} cannot be read") from error
    if not isinstance(found, dict):
        raise _DamagedError(f"{name} holds no record")
    return found


def _run_folders(folders: Sequence[Path]) -> list[Path]:
    """All folders in which a run began, each once, in the order of their names."""
    found = set()
    for top in folders:
        for place, below, files in os.walk(top):
            # A sweep has events of its own, beside its record.
            if SWEEP not in files and not _LEFT_BY_A_JOB.isdisjoint(files):
                found.add(Path(place))
                below.clear()  # no run lies in another: checkpoints and Hydra's files do
            else:
                below[:] = sorted(name for name in below if not name.startswith("."))
    return sorted(found, key=_natural)


def _natural(folder: Path) -> tuple[str, int, str]:
    """Job 10 comes after job 9."""
    number, _, rest = folder.name.partition("_")
    at = int(number) if number.isdecimal() else -1
    return str(folder.parent), at, folder.name if at < 0 else rest


def _sweeps(root: Path) -> list[Path]:
    """The folders of sweeps, which may lie in a day's folder."""
    found = {path.parent for depth in ("*", "*/*") for path in root.glob(f"{depth}/{SWEEP}")}
    return sorted(found)


def _name(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix() if folder.is_relative_to(root) else folder.name


def _sweep_folder(root: Path, name: str) -> Path:
    """The folder of a sweep: its path in ``root``, or its own name where that is enough."""
    sweeps = _sweeps(root)
    of_name = [folder for folder in sweeps if name in (folder.name, _name(folder, root))]
    if len(of_name) == 1:
        return of_name[0]
    if len(of_name) > 1:
        listed = ", ".join(_name(folder, root) for folder in of_name)
        raise InputError(f"sweep={name}: several sweeps have this name, give one of {listed}")
    # Any folder of runs will do, such as that of a day.
    folder = root / name
    if name and folder.is_dir() and folder.resolve() != root.resolve() and _run_folders([folder]):
        return folder
    known = [_name(folder, root) for folder in sweeps]
    raise InputError(f"sweep={name}: no such sweep in {root}/{_near(name, known)}")


def _newest(root: Path) -> Path:
    sweeps = _sweeps(root)
    if not sweeps:
        raise InputError(
            f"there is no sweep in {root}/: `negrec train -m sampler=uniform,genni` makes one, "
            "paths.runs_dir=FOLDER names another place, runs=ID,ID reports single runs"
        )
    return max(sweeps, key=lambda folder: (folder / SWEEP).stat().st_mtime)


def _near(name: str, known: Collection[str]) -> str:
    if not known:
        return ", there are none"
    part = [other for other in sorted(known) if name and (name in other or other in name)]
    near = part or difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"; near ones: {', '.join(near[:3])}" if near else f"; there are {len(known)} others"
