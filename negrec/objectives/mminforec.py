"""Ranking, with multi-instance noise contrastive estimation over several coming items."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from negrec.data.sequences import Sequences
from negrec.kernels.tiles import chunks
from negrec.losses.base import Loss
from negrec.models.base import SequenceModel
from negrec.models.layers import Dropout
from negrec.objectives.auxiliary import RankingWithAuxiliary
from negrec.samplers.base import Sampler
from negrec.types import Batch, DatasetInfo, Queries, Step

_SCORES = 1 << 22  # scores that are held at once (16 MiB)


@runtime_checkable
class Foretells(Protocol):
    """A model that goes on from its state for the next item to the items after it."""

    def following(self, hidden: Tensor, steps: int) -> list[Tensor]:
        """States for the ``steps`` items after the next one, given that for the next (N, D)."""
        ...


class RankingWithMINCE(RankingWithAuxiliary):
    r"""Ranking, and multi-instance contrast (MINCE) of the states for the S coming items.

    .. math:: L = \rho L_\text{ranking} + \lambda \, \mathrm{mean}_{t, s} \,
       \ell(\hat z_{t+s}, i_{t+s}), \quad \ell(z, i) = -\log \frac{\sum_j \exp(z \cdot e_i^j /
       \tau)} {\sum_j \exp(z \cdot e_i^j / \tau) + \sum_{c \ne i} \sum_j \exp(z \cdot e_c^j / \tau)}

    where e^j, j = 1..J, are instances of an item vector, each with a dropout of its own, c goes
    over targets of the batch other than i, and states for later items come from the model
    (``following``). From Qiu et al., ICDM 2021 (arXiv:2109.00368). Limits: J = 1, S = 1, all
    targets and no dropout: in-batch softmax with duplicates ruled out. lambda = 0 (and rho = 1)
    trains as ``Ranking`` does. The paper trains with MINCE alone: rho = 0.

    The cost: S N J (1 + C) scores of N queries, where C is ``negatives``; at most four million of
    them are held at once, the others are worked out anew in the backward pass.

    Where we differ: other occurrences of the positive in the batch are left out, where the paper
    has them as further instances of it. Negatives are C random ones of the batch's targets, in the
    code all items of its sequences.
    The authors' code multiplies scores by its tau, our temperature divides. Instances are made by
    dropout of item vectors alone, for there is no encoder of items. The mean is over the items
    that there are: the paper's code counts those past the end of a sequence as a loss of 0.

    Args:
        info: facts of the training split.
        sequences: the training windows.
        sampler: see ``Ranking``.
        loss: see ``Ranking``.
        false_negatives: see ``Ranking``.
        weight: lambda, at least 0.
        ranking: rho, at least 0.
        steps: S, how many coming items a state is asked for, at least 1.
        instances: J, at least 1.
        instance_dropout: probability, in [0, 1), that makes the instances of an item.
        negatives: C, targets of the batch that serve as negatives, at least 1.
        temperature: tau, positive.
    """

    sharded = True

    def __init__(
        self,
        info: DatasetInfo,
        sequences: Sequences,
        sampler: Callable[[DatasetInfo], Sampler],
        loss: Loss,
        false_negatives: Callable[[DatasetInfo, Sampler], Sampler] | None = None,
        weight: float = 1.0,
        ranking: float = 1.0,
        steps: int = 3,
        instances: int = 4,
        instance_dropout: float = 0.5,
        negatives: int = 256,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(info, sequences, sampler, loss, false_negatives, weight)
        if not 0 <= ranking < math.inf:
            raise ValueError(f"ranking must be at least 0 and finite, got {ranking}")
        if ranking == weight == 0:
            raise ValueError("ranking and weight must not both be 0: nothing would be learnt")
        for name, value in (("steps", steps), ("instances", instances), ("negatives", negatives)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        self.ranking = ranking
        self.steps = steps
        self.instances = instances
        self.instance_dropout = Dropout(instance_dropout)
        self.negatives = negatives
        self.temperature = temperature

    def bind(self, model: SequenceModel) -> None:
        super().bind(model)
        if not isinstance(model, Foretells):
            raise ValueError(
                f"objective mminforec does not go with model {type(model).__name__}, which cannot "
                "foretell the items after the next: use model=mminforec"
            )

    def auxiliary(self, model: SequenceModel, batch: Batch, queries: Queries, step: Step) -> Tensor:
        assert isinstance(model, Foretells)
        target, sequence, n = queries.target, queries.sequence, len(queries.target)
        vectors = self._instances(model.scorer.vectors(target))  # (J, N, D)
        # Drawn from torch's global stream, as dropout is: the trainer seeds it for every step. Of
        # the whole batch's targets; ranks with parts of it have other draws and other dropout.
        pool = queries.whole.target
        drawn = pool[torch.randperm(len(pool), device=target.device)[: self.negatives]]
        others = self._instances(model.scorer.vectors(drawn))  # (J, C, D)
        states = [queries.hidden, *model.following(queries.hidden, self.steps - 1)]
        total, count = vectors.new_zeros(()), vectors.new_zeros(())
        for s, hidden in enumerate(states[:n]):
            # The s-th query after a query asks for its s-th item after the next, where the
            # sequence is that long.
            there = sequence[: n - s] == sequence[s:]
            loss = self._mince(hidden[: n - s], vectors[:, s:], others, target[s:], drawn)
            total = total + (loss * there).sum()
            count = count + there.sum()
        return total / batch.world.sum(count)

    def _instances(self, vectors: Tensor) -> Tensor:
        """J instances of vectors (N, D), (J, N, D)."""
        made: Tensor = self.instance_dropout(vectors.expand(self.instances, -1, -1))
        return made

    def _mince(
        self, hidden: Tensor, positive: Tensor, negative: Tensor, target: Tensor, others: Tensor
    ) -> Tensor:
        """The loss of each state, (N,), worked out in chunks.

        Args:
            hidden: (N, D).
            positive: instances of its target, (J, N, D).
            negative: instances of the negatives, (J, C, D).
            target: (N,).
            others: the negatives, (C,).
        """
        size = max(1, _SCORES // (len(negative) * len(others)))
        if len(hidden) <= size:
            return self._chunk(hidden, positive, negative, target, others)
        parts = [
            checkpoint(
                self._chunk,
                hidden[part],
                positive[:, part],
                negative,
                target[part],
                others,
                use_reentrant=False,
            )
            for part in chunks(len(hidden), size)
        ]
        return torch.cat(parts)

    def _chunk(
        self, hidden: Tensor, positive: Tensor, negative: Tensor, target: Tensor, others: Tensor
    ) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(negative.dtype) / self.temperature
            own = torch.einsum("nd,jnd->nj", hidden, positive).logsumexp(1)  # (N,)
            score = hidden @ negative.flatten(0, 1).T  # (N, J C)
        same = (target[:, None] == others).repeat(1, len(negative))
        rest = score.masked_fill(same, -torch.inf)
        return torch.cat([own[:, None], rest], 1).logsumexp(1) - own
