"""The repeat ranker: what a user took lately comes first."""

from __future__ import annotations

import torch
from torch import Tensor

from negrec.models.base import SequenceModel
from negrec.scoring import HistoryScorer
from negrec.types import Batch, DatasetInfo, Queries


class RepeatLast(SequenceModel):
    r"""Ranks the items of the history by recency, the newest first, then all others by popularity.

    .. math:: s(h, j) = \frac{c_j}{2 \max_k c_k} + \begin{cases} L - l & \text{if } j \text{ is
       the item } l \text{ back, 0 being the newest} \\ 0 & \text{if it is not in } h \end{cases}

    where L is ``info.max_length`` and c_j the training count. The first term is at most 1/2: it
    never outweighs a place. Where seen items are filtered out of rankings this is popularity.

    It has no parameters: there is nothing to train.

    Args:
        info: facts of the training split.
    """

    scorer: HistoryScorer

    def __init__(self, info: DatasetInfo) -> None:
        super().__init__()
        # Counts up to 2^24 keep their order in float32.
        popularity = info.counts.double() / (2 * info.counts.max().clamp(min=1))
        itself = torch.arange(1, info.n_items + 1)
        self.scorer = HistoryScorer(
            popularity.float(),
            (itself, itself, torch.ones(info.n_items)),
            torch.arange(info.max_length, 0, -1).float(),
        )

    def forward(self, batch: Batch) -> Queries:
        every = torch.arange(len(batch.items), device=batch.items.device)
        return Queries.of(batch, self.scorer.histories(batch, every))

    def represent(self, batch: Batch) -> Tensor:
        return self.scorer.histories(batch, batch.last)
