"""What a training step minimises."""

from abc import ABC, abstractmethod

from torch import nn

from negrec.data.sequences import Sequences
from negrec.models.base import SequenceModel
from negrec.types import Batch, DatasetInfo, Feedback, Outcome, Step


class Objective(nn.Module, ABC):
    """All that the trainer knows of how a model learns.

    Args:
        info: facts of the training split.
        sequences: the training windows, for objectives that build further views of a batch.

    Attributes:
        sharded: of a rank's part of a batch it gives that part's share of the loss, see
            ``Outcome``; otherwise one process has to train.
    """

    sharded: bool = False

    def __init__(self, info: DatasetInfo, sequences: Sequences) -> None:
        super().__init__()

    def bind(self, model: SequenceModel) -> None:
        """Makes teachers, heads and memories; called before the optimiser and before resume."""

    @abstractmethod
    def forward(self, model: SequenceModel, batch: Batch, step: Step) -> Outcome:
        """The loss of a batch, a scalar with gradient."""

    def observe(self, model: SequenceModel, feedback: Feedback) -> None:
        """Learns from a finished step, after the optimiser."""

    def evaluated(self, model: SequenceModel) -> SequenceModel:
        """What validation and test look at."""
        return model
