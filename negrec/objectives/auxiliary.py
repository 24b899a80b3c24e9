"""Ranking, with a term beside it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from negrec.data.sequences import Sequences
from negrec.losses.base import Loss
from negrec.models.base import SequenceModel
from negrec.objectives.ranking import Ranking
from negrec.samplers.base import Sampler
from negrec.types import Batch, DatasetInfo, Outcome, Queries, Step


class RankingWithAuxiliary(Ranking):
    r"""Ranking plus a weighted auxiliary loss; what it is, a subclass says.

    .. math:: L = \rho L_\text{ranking} + \lambda L_\text{auxiliary}

    with rho = 1 unless a subclass says otherwise. Limits: lambda = 0 trains as ``Ranking`` does,
    and the auxiliary loss is not worked out.

    Args:
        info: facts of the training split.
        sequences: the training windows.
        sampler: see ``Ranking``.
        loss: see ``Ranking``.
        false_negatives: see ``Ranking``.
        weight: lambda, at least 0.
    """

    sharded = False  # not before a subclass says so of its term
    ranking = 1.0  # rho

    def __init__(
        self,
        info: DatasetInfo,
        sequences: Sequences,
        sampler: Callable[[DatasetInfo], Sampler],
        loss: Loss,
        false_negatives: Callable[[DatasetInfo, Sampler], Sampler] | None = None,
        weight: float = 0.1,
    ) -> None:
        super().__init__(info, sequences, sampler, loss, false_negatives)
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight must be at least 0 and finite, got {weight}")
        self.weight = weight

    @abstractmethod
    def auxiliary(self, model: SequenceModel, batch: Batch, queries: Queries, step: Step) -> Tensor:
        """The auxiliary loss of a batch, or a part's share of it, a scalar with gradient.

        Args:
            model: what is trained.
            batch: the training batch.
            queries: what the model answered it with, with gradient.
            step: whose generator the sampler has drawn from before.
        """

    def forward(self, model: SequenceModel, batch: Batch, step: Step) -> Outcome:
        outcome, queries, _ = self.rank(model, batch, step)
        ranking = self.ranking * outcome.loss
        if self.weight == 0:
            return replace(outcome, loss=ranking)
        auxiliary = self.auxiliary(model, batch, queries, step)
        return replace(
            outcome,
            loss=ranking + self.weight * auxiliary,
            terms={"ranking": outcome.loss.detach(), "auxiliary": auxiliary.detach()},
        )
