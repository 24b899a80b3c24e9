"""Ranking, with a part of each sequence that has to foretell the rest, intention by intention."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.losses.base import Loss
from negrec.models.base import SequenceModel
from negrec.objectives.auxiliary import RankingWithAuxiliary
from negrec.samplers.base import Sampler
from negrec.types import Batch, DatasetInfo, Queries, Step


@runtime_checkable
class TakesApart(Protocol):
    """A model with one vector of a sequence per intention."""

    def intentions(self, batch: Batch, later: bool = False) -> Tensor:
        """The vectors of whole sequences, (B, K, D); ``later``: reversed later parts."""
        ...


class RankingWithIntentions(RankingWithAuxiliary):
    r"""Ranking, and sequence-to-sequence self-supervision on latent intentions.

    .. math:: L = L_\text{ranking} + \lambda \, \mathrm{mean}_{(u, k) \in C} \, \ell_{u, k}, \quad
       \ell_{u, k} = -\log \frac{\exp(\phi_k(x^u_{1:t}) \cdot \phi'_k(x^u_{n:t+1}) / \sqrt D)}
       {\sum_{u', k'} \exp(\phi_k(x^u_{1:t}) \cdot \phi'_{k'}(x^{u'}_{n:t'+1}) / \sqrt D)}

    A sequence x^u of n items is cut after a random item t < n, and the later part is read newest
    item first. Each vector of the earlier part has to find its partner among those of all later
    parts of the batch. Not every intention of the past goes on: C are the pairs (u, k) with the
    lowest loss, the fraction ``confident`` of the batch's (Ma et al., KDD 2020,
    doi:10.1145/3394486.3403091, section 3). Limits: lambda = 0 trains as ``Ranking`` does;
    confident = 1 keeps all pairs.

    The cost: the batch is encoded once more, in two parts, and (B K, B K) numbers are held. The
    cuts are drawn from torch's global stream, as is the dropout of both parts: the trainer seeds it
    for every step.

    Where we differ: the paper sums over the pairs and the sequences of a batch, we take means, and
    its lambda is 1. The paper draws one cut of a sequence for both losses; our ranking has every
    position of a sequence as a target.

    Args:
        info: facts of the training split.
        sequences: the training windows; their targets must be next items.
        sampler: see ``Ranking``.
        loss: see ``Ranking``.
        false_negatives: see ``Ranking``.
        weight: lambda, at least 0.
        confident: the fraction of pairs that are learnt from, in (0, 1].
    """

    sharded = True

    def __init__(
        self,
        info: DatasetInfo,
        sequences: Sequences,
        sampler: Callable[[DatasetInfo], Sampler],
        loss: Loss,
        false_negatives: Callable[[DatasetInfo, Sampler], Sampler] | None = None,
        weight: float = 0.1,
        confident: float = 0.5,
    ) -> None:
        super().__init__(info, sequences, sampler, loss, false_negatives, weight)
        if not 0 < confident <= 1:
            raise ValueError(f"confident must be in (0, 1], got {confident}")
        if not isinstance(sequences.targets, NextItem):
            raise ValueError(
                f"objective dssrec does not go with targets {type(sequences.targets).__name__}: "
                "a sequence is cut into what came before and what came next: "
                "use targets=next_item"
            )
        self.confident = confident

    def bind(self, model: SequenceModel) -> None:
        super().bind(model)
        if not isinstance(model, TakesApart):
            raise ValueError(
                f"objective dssrec does not go with model {type(model).__name__}, which has no "
                "vectors of intentions: use model=dssrec"
            )

    def auxiliary(self, model: SequenceModel, batch: Batch, queries: Queries, step: Step) -> Tensor:
        assert isinstance(model, TakesApart)
        earlier, later = halves(batch)
        return seq2seq(
            model.intentions(earlier), model.intentions(later, later=True), self.confident, batch
        )


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Cuts each sequence, with its last target, after a random item.

    Args:
        batch: B sequences of next-item targets.

    Returns:
        The earlier parts, and the later parts with their newest item first; none is empty.
    """
    n, device = batch.offsets.diff(), batch.items.device  # a cut comes after item 1, ..., n
    total = len(batch.items) + len(n)
    end = batch.offsets + torch.arange(len(n) + 1, device=device)  # of n + 1 items each
    items = batch.items.new_empty(total)
    items[torch.arange(len(batch.items), device=device) + batch.sequence] = batch.items
    items[end[1:] - 1] = batch.target[batch.last]
    cut = (torch.rand(len(n), device=device) * n).long() + 1
    # Both parts of all sequences side by side, and only then apart: their total is known.
    size = torch.cat([cut, n + 1 - cut])
    offsets = F.pad(size.cumsum(0), (1, 0))
    part = torch.repeat_interleave(size, output_size=total)
    within = torch.arange(total, device=device) - offsets[part]
    first, way = torch.cat([end[:-1], end[1:] - 1]), torch.ones_like(part)
    way[part >= len(n)] = -1
    items = items[first[part] + way * within]
    middle = offsets[len(n)]
    nothing = batch.query[:0]
    both = replace(
        batch,
        items=items,
        position=within,
        query=nothing,
        target=nothing,
        seen=None,
        shard=None,
    )
    return (
        replace(
            both, items=items[:middle], position=within[:middle], offsets=offsets[: len(n) + 1]
        ),
        replace(
            both,
            items=items[middle:],
            position=within[middle:],
            offsets=offsets[len(n) :] - middle,
        ),
    )


def seq2seq(earlier: Tensor, later: Tensor, confident: float, batch: Batch | None = None) -> Tensor:
    """The mean loss of the most confident pairs of a sequence and an intention.

    Args:
        earlier: phi, (B, K, D).
        later: phi', (B, K, D).
        confident: the fraction of the B K pairs that counts.
        batch: whose sequences these are, where it may be a rank's part of one: it looks for its
            partners among those of all ranks, and the loss is its share.
    """
    part = None if batch is None or batch.shard is None else batch
    if part is not None:
        later = part.gather(later, "sequence")
    one, other = earlier.flatten(0, 1), later.flatten(0, 1)
    with torch.autocast(one.device.type, enabled=False):
        score = one @ other.T * one.shape[1] ** -0.5  # (B K, B K)
    pair = torch.arange(len(other), device=score.device).view(later.shape[:2])
    if part is not None:
        pair = part.own(pair, "sequence")
    loss = F.cross_entropy(score, pair.flatten(), reduction="none")
    kept = math.ceil(confident * len(other))
    if part is None:
        return loss.topk(kept, largest=False).values.mean()
    every = part.gather(loss.detach().view(pair.shape), "sequence").flatten()
    counted = torch.zeros_like(every)
    counted[every.topk(kept, largest=False).indices] = 1
    return (loss * counted[pair.flatten()]).sum() / kept
