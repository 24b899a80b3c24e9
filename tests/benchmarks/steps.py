"""Seconds and memory of training steps over a catalogue of any size."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from negrec.commandline import bench
from negrec.commandline.console import quiet
from negrec.data import targets
from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.models.base import SequenceModel
from negrec.objectives.base import Objective
from negrec.training import cost
from negrec.training.trainer import Trainer
from negrec.types import Batch, DatasetInfo, Jagged

Clock = Literal["wall", "cpu"]
CLOCKS = get_args(Clock)


@dataclass(frozen=True)
class Steps:
    """What steps cost.

    Attributes:
        seconds: of the steps together, by the clock, and of the processor in all threads.
        first: of the epoch's first step, which is none of them: some samplers prepare in it.
        steps: how many.
        queries: in all of them.
        peak_mb: the most that the process took, see ``negrec.training.cost.Peak``.
    """

    seconds: dict[Clock, float]
    first: dict[Clock, float]
    steps: int
    queries: int
    peak_mb: float

    def each(self, clock: Clock) -> float:
        """Seconds of a step."""
        return self.seconds[clock] / self.steps

    def per_1000_queries(self, clock: Clock) -> float:
        return 1000 * self.seconds[clock] / self.queries


class Note(NamedTuple):
    """When a batch was asked for, and its queries."""

    wall: float
    cpu: float
    queries: int


class Clocked(Loader):
    """A loader that notes when it is asked for a batch, and how many queries it gives.

    From one request to the next it is a step: the making of a batch belongs to it.
    """

    def __init__(self, whole: Loader) -> None:
        super().__init__(whole.sequences, whole.batch_size, whole.seed)
        self.whole = whole
        self.notes: list[Note] = []

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        for batch in self.whole.epoch(epoch, start):
            note = Note(time.perf_counter(), time.process_time(), len(batch.target))
            self.notes.append(note)
            yield batch


def shaped_like_beauty(n_items: int, users: int = 22_363) -> bench.Data:
    """Random histories of Beauty's lengths (mean 6.9) over a catalogue of any size.

    Items are drawn uniformly, so that nearly all of a batch are different ones: the most rows of
    the item table that a step can touch.
    """
    rng = np.random.default_rng(0)
    lengths = np.minimum(3 + rng.geometric(1 / 3.9, users), 200)
    items = torch.from_numpy(rng.integers(1, n_items + 1, int(lengths.sum())))
    train = Jagged(items, torch.from_numpy(np.concatenate([[0], lengths.cumsum()])))
    info = DatasetInfo(users, n_items, 50, torch.bincount(items - 1, minlength=n_items), train)
    sequences = Sequences(train, info.max_length, targets.NextItem())
    return bench.Data(f"{n_items:,} items", sequences.facts(info), sequences)


def measured(cfg: DictConfig, data: bench.Data, steps: int, warm_up: int = 2) -> Steps:
    """Trains by the trainer itself, which neither validates nor writes.

    Args:
        cfg: as ``negrec train`` composes it.
        data: what is trained on.
        steps: that are measured.
        warm_up: steps before them: the first ones allocate what the others use again.
    """
    clocked: list[Clocked] = []

    def build() -> tuple[Trainer, SequenceModel, Objective]:
        torch.manual_seed(0)
        model = instantiate(cfg.model)(data.info)
        objective = instantiate(cfg.objective)(data.info, data.sequences)
        settings = {"max_epochs": 3, "evaluate_every": 3, "checkpoint_minutes": math.inf}
        trainer = instantiate(cfg.trainer, progress=False, **settings)(data.sequences, cfg.seed)
        clocked.append(Clocked(trainer.loader))
        trainer.loader = clocked[0]
        return trainer, model, objective

    with quiet():
        found = cost.measure(build, steps + 2, warm_up)
    assert found is not None
    began, *notes = clocked[0].notes[-steps - 2 :]
    return Steps(
        between(notes[0], notes[-1]),
        between(began, notes[0]),
        steps,
        sum(note.queries for note in notes[:-1]),
        found.peak_mb or math.nan,
    )


def between(one: Note, other: Note) -> dict[Clock, float]:
    return {"wall": other.wall - one.wall, "cpu": other.cpu - one.cpu}
