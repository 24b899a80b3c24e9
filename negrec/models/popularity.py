"""The popularity ranker: what every other model has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from negrec.models.base import SequenceModel
from negrec.scoring import HistoryScorer
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
        none = torch.empty(0, dtype=torch.int64)
        # Everybody is nobody: without a history, too, items are ranked by their counts. float32,
        # as every device has it, is exact up to 2^24 interactions of an item.
        self.scorer = HistoryScorer(info.counts.float(), (none, none, none.float()), torch.ones(1))

    def forward(self, batch: Batch) -> Queries:
        return Queries.of(batch, self.scorer.nobody(len(batch.items)))

    def represent(self, batch: Batch) -> Tensor:
        return self.scorer.nobody(batch.n_sequences)
