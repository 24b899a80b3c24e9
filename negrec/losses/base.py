"""What every loss is, and how losses on scores run in chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from negrec.scoring import ItemScorer, chunks
from negrec.types import Negatives, Queries, Scores

# Scores beyond this many are computed in chunks of queries and again in the backward pass.
_AT_ONCE = 1 << 22


class Loss(nn.Module, ABC):
    """Judges queries against negatives: one number per query."""

    @abstractmethod
    def forward(
        self, queries: Queries, negatives: Negatives, scorer: ItemScorer
    ) -> tuple[Tensor, Scores | None]:
        """The loss of each query, (N,), and the scores it read, where they were held at once."""


class ScoreLoss(Loss):
    """A loss that reads only the scores of the target and of the candidates.

    (N, K) scores are held at once only while they are few; otherwise chunks of queries are
    computed one after the other and recomputed in the backward pass.
    """

    @abstractmethod
    def per_query(self, scores: Scores) -> Tensor:
        """The loss of each query, (N,)."""

    def forward(
        self, queries: Queries, negatives: Negatives, scorer: ItemScorer
    ) -> tuple[Tensor, Scores | None]:
        n, k = len(queries.target), negatives.items.shape[1]
        if n * k <= _AT_ONCE:
            scores = self._scores(queries, negatives, scorer, None)
            return self.per_query(scores), scores.detach()
        losses = [
            checkpoint(self._chunk, queries, negatives, scorer, part, use_reentrant=False)
            for part in chunks(n, max(1, _AT_ONCE // k))
        ]
        return torch.cat(losses), None

    def _chunk(
        self, queries: Queries, negatives: Negatives, scorer: ItemScorer, part: slice
    ) -> Tensor:
        index = torch.arange(part.start, part.stop, device=queries.target.device)
        return self.per_query(self._scores(queries, negatives, scorer, index))

    def _scores(
        self, queries: Queries, negatives: Negatives, scorer: ItemScorer, index: Tensor | None
    ) -> Scores:
        hidden, target, row = queries.hidden, queries.target, negatives.row
        target_log_q = negatives.target_log_q
        items, label, log_q = negatives.items, negatives.label, negatives.log_q
        if index is not None:
            hidden, target = hidden[index], target[index]
            label = None if label is None else label[index]
            target_log_q = None if target_log_q is None else target_log_q[index]
            if row is not None:
                row = row[index]
            elif len(items) > 1:
                items = items[index]
                log_q = None if log_q is None else log_q[index]
        if log_q is not None and row is not None:
            log_q = log_q[row]
        return Scores(
            positive=scorer.target(hidden, target),
            negative=scorer(hidden, items, row),
            valid=negatives.valid(queries, index),
            n_items=scorer.n_items,
            log_q=log_q,
            target_log_q=target_log_q,
            label=label,
        )
