"""Looking at a training without taking part in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from negrec.data.interactions import Interactions
from negrec.data.sequences import Sequences
from negrec.data.splits.base import Split
from negrec.losses.base import Loss
from negrec.models.base import SequenceModel
from negrec.samplers.base import Sampler
from negrec.types import Feedback, Step
from negrec.world import World


@dataclass(frozen=True)
class Scene:
    """All that an observer may look at: held-out items too, which training never sees.

    Attributes:
        interactions: the data set.
        split: how it is divided.
        sequences: the training windows.
        sampler: the objective's; None where it has none.
        loss: the objective's; None where it has none.
        seed: the run's.
        steps: of an epoch.
        batch_size: sequences of a training batch.
        folder: the run's, for files.
    """

    interactions: Interactions
    split: Split
    sequences: Sequences
    sampler: Sampler | None
    loss: Loss | None
    seed: int
    steps: int
    batch_size: int
    folder: Path


class Observer(nn.Module):
    """Is shown every training step and changes nothing; this one does not look.

    What it sums up over an epoch lies in buffers, so that an epoch may be interrupted.

    Args:
        scene: what it may look at.
    """

    def __init__(self, scene: Scene | None = None) -> None:
        super().__init__()

    def seen(self, model: SequenceModel, step: Step, feedback: Feedback) -> None:
        """Looks at a step, after the gradient and before the weights move."""

    def collect(self, world: World) -> None:
        """Brings what the ranks have summed up to rank 0; the others begin anew."""

    def epoch(self, model: SequenceModel, epoch: int) -> dict[str, float]:
        """Metrics of the epoch that is over, from 0; the sums begin anew."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Goes on from a checkpoint; one of other diagnostics says nothing of this epoch."""
        own = {name: tensor.shape for name, tensor in self.state_dict().items()}
        if own == {name: tensor.shape for name, tensor in state.items()}:
            self.load_state_dict(state)
