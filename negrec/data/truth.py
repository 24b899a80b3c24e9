"""The true distribution of made-up interactions, as a model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from negrec.scoring import FixedScorer
from negrec.types import Batch

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Process:
    """The parameters of the process.

    Attributes:
        log_popularity: -s log r_i of each item, (V,).
        cluster: of each item, 0..C - 1, (V,).
        factors: f of each item, (V, F).
        taste: t of each user, (U, F).
        affinity: T, from the last item's cluster to the next one's, (C, C).
    """

    log_popularity: Floats
    cluster: NDArray[np.int64]
    factors: Floats
    taste: Floats
    affinity: Floats


class Truth(nn.Module):
    """The true distribution as a model that ranks no worse than any other.

    Its scores are log P(next item) up to a constant of the query. Seen items, which never come
    again, are left to the evaluation's ``seen=filter``.

    Args:
        process: the process that the data come from.
        catalogue: the process's item of each catalogue id 1..V, (V,); all items by default.

    Attributes:
        scorer: with ``matrix`` (V, D): [log popularity, factors, one-hot cluster] of each item.
    """

    def __init__(self, process: Process, catalogue: NDArray[np.int64] | None = None) -> None:
        super().__init__()
        self.process = process
        n_clusters = len(process.affinity)
        items = np.arange(len(process.cluster)) if catalogue is None else np.asarray(catalogue)
        cluster = process.cluster[items]
        matrix = np.concatenate(
            [
                process.log_popularity[items, None],
                process.factors[items],
                np.eye(n_clusters)[cluster],
            ],
            axis=1,
        )
        self.scorer = FixedScorer(torch.from_numpy(matrix).float())
        # Id 0, an item outside the catalogue, says nothing of the next one.
        no_cluster = np.concatenate([[n_clusters], cluster])
        affinity = np.concatenate([process.affinity, np.zeros((1, n_clusters))])
        self.cluster: Tensor
        self.taste: Tensor
        self.affinity: Tensor
        self.register_buffer("cluster", torch.from_numpy(no_cluster))
        self.register_buffer("taste", torch.from_numpy(process.taste).float())
        self.register_buffer("affinity", torch.from_numpy(affinity).float())

    @property
    def matrix(self) -> Tensor:
        """(V, D)."""
        return self.scorer.matrix

    def for_catalogue(self, catalogue: NDArray[np.int64]) -> Truth:
        """The same truth in the ids of a split."""
        return Truth(self.process, catalogue)

    def hidden(self, user: Tensor, last: Tensor) -> Tensor:
        """[1, taste, affinities of the last item's cluster], (..., D).

        Args:
            user: user index, (...,).
            last: catalogue id of the newest item, 0 for none, (...,).
        """
        one = self.taste.new_ones(*user.shape, 1)
        return torch.cat([one, self.taste[user], self.affinity[self.cluster[last]]], dim=-1)

    def represent(self, batch: Batch) -> Tensor:
        """The state after the newest item of each sequence, (B, D)."""
        return self.hidden(batch.user, batch.items[batch.last])

    def log_prob(self, user: Tensor, last: Tensor, seen: Tensor) -> Tensor:
        """The log of P(next item), -inf where it was seen, (..., V).

        Args:
            user: user index, (...,).
            last: catalogue id of the newest item, 0 for none, (...,).
            seen: items of the history, (..., V) bool.
        """
        scores = self.hidden(user, last) @ self.matrix.T
        return scores.masked_fill(seen, -torch.inf).log_softmax(dim=-1)
