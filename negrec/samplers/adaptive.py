"""The hardest negatives of a pool."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from negrec.kernels.tiles import chunks
from negrec.samplers.base import Sampler
from negrec.scoring import ItemScorer, queries_at_once, score_candidates
from negrec.types import DatasetInfo, Negatives, Queries, Step


class TopK(Sampler):
    """The k candidates of a pool that score highest under the present model.

    Adaptive negative sampling (Rendle & Freudenthaler, 2014, WSDM; Apple, 2024,
    arXiv:2410.17276, section 4.2); with k = 1 dynamic negative sampling (Zhang et al., 2013,
    SIGIR). The pool is scored once, after one pass of the encoder; accidental hits are ruled out
    before the choice. There is no density: log-Q cannot correct for it. What a pool with
    replacement holds twice may be kept twice.

    Hard negatives want a loss in which k of them do not outweigh the target: with BCE that is
    ``negatives="mean"``, Apple's.

    Limits: k = the pool's size is the pool; a pool of the whole catalogue (``sampler=full``) gives
    the k hardest of all items.

    Where we differ: Apple's code keeps discarded candidates with a score of 0, a constant ln 2
    each; here they are gone.

    Args:
        info: facts of the training split.
        base: makes the sampler of the pool.
        k: how many are kept, at least 1, at most the pool's size.
    """

    k: int

    def __init__(self, info: DatasetInfo, base: Callable[[DatasetInfo], Sampler], k: int) -> None:
        super().__init__(info)
        try:
            self.base = base(info)
        except ValueError as error:
            raise ValueError(f"pool: {error}") from error
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if self.base.k is not None and k > self.base.k:
            raise ValueError(f"k must not exceed the pool: k={k}, and the pool has {self.base.k}")
        if self.base.labels:
            raise ValueError(f"{self.base.name} cannot be a pool: wrap the choice from a pool")
        self.k = k

    def sample(self, queries: Queries, scorer: ItemScorer, step: Step) -> Negatives:
        pool = self.base.sample(queries, scorer, step)
        size = queries_at_once(pool, scorer)
        parts = [
            self._choose(queries.select(part), pool.select(part), scorer)
            for part in chunks(len(queries.target), size)
        ]
        items, present = (torch.cat(x) for x in zip(*parts, strict=True))
        # No hit is present. The policy stands beside it for who asks what could be drawn; of a pool
        # whose parts exclude unlike items it is no longer known which of them a column had.
        policies = {policy for policy, _ in pool.policies}
        exclude = policies.pop() if len(policies) == 1 else "none"
        return Negatives(items, exclude=exclude, present=present, drawn=(pool,))

    @property
    def parts(self) -> tuple[Sampler, ...]:
        return (self.base,)

    def _choose(
        self, queries: Queries, pool: Negatives, scorer: ItemScorer
    ) -> tuple[Tensor, Tensor]:
        """Items (n, k), and which of them are valid."""
        scores = score_candidates(queries, pool, scorer)
        valid = pool.valid(queries)
        scores = scores.masked_fill_(~valid, -torch.inf)
        column = scores.topk(min(self.k, pool.k), dim=1, sorted=False).indices
        if pool.row is not None:
            items = pool.items[pool.row[:, None], column]
        else:
            items = pool.items.expand(len(column), -1).gather(1, column)
        return items, valid.gather(1, column)
