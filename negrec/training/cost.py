"""What a training step costs: time, the sampler's share of it, and memory."""

from __future__ import annotations

import ctypes
import gc
import itertools
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from negrec.data.loader import Loader
from negrec.models.base import SequenceModel
from negrec.objectives.base import Objective
from negrec.training.checkpoint import Checkpoint, Checkpoints
from negrec.training.trainer import Trainer
from negrec.types import Batch

_PROC = Path("/proc/self")

# What `Cost.peak_mb` counts, for people.
MEMORY = (
    "the most that the process took on the CPU while the pair was trained, data and interpreter "
    "included; on CUDA the most that tensors took there"
)


@dataclass(frozen=True)
class Cost:
    """What some steps of a training cost.

    Attributes:
        seconds: for 1,000 queries.
        sampler_share: of these, spent in the sampler, in [0, 1].
        peak_mb: see ``Peak``; None where it cannot be told in this process.
    """

    seconds: float
    sampler_share: float
    peak_mb: float | None


Build = Callable[[], tuple[Trainer, SequenceModel, Objective]]


def measure(build: Build, steps: int, warm_up: int = 2) -> Cost | None:
    """Trains for some steps with the trainer itself, which writes nothing.

    Args:
        build: makes the parts, whose memory counts. The trainer needs ``max_epochs=3`` and
            ``evaluate_every=3``: it is left after the second epoch, before it would validate.
        steps: that are measured.
        warm_up: steps before them: the first ones allocate what the others use again.

    Returns:
        None where there is nothing to train.
    """
    peak = Peak()
    trainer, model, objective = build()
    assert (trainer.max_epochs, trainer.evaluate_every) == (3, 3)
    trainer.loader = excerpt = Excerpt(trainer.loader, (warm_up, steps))
    logged: dict[str, float] = {}

    def log(metrics: Mapping[str, float], epoch: int) -> None:
        if epoch == 1:
            logged.update(metrics)
            raise _MeasuredError

    with tempfile.TemporaryDirectory() as folder, suppress(_MeasuredError):
        trainer.fit(model, objective, _Unsaved(Path(folder)), lambda _: {}, log)
    if not logged:
        return None
    seconds = logged["train/epoch_seconds"]
    each = 1000 * seconds / excerpt.queries
    return Cost(each, logged["train/sampler_share"], peak.mb(trainer.device))


class _MeasuredError(Exception):
    """Ends a training whose costs are known."""


class _Unsaved(Checkpoints):
    """Checkpoints that are not written: their memory and time are not the steps'."""

    def save_last(self, checkpoint: Checkpoint) -> None:
        pass


class Excerpt(Loader):
    """Epochs of so many batches: a loader's own epochs, one after the other, cut off.

    Args:
        whole: the loader.
        sizes: batches of epoch 0 and of epoch 1.

    Attributes:
        queries: in the batches of the last epoch.
    """

    def __init__(self, whole: Loader, sizes: tuple[int, int]) -> None:
        super().__init__(whole.sequences, whole.batch_size, whole.seed)
        self.whole = whole
        self.sizes = sizes
        self.queries = 0

    def __len__(self) -> int:
        return max(self.sizes)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        self.queries = 0
        batches = (batch for e in itertools.count(epoch) for batch in self.whole.epoch(e))
        for batch in itertools.islice(batches, start, self.sizes[epoch]):
            self.queries += len(batch.target)
            yield batch


class Peak:
    """The most memory in use since this was made, in MB.

    On CUDA what tensors took there; else what the whole process took (its resident set): the
    interpreter and the data as well as model, optimiser and step. Linux can forget an earlier
    peak; elsewhere a process has one for all its life, and only a fresh one can tell.
    """

    def __init__(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        self._reset = _forget_peak()

    def mb(self, device: torch.device) -> float | None:
        """Of a training on the given device."""
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated(device) / 1e6
        return _resident_peak() if self._reset else None


def lifetime_peak_mb(device: torch.device) -> float:
    """The most memory that this process ever took, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _forget_peak() -> bool:
    """Lets Linux count the process's peak anew; False where it cannot."""
    with suppress(AttributeError, OSError):  # another C library than GNU's
        # What was freed is still the process's until it is handed back.
        ctypes.CDLL(None).malloc_trim(0)
    try:
        (_PROC / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident_peak() -> float:
    (line,) = [s for s in (_PROC / "status").read_text().splitlines() if s.startswith("VmHWM")]
    return int(line.split()[1]) * 1024 / 1e6
