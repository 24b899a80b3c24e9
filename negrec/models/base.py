"""What every model is."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from negrec.scoring import ItemScorer
from negrec.types import Batch, Queries


class SequenceModel(nn.Module, ABC):
    """Turns interaction sequences into queries.

    Attributes:
        scorer: how its states are scored against items.
    """

    scorer: ItemScorer

    @abstractmethod
    def forward(self, batch: Batch) -> Queries:
        """The queries of a training batch."""

    @abstractmethod
    def represent(self, batch: Batch) -> Tensor:
        """The state after the newest item of each sequence, for inference, (B, D)."""
