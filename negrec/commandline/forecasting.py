"""How long a sweep will take, and what is left of it for a budget."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from omegaconf import DictConfig
from rich.console import Console

from negrec import identity
from negrec.commandline import explain, plan
from negrec.commandline.console import quiet
from negrec.commandline.plan import Cell, Sweep
from negrec.errors import InputError
from negrec.sweeping import duration
from negrec.sweeping.forecast import Cut, Forecast, cut, probe, wall
from negrec.sweeping.record import Order, Record
from negrec.training.trainer import usable_cores


@dataclass(frozen=True)
class Outlook:
    """What a sweep will be.

    Attributes:
        sweep: cut where its budget is too small for it.
        forecasts: of its cells, by their keys; a cell that cannot run has none.
        at_once: jobs that run side by side.
        cut: what is left of it; None where it has no budget.
    """

    sweep: Sweep
    forecasts: Mapping[str, Forecast]
    at_once: int
    cut: Cut | None

    @property
    def open_jobs(self) -> int:
        """Jobs that are to run."""
        return sum(self.todo(cell) for cell in self.sweep.cells)

    def todo(self, cell: Cell) -> int:
        """Jobs of a cell that are to run."""
        if self.sweep.searches:
            return self.sweep.total
        return sum(self.sweep.is_open(folder) for _, folder in cell.jobs.values())

    @property
    def waiting(self) -> list[float]:
        """Seconds foretold of each job that is to run and has a forecast."""
        return [
            self.forecasts[cell.key].seconds
            for cell in self.sweep.cells
            if cell.key in self.forecasts
            for _ in range(self.todo(cell))
        ]

    @property
    def order(self) -> Order:
        """For the sweep's record."""
        left = self.cut or Cut(None, None)
        seconds = wall(self.waiting, self.at_once) if self.waiting else None
        about = (self.open_jobs, seconds, self.at_once, left.seeds, left.max_epochs)
        return Order(self.sweep.command, time.time(), *about)


def foretold(sweep: Sweep, record: Record) -> tuple[Outlook, Record]:
    """How long the sweep will take, and what of it a budget leaves.

    What was decided for a budget stands when the same command is typed again.

    Raises:
        InputError: a budget that is no time, too small, or not to be kept without a forecast.
    """
    settings = sweep.frame.sweep
    at_once = jobs_at_once(sweep.frame)
    if settings.budget is None:
        forecasts = _forecasts(sweep, record.forecasts, at_once)
        record = replace(record, forecasts=forecasts)
        return Outlook(sweep, forecasts, at_once, None), record
    budget = duration.parse(str(settings.budget))
    if sweep.searches:
        raise InputError("sweep.budget cuts seeds; give a search hydra.sweeper.n_trials=N instead")
    if not settings.probe:
        raise InputError("sweep.budget wants a forecast: leave out sweep.probe=0")
    about = [sorted(cell.key for cell in sweep.cells), list(_seeds(sweep)), budget]
    key = identity.digest(about)
    forecasts = _forecasts(sweep, record.forecasts, at_once)
    if key not in record.cuts:
        known = [forecasts[cell.key] for cell in sweep.cells if cell.key in forecasts]
        left = cut(known, len(_seeds(sweep)), at_once, budget)
        record = replace(record, cuts={**record.cuts, key: left})
    left = record.cuts[key]
    fewer = plan.with_fewer(sweep, left.seeds, left.max_epochs)
    # Cells with fewer epochs have keys of their own; what an epoch takes is the same.
    for old, new in zip(sweep.cells, fewer.cells, strict=True):
        if old.key in forecasts:
            epochs = left.max_epochs or forecasts[old.key].epochs
            forecasts[new.key] = replace(forecasts[old.key], epochs=epochs)
    record = replace(record, forecasts=forecasts)
    return Outlook(fewer, forecasts, at_once, left), record


def _seeds(sweep: Sweep) -> Sequence[int]:
    """Of the cell that has most."""
    return list(max(sweep.cells, key=lambda cell: len(cell.jobs)).jobs)


def jobs_at_once(frame: DictConfig) -> int:
    """How many jobs the launcher runs side by side, as far as its configuration tells."""
    launcher, cores = frame.hydra.launcher, usable_cores()
    if "n_jobs" in launcher:
        wanted = int(launcher.n_jobs)
        return max(1, cores + 1 + wanted if wanted < 0 else wanted)
    if "array_parallelism" in launcher:
        return int(launcher.array_parallelism)
    if "ray" in launcher:
        there: float = launcher.ray.init.get("num_cpus") or cores
        each: float = launcher.ray.remote.get("num_cpus", 1)
        return max(1, math.floor(there / each))
    return cores if "submitit_folder" in launcher else 1


def _forecasts(sweep: Sweep, known: Mapping[str, Forecast], at_once: int) -> dict[str, Forecast]:
    """The forecasts of all cells with something to do; a cell that cannot run has none."""
    found = dict(known)
    steps = int(sweep.frame.sweep.probe)
    waiting = [
        cell
        for cell in sweep.cells
        if cell.key not in found
        and (sweep.searches or any(sweep.is_open(f) for _, f in cell.jobs.values()))
    ]
    if not steps:
        return found
    threads = max(1, usable_cores() // at_once)
    warm = False
    console = Console(stderr=True)
    with console.status("") as status, quiet():
        for number, cell in enumerate(waiting, 1):
            status.update(f"forecast {number}/{len(waiting)}: {cell.label}")
            try:
                if not warm:  # what the process does once is no cell's
                    # A model without parameters keeps nothing, and the first training is to come.
                    warm = probe(cell.cfg, 1, threads).disk > 0
                found[cell.key] = probe(cell.cfg, steps, threads)
            except Exception as error:  # its jobs will fail the same way, and say so each
                line = explain.inside_a_job(error) or f"{type(error).__name__}: {error}"
                console.print(f"{cell.label}: will fail: {line}", soft_wrap=True, markup=False)
    return found
