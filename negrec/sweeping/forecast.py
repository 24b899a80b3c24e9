"""How long a cell of a sweep will take, foretold from a few steps of its own training."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from negrec import experiment
from negrec.errors import InputError
from negrec.sweeping.duration import words
from negrec.training.checkpoint import Checkpoints
from negrec.training.cost import Excerpt

_WARM_UP = 3  # steps; the first ones allocate what the others use again


@dataclass(frozen=True)
class Forecast:
    """What one run of a cell is expected to take.

    Attributes:
        start: seconds until the first step, a run before this one included.
        epoch: seconds of an epoch: training, validation, diagnostics, checkpoint.
        epochs: at the most.
        disk: bytes that the run keeps.
    """

    start: float
    epoch: float
    epochs: int
    disk: float

    @property
    def seconds(self) -> float:
        """Of the whole run, if no early stopping ends it."""
        return self.start + self.epochs * self.epoch


def probe(cfg: DictConfig, steps: int, threads: int) -> Forecast:
    """Trains a cell for some steps, in a folder that is thrown away.

    Args:
        cfg: the cell's configuration, of any seed.
        steps: that are measured, of the first epoch.
        threads: of the CPU, where the configuration leaves them open.

    Raises:
        Exception: whatever the cell's own runs would raise at their start.
    """
    before = Forecast(0, 0, 0, 0)
    if cfg.pretraining is not None:
        before = probe(experiment.pretraining(cfg), steps, threads)
    started = time.perf_counter()
    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    epochs, every = int(cfg.trainer.max_epochs), int(cfg.trainer.evaluate_every)
    # A short epoch to warm up, and one that is measured and validated.
    cfg.trainer.max_epochs, cfg.trainer.evaluate_every = 2 * min(epochs, 1), 2
    cfg.trainer.progress = False
    if cfg.trainer.threads == "auto":
        cfg.trainer.threads = threads
    parts = experiment.build(cfg)
    whole = len(parts.trainer.loader)
    trained: list[float] = []

    def log(metrics: Mapping[str, float], epoch: int) -> None:
        trained.append(metrics.get("train/epoch_seconds", 0.0))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        observer = experiment.observer_of(cfg, parts, folder)
        parts.trainer.loader = Excerpt(parts.trainer.loader, (_WARM_UP, min(steps, whole)))
        began = time.perf_counter()
        parts.trainer.fit(
            parts.model,
            parts.objective,
            Checkpoints(folder),
            validate=lambda model: parts.validate(model).metrics,
            log_metrics=log,
            observer=observer,
        )
        ended = time.perf_counter()
        disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    once = ended - began - sum(trained)  # validation, diagnostics, checkpoint
    epoch = (trained[-1] if trained else 0.0) * whole / min(steps, whole) + once / every
    # At the end the test targets are ranked three times, by the model and the baselines.
    start = before.seconds + began - started + 3 * once
    return Forecast(start, epoch, epochs, before.disk + disk)


def wall(jobs: Sequence[float], at_once: int) -> float:
    """Seconds until the last of some jobs has ended, of which so many run side by side."""
    if not jobs:
        return 0.0
    return max(sum(jobs) / min(at_once, len(jobs)), max(jobs))


@dataclass(frozen=True)
class Cut:
    """What is left of a sweep that would take too long.

    Attributes:
        seeds: how many of each cell; None: all.
        max_epochs: of every run; None: as they are.
    """

    seeds: int | None
    max_epochs: int | None


def cut(cells: Sequence[Forecast], seeds: int, at_once: int, budget: float) -> Cut:
    """Makes a sweep fit a budget: fewer seeds first, down to two, then fewer epochs.

    Two seeds are the fewest that can be compared at all.

    Args:
        cells: the forecasts of all cells.
        seeds: of each cell.
        at_once: jobs that run side by side.
        budget: seconds.

    Raises:
        InputError: not even one epoch of every cell fits, or the epochs would have to be cut and
            are not the same everywhere.
    """

    def seconds(seeds: int, epochs: float = math.inf) -> float:
        each = [cell.start + min(epochs, cell.epochs) * cell.epoch for cell in cells]
        return wall(each * seeds, at_once)

    fewest = min(seeds, 2)
    for kept in range(seeds, fewest - 1, -1):
        if seconds(kept) <= budget:
            return Cut(kept if kept < seeds else None, None)
    if seconds(fewest, 1) > budget:
        raise InputError(
            f"sweep.budget of {words(budget)} is too small: one epoch of {len(cells)} cells with "
            f"{fewest} seeds takes about {words(seconds(fewest, 1))}; give more, or fewer cells"
        )
    if len({cell.epochs for cell in cells}) > 1:
        raise InputError(
            "sweep.budget would cut the epochs, and trainer.max_epochs is not the same for all "
            "cells: give one that is, or more time"
        )
    # The time grows with every epoch, so the most that fit are found by halving.
    low, high = 1, cells[0].epochs
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if seconds(fewest, middle) <= budget else (low, middle - 1)
    return Cut(fewest if fewest < seeds else None, low)
