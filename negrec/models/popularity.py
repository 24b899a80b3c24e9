"""The popularity ranker: what every other model has to beat."""

from __future__ import annotations

from torch import Tensor

from negrec.models.base import SequenceModel
from negrec.scoring import FixedScorer
from negrec.types import Batch, DatasetInfo, Queries


class Popularity(SequenceModel):
    r"""Ranks items by their training counts, the same way for every user.

    .. math:: s(h, i) = c_i

    It has no parameters: there is nothing to train.

    Args:
        info: facts of the training split.
    """

    reads = False

    def __init__(self, info: DatasetInfo) -> None:
        super().__init__()
        # float32, as every device has it: exact up to 2^24 interactions of an item.
        self.scorer = FixedScorer(info.counts[:, None].float())

    def forward(self, batch: Batch) -> Queries:
        return Queries.of(batch, self._ones(len(batch.items)))

    def represent(self, batch: Batch) -> Tensor:
        return self._ones(batch.n_sequences)

    def _ones(self, rows: int) -> Tensor:
        return self.scorer.matrix.new_ones(rows, 1)
