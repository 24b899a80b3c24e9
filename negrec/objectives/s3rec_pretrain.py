"""S3-Rec's pre-training: four self-supervised objectives on items, attributes and segments."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negrec.data.sequences import Sequences
from negrec.models.base import SequenceModel
from negrec.models.sasrec import SASRec
from negrec.models.transformer import Start
from negrec.objectives.base import Objective
from negrec.objectives.contrast import of_histories
from negrec.samplers.uniform import Uniform
from negrec.types import HIDDEN, Batch, DatasetInfo, Jagged, Outcome, Queries, Step, slices
from negrec.wide import has_float64, uniform


class S3RecPretrain(Objective):
    r"""Mutual information between items, attributes, sequences and segments; nothing is ranked.

    Some items of each sequence are hidden, its last one always. With h_t the state of token t
    when it sees its whole sequence, e the vectors of items, v those of the A attributes, and
    A_i the attributes of item i:

    .. math::
       AAP &= -\sum_{t \text{ told}} \sum_a \log p(a \in A_{i_t} \mid v_a \cdot W_1 h_t), \quad
       MAP  = -\sum_{t \text{ hidden}} \sum_a \log p(a \in A_{i_t} \mid v_a \cdot W_2 h_t) \\
       MIP &= -\sum_{t \text{ hidden}}
              \log \sigma(\sigma(e_{i_t} \cdot W_3 h_t) - \sigma(e_j \cdot W_3 h_t)) \\
       SP  &= -\sum_b \log \sigma(\sigma(s_b \cdot W_4 c_b) - \sigma(s'_b \cdot W_4 c_b))

    with p(yes | x) = sigma(x) and item j drawn uniformly from those outside the sequence. SP takes
    a stretch of 1 to half of the sequence's items: c_b is the last state of the sequence without
    them, s_b that of the stretch with all else hidden, s'_b that of a stretch of the same length
    and place from other sequences of the batch. A batch's loss is the weighted sum of the four,
    divided by its sequences; with weight 0 one is not worked out, and the others see the same.

    Zhou et al., 2020 (S3-Rec, arXiv:2008.07873, section 4.2), with the form, the weights, the
    heads (linear, with a bias) and the masks of its code. MIP and SP are the paper's InfoNCE
    with one negative and f = sigma(.); AAP and MAP decide on every
    attribute by itself, where the paper's equations compare one with those that the item does not
    have. AAP reads the states of told items, in the paper their vectors.

    Where we differ: each window comes whole, once an epoch, where the code takes every prefix of
    it for a sequence (on Beauty 7 times as many): our epochs are that much shorter. Negative
    segments come from the batch, in the code from all users' sequences with their held-out items.

    AAP and MAP hold (T, A) scores: fine for hundreds or a few thousand attributes. What is hidden
    is drawn from ``step.generator`` and not from the stream of dropout: it depends on the batch
    alone, and the same for every setting of the model.

    Args:
        info: facts of the training split; its ``attributes`` where AAP or MAP is on.
        sequences: the training windows, with next-item targets.
        aap: weight of associated attribute prediction, at least 0.
        mip: weight of masked item prediction.
        map: weight of masked attribute prediction.
        sp: weight of segment prediction.
        mask_p: share of a sequence's items that are hidden, besides the last, in [0, 1].
    """

    sharded = True
    values: Tensor
    offsets: Tensor

    def __init__(
        self,
        info: DatasetInfo,
        sequences: Sequences,
        aap: float = 0.2,
        mip: float = 1.0,
        map: float = 1.0,
        sp: float = 0.5,
        mask_p: float = 0.2,
    ) -> None:
        super().__init__(info, sequences)
        self.weights = {"aap": aap, "mip": mip, "map": map, "sp": sp}
        for name, weight in self.weights.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {weight}")
        if not any(self.weights.values()):
            raise ValueError("aap, mip, map and sp must not all be 0: nothing would be learnt")
        if not 0 <= mask_p <= 1:
            raise ValueError(f"mask_p must be in [0, 1], got {mask_p}")
        if sequences.targets.hides:
            raise ValueError(
                "s3rec_pretrain hides items itself, and these targets have hidden some already: "
                "use targets=next_item"
            )
        self.mask_p = mask_p
        self.longest = info.max_length
        self.sampler = Uniform(info, k=1, exclude="window")
        self.attributes = 0  # A
        if aap or map:
            if info.attributes is None:
                raise ValueError(
                    "s3rec_pretrain predicts attributes of items, and none are there: name their "
                    "table with dataset.attributes=FILE (a named data set reads it from "
                    "paths.data_dir), or leave these parts out with objective.aap=0 "
                    "objective.map=0"
                )
            self.attributes = int(info.attributes.values.max()) + 1
            self.register_buffer("values", info.attributes.values, persistent=False)
            self.register_buffer("offsets", info.attributes.offsets, persistent=False)

    def bind(self, model: SequenceModel) -> None:
        if not isinstance(model, SASRec) or not model.hides:
            raise ValueError(
                "s3rec_pretrain needs an encoder that sees whole sequences and reads hidden items, "
                f"and model {type(model).__name__} is none: use model=s3rec, or model=sasrec "
                "model.hides=true"
            )
        dim = model.scorer.weight.shape[1]
        self.heads = nn.ModuleDict({name: nn.Linear(dim, dim) for name in self.weights})
        if self.attributes:
            self.vectors = nn.Embedding(self.attributes, dim)
        Start().apply(self)

    def forward(self, model: SequenceModel, batch: Batch, step: Step) -> Outcome:
        assert isinstance(model, SASRec)
        # Of the whole batch, whose other sequences lend segments; then of this rank's part of it.
        whole = windows(batch.whole, self.longest)
        draws = Draws.of(whole, step.common)
        hidden = draws.token < self.mask_p
        hidden[whole.last] = True
        index = hidden.nonzero().squeeze(1)
        own = replace(whole, query=index, target=whole.items[index]).part(batch.world)
        views, segments = [], None
        if self.weights["aap"] or self.weights["mip"] or self.weights["map"]:
            views.append(whole.items.masked_fill(hidden, HIDDEN))
        if self.weights["sp"]:
            segments = Segments.of(whole, draws)
            views += segments.views(whole)
        # (views, T, D)
        states = encoded(model, own, [own.own(view, "token") for view in views])
        losses, hidden = {}, own.own(hidden, "token")
        for name, chosen in (("aap", ~hidden), ("map", hidden)):
            if self.weights[name]:
                losses[name] = self.of_attributes(name, states[0][chosen], own.items[chosen])
        if self.weights["mip"]:
            losses["mip"] = self.of_items(model, Queries.of(own, states[0]), step)
        if segments is not None:
            valid = own.own(segments.valid, "sequence")
            losses["sp"] = self.of_segments(states[-3:, own.last], valid)
        losses = {name: loss / whole.n_sequences for name, loss in losses.items()}
        total = torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()
        return Outcome(total, terms={name: loss.detach() for name, loss in losses.items()})

    def of_attributes(self, name: str, states: Tensor, items: Tensor) -> Tensor:
        """AAP or MAP, summed over tokens.

        Args:
            name: of the head.
            states: (n, D).
            items: what the tokens are, (n,).
        """
        queries = self.heads[name](states)
        # -log sigma(x) = softplus(x) - x: the x of an item's own attributes add up to one product.
        own = slices(self.values, self.offsets[items - 1], self.offsets[items])
        summed = F.embedding_bag(own.values, self.vectors.weight, own.offsets[:-1], mode="sum")
        loss: Tensor = F.softplus(queries @ self.vectors.weight.T).sum() - (queries * summed).sum()
        return loss

    def of_items(self, model: SASRec, queries: Queries, step: Step) -> Tensor:
        """MIP, summed over hidden tokens; 0 for one whose sequence holds the whole catalogue.

        Args:
            model: whose scorer compares.
            queries: the hidden tokens.
            step: whose generator the negatives are drawn from.
        """
        negatives = self.sampler.sample(queries, model.scorer, step)
        asked = model.scorer.query(self.heads["mip"](queries.hidden))
        positive = model.scorer.target(asked, queries.target)
        negative = model.scorer(asked, negatives.items)[:, 0]
        return pairwise(positive, negative, negatives.valid(queries)[:, 0])

    def of_segments(self, states: Tensor, valid: Tensor) -> Tensor:
        """SP, summed over sequences.

        Args:
            states: last ones of the context, its own segment and the other one, (3, B, D).
            valid: which sequences have both segments, (B,).
        """
        context, own, other = states
        asked = self.heads["sp"](context)
        return pairwise((asked * own).sum(1), (asked * other).sum(1), valid)


def pairwise(positive: Tensor, negative: Tensor, valid: Tensor) -> Tensor:
    """The sum of -log sigma(sigma(positive) - sigma(negative)) where it is valid."""
    loss: Tensor = -F.logsigmoid(positive.sigmoid() - negative.sigmoid())
    return loss.masked_fill(~valid, 0).sum()


def windows(batch: Batch, longest: int) -> Batch:
    """The training windows behind a batch of next-item targets: inputs and last targets.

    Args:
        batch: each token of which has a target.
        longest: only so many of the newest items are kept.
    """
    offsets = batch.offsets + torch.arange(len(batch.offsets), device=batch.offsets.device)
    last = offsets[1:] - 1
    items = batch.items.new_empty(len(batch.items) + len(last))
    inputs = torch.ones_like(items, dtype=torch.bool)
    inputs[last] = False
    items[inputs] = batch.items
    items[last] = batch.target[batch.last]
    start = torch.maximum(offsets[:-1], offsets[1:] - longest)
    kept = slices(items, start, offsets[1:])
    first = batch.position[batch.offsets[:-1]] + start - offsets[:-1]
    return of_histories(batch.user, kept, first[kept.row] + within(kept))


def within(rows: Jagged) -> Tensor:
    """The place of each value in its row, from 0."""
    return torch.arange(len(rows.values), device=rows.values.device) - rows.offsets[rows.row]


def encoded(model: SASRec, whole: Batch, views: list[Tensor]) -> Tensor:
    """The states of views, each token seeing its whole sequence, (views, T, D).

    Args:
        model: encodes all of them in one pass.
        whole: the sequences that they are views of.
        views: what stands in place of each item, (T,) each.
    """
    n, tokens = len(views), len(whole.items)
    lengths = whole.offsets.diff().repeat(n)
    offsets = F.pad(lengths.cumsum(0), (1, 0))
    rows = Jagged(torch.cat(views), offsets)
    batch = of_histories(whole.user.repeat(n), rows, whole.position.repeat(n))
    return model.states(batch, causal=False).view(n, tokens, -1)


@dataclass(frozen=True)
class Draws:
    """All that the views of a batch are made from, in [0, 1).

    Drawn in one go, whichever parts are on: leaving one out changes nothing for the others.

    Attributes:
        token: (T,).
        size: of each segment, (B,).
        start: of each segment, (B,).
        other: where its negative starts, (B,).
    """

    token: Tensor
    size: Tensor
    start: Tensor
    other: Tensor

    @classmethod
    def of(cls, whole: Batch, generator: torch.Generator | None) -> Self:
        b, device = whole.n_sequences, whole.items.device
        lengths = [len(whole.items), b, b, b]
        # In float64, in which u * n is less than n for every n that fits into memory.
        drawn = uniform((sum(lengths),), device, generator)
        if not has_float64(device):  # below 1 by more than what float32 rounds off
            drawn = drawn.clamp(max=1 - 2**-20).float().to(device)
        return cls(*torch.split(drawn, lengths))


@dataclass(frozen=True)
class Segments:
    """A stretch of each sequence, and one of the same length from the others of the batch.

    Attributes:
        inside: which tokens are in the stretch, (T,) bool.
        other: for these, index of the token that stands in its place in the negative, (T,).
        valid: sequences that have both, (B,) bool.
    """

    inside: Tensor
    other: Tensor
    valid: Tensor

    @classmethod
    def of(cls, whole: Batch, draws: Draws) -> Self:
        rows = Jagged(whole.items, whole.offsets)
        n, tokens = rows.lengths, len(whole.items)
        size = 1 + (draws.size * (n // 2)).long()
        start = (draws.start * (n - size + 1)).long()
        # The tokens of the other sequences in a ring, from behind the own one to before it.
        first = whole.offsets[1:] + (draws.other * (tokens - n - size + 1)).long()
        place = within(rows) - start[rows.row]
        inside = (place >= 0) & (place < size[rows.row])
        other = (first[rows.row] + place) % tokens
        return cls(inside, other, (n > 1) & (tokens - n >= size))

    def views(self, whole: Batch) -> list[Tensor]:
        """What is left without the stretch, the stretch alone, the other one in its place."""
        items = whole.items
        return [
            items.masked_fill(self.inside, HIDDEN),
            items.masked_fill(~self.inside, HIDDEN),
            items[self.other].masked_fill(~self.inside, HIDDEN),
        ]
