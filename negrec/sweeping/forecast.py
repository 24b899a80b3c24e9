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
        start: seconds until the first step.
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
    started = time.perf_counter()
    cfg = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    epochs, every = int(cfg.trainer.max_epochs), int(cfg.trainer.evaluate_every)
    # A short epoch to warm up, and one that is measured and validated.
    cfg.trainer.max_epochs, cfg.trainer.evaluate_every = min(epochs, 2), 2
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
    return Forecast(began - started + 3 * once, epoch, epochs, disk)


@dataclass(frozen=True)
class Cut:
    """What is left of a sweep that would take too long.

    Attributes:
        seeds: how many of each cell.
        max_epochs: of every run; None where they stay as they are.
    """

    seeds: int
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
        InputError: not even one epoch of every cell fits.
    """
    allowed = budget * at_once
    whole = sum(cell.seconds for cell in cells)
    fitting = math.floor(allowed / whole) if whole else seeds
    if fitting >= min(seeds, 2):
        return Cut(min(fitting, seeds), None)
    seeds = min(seeds, 2)

    def seconds(epochs: int) -> float:
        return seeds * sum(c.start + min(epochs, c.epochs) * c.epoch for c in cells)

    epochs = max(cell.epochs for cell in cells)
    if seconds(1) > allowed:
        raise InputError(
            f"sweep.budget of {words(budget)} is too small: one epoch of {len(cells)} cells with "
            f"{seeds} seeds takes about {words(seconds(1) / at_once)}; give more, or fewer cells"
        )
    # The time grows with every epoch, so the most that fit are found by halving.
    low, high = 1, epochs
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if seconds(middle) <= allowed else (low, middle - 1)
    return Cut(seeds, low)
