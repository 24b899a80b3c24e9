"""What every loss is, and how losses on scores run in chunks."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from negrec.kernels.tiles import chunks
from negrec.scoring import ItemScorer, queries_at_once
from negrec.types import Judgement, Negatives, Queries, Scores


class Loss(nn.Module, ABC):
    """Judges queries against negatives: one number per query.

    Attributes:
        reads_labels: candidates labelled 1 count as positives.
        needs_density: what a sampler draws from must have a density.
        needs_target_density: where there must be a density, also at the targets, which nobody
            draws.
        needs_exhaustive: the candidates must be the whole catalogue.
    """

    reads_labels: bool = False
    needs_density: bool = False
    needs_target_density: bool = True
    needs_exhaustive: bool = False

    @abstractmethod
    def forward(self, queries: Queries, negatives: Negatives, scorer: ItemScorer) -> Judgement:
        """Judges N queries; those without a valid candidate are skipped."""


class ScoreLoss(Loss):
    """A loss that reads only the scores of the target and of the candidates.

    (N, K) scores are held at once only while they are few; otherwise chunks of queries are
    computed one after the other and recomputed in the backward pass.
    """

    @abstractmethod
    def per_query(self, scores: Scores) -> Tensor:
        """The loss of each query, (N,); finite where no candidate is valid."""

    def forward(self, queries: Queries, negatives: Negatives, scorer: ItemScorer) -> Judgement:
        n, size = len(queries.target), queries_at_once(negatives, scorer)
        if n <= size:
            scores = score(queries, negatives, scorer)
            judged = scores.count > 0
            loss = torch.where(judged, self.per_query(scores), 0)
            return Judgement(loss, judged, scores.detach())
        parts = [
            checkpoint(self._chunk, queries, negatives, scorer, part, use_reentrant=False)
            for part in chunks(n, size)
        ]
        return Judgement(torch.cat([loss for loss, _ in parts]), torch.cat([j for _, j in parts]))

    def _chunk(
        self, queries: Queries, negatives: Negatives, scorer: ItemScorer, part: slice
    ) -> tuple[Tensor, Tensor]:
        scores = score(queries.select(part), negatives.select(part), scorer)
        judged = scores.count > 0
        return torch.where(judged, self.per_query(scores), 0), judged


def score(queries: Queries, negatives: Negatives, scorer: ItemScorer) -> Scores:
    """Scores N queries against their targets and their K candidates, all at once."""
    hidden, target, log_q = queries.hidden, queries.target, negatives.log_q
    if negatives.exhaustive:
        positive, negative = scorer.target(hidden, target), scorer.every(hidden)
    else:
        positive, negative = scorer.with_target(hidden, target, negatives.items, negatives.row)
    return Scores(
        positive,
        negative,
        valid=negatives.valid(queries),
        n_items=scorer.n_items,
        log_q=None if log_q is None else negatives.of(log_q),
        target_log_q=negatives.target_log_q,
        label=negatives.label,
    )
