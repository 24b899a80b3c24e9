"""The first-order Markov chain: what usually follows the newest item."""

from __future__ import annotations

import torch
from torch import Tensor

from negrec.models.base import SequenceModel
from negrec.scoring import HistoryScorer
from negrec.types import Batch, DatasetInfo, Jagged, Queries


class Markov(SequenceModel):
    r"""Ranks items by how often they came right after the newest item in training histories.

    .. math:: s(h, j) = (1 - \beta) \frac{n_{ij}}{n_i} + \beta \frac{c_j}{\sum_k c_k}

    where i is the newest item of h, n_ij how often a user took j right after i, n_i the sum over
    j, and c_j the training count. It is the probability of j given i, smoothed by interpolation
    (Jelinek & Mercer, 1980). Items that never followed i are ranked by popularity; so are all
    items where nothing ever followed i, or there is no history. A seen successor scores at least
    (1 - beta) / n_i: it stands above them all unless n_i is in the thousands or beta is large.

    It has no parameters: there is nothing to train.

    Args:
        info: facts of the training split, with the histories.
        backoff: beta, weight of the popularity, in (0, 1).
    """

    scorer: HistoryScorer

    def __init__(self, info: DatasetInfo, backoff: float = 0.1) -> None:
        super().__init__()
        if not 0 < backoff < 1:
            raise ValueError(f"backoff must be in (0, 1), got {backoff}")
        if info.train is None:
            raise ValueError("model=markov counts transitions: it needs info.train, the histories")
        item, following, share = transitions(info.train, info.n_items)
        popularity = info.counts.double() / info.counts.sum().clamp(min=1)
        self.scorer = HistoryScorer(
            (backoff * popularity).float(),
            (item, following, ((1 - backoff) * share).float()),
            torch.ones(1),
        )

    def forward(self, batch: Batch) -> Queries:
        every = torch.arange(len(batch.items), device=batch.items.device)
        return Queries.of(batch, self.scorer.histories(batch, every))

    def represent(self, batch: Batch) -> Tensor:
        return self.scorer.histories(batch, batch.last)


def transitions(train: Jagged, n_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """The transitions that occur in histories, each once, (M,) each.

    Args:
        train: histories, oldest item first.
        n_items: size V of the catalogue.

    Returns:
        Items i, ids j of what came right after them, and the shares n_ij / n_i, float64.
    """
    same_user = train.row[1:] == train.row[:-1]
    item, following = train.values[:-1][same_user], train.values[1:][same_user]
    stride = n_items + 1
    keys, times = torch.unique(item * stride + following, return_counts=True)
    leavings = torch.bincount(item, minlength=stride)  # n_i
    item = keys // stride
    return item, keys % stride, times.double() / leavings[item]
