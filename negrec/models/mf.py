"""MF: matrix factorisation (Rendle et al., 2009)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from negrec.models.base import SequenceModel
from negrec.models.layers import UserVectors
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo, Queries


class MF(SequenceModel):
    r"""A vector for each user and each item; the order of the history does not matter.

    .. math:: s(u, i) = p_u \cdot e_i + b_i

    With ``loss=bpr`` this is MF-BPR: Rendle et al., 2009 (arXiv:1205.2618, sections 4 and 4.3.1).
    p_u is zero for users that training never shows, so that they are ranked for by the biases
    alone, if the scorer has them.

    Where we differ: the paper has no bias; it draws triples (u, i, j) with replacement, we visit
    every interaction once an epoch; it regularises by the L2 norm, here
    ``trainer.optimizer.weight_decay`` does.

    Args:
        info: facts of the training split.
        dim: D.
        init_std: standard deviation of the normal initialisation; biases start at 0.
        scorer: makes the scorer from V, D and a standard deviation.
    """

    reads = False

    def __init__(
        self,
        info: DatasetInfo,
        dim: int = 64,
        init_std: float = 0.02,
        scorer: Callable[..., ItemScorer] = ItemScorer,
    ) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}")
        self.scorer = scorer(info.n_items, dim, init_std)
        self.users = UserVectors(info, dim, init_std)

    def forward(self, batch: Batch) -> Queries:
        return Queries.of(batch, self.represent(batch)[batch.sequence])

    def represent(self, batch: Batch) -> Tensor:
        return self.scorer.query(self.users(batch.user))
