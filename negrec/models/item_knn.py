"""ItemKNN: nearest neighbours between items (Sarwar et al., 2001; Deshpande & Karypis, 2004)."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from negrec.kernels.tiles import chunks
from negrec.models.base import SequenceModel
from negrec.scoring import HistoryScorer
from negrec.types import Batch, DatasetInfo, Jagged, Queries

_CELLS = 1 << 22  # similarities that are held at once while the nearest are sought
_TINY = 2.0**-64


class ItemKNN(SequenceModel):
    r"""Ranks items by their similarity to the items of the history.

    .. math:: s(h, j) = \sum_{i \in h,\ j \in N_k(i)} \frac{|U_i \cap U_j|}
       {\sqrt{|U_i| |U_j|} + \lambda}

    where U_i are the users who took item i in training, N_k(i) the k items most similar to i (of
    equally similar ones those with the smallest ids; never i itself, and none without a common
    user), and h the distinct items among the newest ``info.max_length``. With shrink 0 it is the
    cosine of two columns of the binary user-item matrix. Deshpande & Karypis, 2004
    (doi:10.1145/963770.963776, section 4), without their normalisation of the rows.

    Items of score 0 are ranked by popularity: 2^-64 c_j / max c is added to every score, too
    little to change a similarity in float32, and enough to order zeros.

    It has no parameters: there is nothing to train.

    Args:
        info: facts of the training split, with the histories.
        neighbours: k, items kept per item, at least 1.
        shrink: lambda, not negative; the larger, the less a few common users count.
    """

    scorer: HistoryScorer

    def __init__(self, info: DatasetInfo, neighbours: int = 100, shrink: float = 0.0) -> None:
        super().__init__()
        if neighbours < 1:
            raise ValueError(f"neighbours must be at least 1, got {neighbours}")
        if not 0 <= shrink < float("inf"):
            raise ValueError(f"shrink must be finite and not negative, got {shrink}")
        if info.train is None:
            raise ValueError("model=item_knn compares items: it needs info.train, the histories")
        item, near, similarity = nearest(info.train, info.n_items, neighbours, shrink)
        popularity = info.counts.double() / info.counts.max().clamp(min=1)
        self.scorer = HistoryScorer(
            (_TINY * popularity).float(),
            (item, near, similarity.float()),
            torch.ones(info.max_length),
        )

    def forward(self, batch: Batch) -> Queries:
        every = torch.arange(len(batch.items), device=batch.items.device)
        return Queries.of(batch, self.scorer.histories(batch, every))

    def represent(self, batch: Batch) -> Tensor:
        return self.scorer.histories(batch, batch.last)


def nearest(
    train: Jagged, n_items: int, neighbours: int, shrink: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The most similar items of each item, (M,) each.

    Args:
        train: the users' items.
        n_items: size V of the catalogue.
        neighbours: k.
        shrink: lambda.

    Returns:
        Items i, ids j of their neighbours, and the similarities, float64.
    """
    user, column = train.row.numpy(), train.values.numpy() - 1
    taken = sparse.csr_array(
        (np.ones(len(user), dtype=np.int32), (user, column)), shape=(len(train), n_items)
    )
    taken.data[:] = 1  # repeats were added up
    by_item = taken.T.tocsr()  # (V, users)
    users = np.diff(by_item.indptr).astype(np.float64)  # |U_i|
    found = []
    for rows in chunks(n_items, max(1, _CELLS // n_items)):
        common = (by_item[rows] @ taken).tocoo()  # |U_i and U_j|, stored where it is positive
        i, j = common.row + rows.start, common.col
        similarity = common.data / (np.sqrt(users[i] * users[j]) + shrink)
        similarity[i == j] = 0
        order = np.lexsort((j, -similarity, i))
        i, j, similarity = i[order], j[order], similarity[order]
        place = np.arange(len(i)) - np.searchsorted(i, i)
        kept = (place < neighbours) & (similarity > 0)
        found.append((i[kept] + 1, j[kept] + 1, similarity[kept]))
    item, near, value = (
        torch.from_numpy(np.concatenate(part)) for part in zip(*found, strict=True)
    )
    return item.long(), near.long(), value
