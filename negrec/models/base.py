"""What every model is."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from negrec.scoring import ItemScorer
from negrec.types import Batch, Queries


class SequenceModel(nn.Module, ABC):
    """Turns interaction sequences into queries.

    Attributes:
        scorer: how its states are scored against items.
        causal: the state of a token depends on it and what precedes it in its sequence, only.
        reads: its states depend on the history, and not on the user alone.
        hides: it reads items that are not told, id 0 (``HIDDEN``).
    """

    scorer: ItemScorer
    causal: ClassVar[bool] = True
    reads: ClassVar[bool] = True
    hides: bool = False

    @abstractmethod
    def forward(self, batch: Batch) -> Queries:
        """The queries of a training batch."""

    @abstractmethod
    def represent(self, batch: Batch) -> Tensor:
        """The state after the newest item of each sequence, for inference, (B, D)."""
