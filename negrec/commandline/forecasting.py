"""How long a sweep will take, and what is left of it for a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from omegaconf import DictConfig
from rich.console import Console

from negrec.commandline import explain, plan, sweep_table
from negrec.commandline.console import quiet
from negrec.commandline.plan import Sweep
from negrec.sweeping import duration
from negrec.sweeping.forecast import Forecast, cut, probe
from negrec.sweeping.record import Record
from negrec.training.trainer import usable_cores


def foretold(sweep: Sweep, record: Record) -> tuple[Sweep, Record]:
    """The sweep, cut where its budget is too small for it, and how long it will take.

    What was decided when the command was typed first stands.

    Raises:
        InputError: a budget that is no time, too small, or not to be kept without a forecast.
    """
    settings = sweep.frame.sweep
    at_once = jobs_at_once(sweep.frame)
    forecasts = _forecasts(sweep, record.forecasts, at_once)
    if settings.budget is not None and record.seconds is None:
        known = [forecasts[cell.key] for cell in sweep.cells if cell.key in forecasts]
        budget = duration.parse(str(settings.budget))
        less = cut(known, sweep.seeds, at_once, budget)
        record = replace(record, seeds=less.seeds, max_epochs=less.max_epochs)
    if (record.seeds or record.max_epochs) and not sweep.searches:
        whole, fewer = sweep, plan.with_fewer(sweep, record.seeds, record.max_epochs)
        # The cells have new keys where they have fewer epochs; their forecasts are the old ones.
        for old, new in zip(whole.cells, fewer.cells, strict=True):
            if old.key in forecasts:
                epochs = min(forecasts[old.key].epochs, record.max_epochs or 10**9)
                forecasts[new.key] = replace(forecasts[old.key], epochs=epochs)
        sweep = fewer
    seconds = record.seconds
    if seconds is None and forecasts:
        per_cell = sweep.total if sweep.searches else None
        seconds = sum(
            forecasts[cell.key].seconds * (per_cell or len(cell.jobs))
            for cell in sweep.cells
            if cell.key in forecasts
        ) / min(at_once, max(sweep.total, 1))
    return sweep, replace(record, forecasts=forecasts, seconds=seconds, at_once=at_once)


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
        and (sweep.searches or any(sweep_table.is_open(sweep, f) for _, f in cell.jobs.values()))
    ]
    if not steps:
        return found
    threads = max(1, usable_cores() // at_once)
    console = Console(stderr=True)
    with console.status("") as status, quiet():
        for number, cell in enumerate(waiting, 1):
            status.update(f"forecast {number}/{len(waiting)}: {cell.label}")
            try:
                if number == 1:  # what the process does once is no cell's
                    probe(cell.cfg, 1, threads)
                found[cell.key] = probe(cell.cfg, steps, threads)
            except Exception as error:  # its jobs will fail the same way, and say so each
                line = explain.inside_a_job(error) or f"{type(error).__name__}: {error}"
                console.print(f"{cell.label}: will fail: {line}", soft_wrap=True, markup=False)
    return found
