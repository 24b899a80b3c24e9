"""What every model is."""

from typing import ClassVar

from torch import Tensor, nn

from negrec.scoring import ItemScorer
from negrec.types import Batch, Queries


class SequenceModel(nn.Module):
    """Turns interaction sequences into queries.

    Attributes:
        scorer: how its states are scored against items.
        targets: name of the class in ``negrec.data.targets`` that says which positions of a
            training sequence carry targets.
    """

    scorer: ItemScorer
    targets: ClassVar[str] = "NextItem"

    def forward(self, batch: Batch) -> Queries:
        """The queries of a training batch."""
        raise NotImplementedError

    def represent(self, batch: Batch) -> Tensor:
        """The state after the newest item of each sequence, for inference, (B, D)."""
        raise NotImplementedError
