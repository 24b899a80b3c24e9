"""What a sampler's negatives are like, measured while a model trains."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from negrec import seeding
from negrec.data.truth import Truth
from negrec.errors import InputError
from negrec.evaluation.gradient import (
    full_gradient,
    gradient_error,
    sampled_gradient,
    target_gradient,
)
from negrec.evaluation.observer import Observer, Scene
from negrec.evaluation.showcase import Showcase
from negrec.evaluation.taken import Taken
from negrec.models.base import SequenceModel
from negrec.types import Exclude, Feedback, Jagged, Negatives, Queries, Step, slices
from negrec.world import World

log = logging.getLogger(__name__)

# Sums over an epoch: each metric is a numerator over a denominator.
_RATIOS = (
    "hardness",
    "false_negative_rate",
    "false_negative_lift",
    "true_lift",
    "mean_count",
    "popularity_percentile",
    "effective_sample_size",
    "vanishing",
    "mined",
    "gradient_cosine",
    "gradient_bias",
    "gradient_variance",
    "gradient_scale",
)
_COLUMNS = 64  # of K negatives that a look reads at the most
_CELLS = 4096  # (query, negative) pairs of a look
_DEEP = 4  # one look of so many goes into the scores of the whole catalogue
_RANKED = 4  # negatives of a query whose rank is counted
_VANISHED = 1e-3  # |d loss / d s+| below which a query teaches nothing
_GRADIENT_QUERIES = 256
_DRAWS = 16  # of the gradient


class Diagnostics(Observer):
    r"""Measures negatives that were really drawn, on some steps of each epoch.

    Of the valid negatives (relabelled ones are none), per epoch:

    * ``hardness``: the share of the rest of the catalogue that the model scores lower, ties by
      half; 1 is the highest score, 1/2 what uniform negatives have on average.
    * ``false_negative_rate``: the share that the user takes later: in training after the query,
      or held out. ``false_negative_lift``: as a multiple of what uniform draws over the same
      queries, with the same exclusions, would have; ``_low`` and ``_high`` are the exact 95 %
      interval of a Poisson count (Garwood, 1936). It takes the negatives for independent, so
      draws that queries share have none.
      The counts ``false_negatives`` and ``false_negatives_expected`` sum over epochs and runs.
    * ``true_lift``, on made-up data: their mean true probability of being the next item, as a
      multiple of a uniform draw's.
    * ``distinct``: the share of the catalogue that was drawn at least once in the epoch, on all
      steps and whether valid or not. ``mean_count``: their mean training count;
      ``popularity_percentile``: the share of the rest of the catalogue with a lower count, ties
      by half.
    * ``effective_sample_size``: (sum w)^2 / sum w^2 over the number of valid negatives of a
      query, w = exp(s / tau) / q; 1 says that q is the model's own softmax. Needs a density and
      two valid negatives.
    * ``mined``: the share of candidates that were taken for false negatives; only where mining
      has started.
    * ``vanishing``: the share of queries with \|d loss / d s+\| < 1e-3.
    * ``gradient_cosine, _bias, _variance, _scale``: see ``GradientError``; only with ``gradient``.
    * ``seconds``: what all of this took.

    Several ranks look at their own queries each; ``seconds`` are rank 0's.

    A value that cannot be computed is left out. Held-out items are read here and nowhere else in
    training, and nothing here changes the training: no random number is drawn from its streams.

    Args:
        scene: what may be looked at.
        looks: steps of an epoch that are looked at, at least 1.
        queries: of an epoch whose negatives are ranked in the catalogue, at least 1.
        gradient: also compares the gradient with the full softmax's, on 256 queries per epoch.
        users: own ids of users whose negatives are written to ``negatives.parquet``.
        epochs: when they are, from 1.
    """

    ratios: Tensor
    drawn: Tensor
    seconds: Tensor
    shared: Tensor
    counts: Tensor
    percentile: Tensor

    def __init__(
        self,
        scene: Scene,
        looks: int = 16,
        queries: int = 256,
        gradient: bool = False,
        users: Sequence[object] = (),
        epochs: Sequence[int] = (1, 10, 50),
    ) -> None:
        super().__init__(scene)
        for name, value in (("looks", looks), ("queries", queries)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number from 1, got {value!r}")
        if any(not isinstance(epoch, int) or epoch < 1 for epoch in epochs):
            raise ValueError(f"epochs must be whole numbers from 1, got {list(epochs)}")
        self.scene = scene
        self.gradient = gradient
        self.showcase: Showcase | None = None
        if gradient or users:
            if scene.sampler is None or scene.loss is None:
                raise InputError(
                    "diagnostics.gradient and diagnostics.users need an objective with a sampler "
                    "and a loss: leave them out"
                )
            if users:
                self.showcase = Showcase(scene, scene.sampler, scene.loss, users, epochs)
        info, n = scene.split.info, scene.split.info.n_items
        # Spread over the epoch; the same in every epoch, whose batches are shuffled anyway.
        looks = min(looks, scene.steps)
        self.looks = [(2 * look + 1) * scene.steps // (2 * looks) for look in range(looks)]
        self.deep = self.looks[:: min(_DEEP, looks)]
        self.ranked = -(-queries // len(self.deep))
        self.register_buffer("ratios", torch.zeros(len(_RATIOS), 2))
        self.register_buffer("drawn", torch.zeros(n, dtype=torch.bool))
        self.register_buffer("seconds", torch.zeros(()))
        self.register_buffer("shared", torch.zeros((), dtype=torch.bool))
        self.register_buffer("counts", info.counts.float(), persistent=False)
        self.register_buffer("percentile", percentile(info.counts), persistent=False)
        histories = whole_histories(scene)
        self.taken = None if histories is None else Taken(histories, n)
        truth = scene.interactions.truth
        # In a tuple: it is no part of what is checkpointed.
        self._truth: tuple[Truth, ...] = ()
        if truth is not None:
            self._truth = (truth.for_catalogue(scene.split.catalogue),)

    def seen(self, model: SequenceModel, step: Step, feedback: Feedback) -> None:
        started = time.perf_counter()
        with torch.no_grad():
            negatives = feedback.negatives
            items = negatives.items
            if negatives.present is not None:
                items = items[negatives.present]
            self.drawn.index_fill_(0, items.flatten() - 1, True)
            if step.index in self.looks:
                self._look(step, feedback)
            if step.index in self.deep:
                self._look_deep(model, step, feedback)
            if self.gradient and step.index == self.looks[len(self.looks) // 2]:
                self._compare_gradients(model, step, feedback.queries)
        self.seconds += time.perf_counter() - started

    def collect(self, world: World) -> None:
        if world.size == 1:
            return
        world.sum(self.ratios)
        for flags in (self.drawn, self.shared):
            flags.copy_(world.max(flags.to(torch.uint8)))
        if not world.first:
            self._begin()

    def epoch(self, model: SequenceModel, epoch: int) -> dict[str, float]:
        if self.showcase is not None:
            self.showcase.show(model, epoch)
        found = {}
        ratios = dict(zip(_RATIOS, self.ratios.tolist(), strict=True))
        for name, (above, below) in ratios.items():
            if below > 0 and math.isfinite(above / below):
                found[name] = above / below
            elif not name.startswith("gradient") or self.gradient:
                log.debug("epoch %d has no diag/%s: nothing to compute it from", epoch + 1, name)
        if "false_negative_lift" in found:
            count, expected = ratios["false_negative_lift"]
            found["false_negatives"], found["false_negatives_expected"] = count, expected
            if not self.shared:
                low, high = poisson_interval(count)
                found["false_negative_lift_low"] = low / expected
                found["false_negative_lift_high"] = high / expected
        found["distinct"] = self.drawn.float().mean().item()
        found["seconds"] = self.seconds.item()
        self._begin()
        return {f"diag/{name}": value for name, value in found.items()}

    def _begin(self) -> None:
        for buffer in (self.ratios, self.drawn, self.seconds, self.shared):
            buffer.zero_()

    def _add(self, name: str, above: Tensor | float, below: Tensor | float) -> None:
        row = self.ratios[_RATIOS.index(name)]
        row[0] += above
        row[1] += below

    def _look(self, step: Step, feedback: Feedback) -> None:
        """Who takes the negatives later, and how popular they are."""
        generator = seeding.generator(self.scene.seed, "diagnostics", step.epoch, step.index)
        negatives = some_columns(feedback.negatives, _COLUMNS, generator)
        self.shared |= not negatives.own_rows
        n = min(len(feedback.queries.target), _CELLS // negatives.k)
        queries, negatives = some_queries(feedback.queries, negatives, n, generator)
        valid, items = standing(negatives, queries)
        total = valid.sum()
        if negatives.mined is not None:
            self._add("mined", negatives.mined.sum(), negatives.mined.numel())
        self._add("mean_count", (self.counts[items - 1] * valid).sum(), total)
        self._add("popularity_percentile", (self.percentile[items - 1] * valid).sum(), total)
        if self.taken is None:
            return
        position = queries.position + self.scene.sequences.targets.ahead
        last = self.taken.last_position(queries.user[:, None], items)
        false = (valid & (last >= position[:, None])).sum()
        expected = torch.zeros((), device=valid.device)
        for policy, columns in spans(negatives):
            chance = self.taken.chance(queries, position, policy)
            expected += (valid[:, columns].sum(1) * chance).sum()
        self._add("false_negative_rate", false, total)
        self._add("false_negative_lift", false, expected)

    def _look_deep(self, model: SequenceModel, step: Step, feedback: Feedback) -> None:
        """What the model, the loss and the truth say of a few queries and their negatives."""
        generator = seeding.generator(self.scene.seed, "diagnostics", step.epoch, step.index, 1)
        queries, negatives = some_queries(
            feedback.queries, feedback.negatives, self.ranked, generator
        )
        few = some_columns(negatives, _RANKED, generator)
        valid, items = standing(few, queries)
        scores = model.scorer.every(queries.hidden)
        self._add("hardness", (rank_percentile(scores, items) * valid).sum(), valid.sum())
        if self._truth:
            self._compare_truth(queries, some_columns(negatives, _COLUMNS, generator))
        loss = self.scene.loss
        if loss is None:
            return
        gradient, judged = target_gradient(queries, negatives, loss, model.scorer)
        self._add("vanishing", (judged & (gradient.abs() < _VANISHED)).sum(), judged.sum())
        if negatives.log_q is not None:
            score = model.scorer(queries.hidden, negatives.items, negatives.row)
            weight = score / temperature(loss) - negatives.of(negatives.log_q)
            share, several = effective_sample_size(weight, negatives.valid(queries))
            self._add("effective_sample_size", share.sum(), several.sum())

    def _compare_truth(self, queries: Queries, negatives: Negatives) -> None:
        """The true probability that the negatives come next, beside that of a uniform draw."""
        valid, items = standing(negatives, queries)
        (truth,) = self._truth
        truth.to(queries.target.device)
        train = self.scene.sequences.train.to(items.device)
        start = train.offsets[queries.user]
        target = start + queries.position + self.scene.sequences.targets.ahead
        past = slices(train.values, start, target)
        was = torch.zeros(len(items), len(truth.matrix), dtype=torch.bool, device=items.device)
        was[past.row, past.values - 1] = True
        last = torch.where(target > start, train.values[target - 1], 0)
        chance = truth.log_prob(queries.user, last, was).exp()  # (n, V)
        drawn = (chance.gather(1, items - 1) * valid).sum()
        uniform = torch.zeros((), device=items.device)
        for policy, columns in spans(negatives):
            query, item = queries.excluded.pairs(policy)
            taken_out = torch.zeros(len(items), device=items.device)
            taken_out.index_add_(0, query, chance[query, item - 1])
            left = chance.shape[1] - torch.bincount(query, minlength=len(items))
            each = (1 - taken_out) / left.clamp(min=1)
            uniform += (valid[:, columns].sum(1) * each).sum()
        self._add("true_lift", drawn, uniform)

    def _compare_gradients(self, model: SequenceModel, step: Step, queries: Queries) -> None:
        """Several fresh draws for the same queries, with generators of their own."""
        sampler, loss, seed = self.scene.sampler, self.scene.loss, self.scene.seed
        assert sampler is not None
        assert loss is not None
        generator = seeding.generator(seed, "gradient", step.epoch)
        n = min(_GRADIENT_QUERIES, len(queries.target))
        index = torch.randperm(len(queries.target), generator=generator)[:n].sort().values
        index = index.to(queries.target.device)
        draws = []
        for draw in range(2 if sampler.exhaustive else _DRAWS):
            own = seeding.generator(
                seed, "gradient", step.epoch, draw, device=queries.hidden.device
            )
            # For the whole batch: some samplers draw from its targets.
            drawn = sampler.sample(queries, model.scorer, replace(step, generator=own, shared=None))
            draws.append(drawn.select(index))
        chosen = queries.select(index)
        sampled = sampled_gradient(chosen, draws, loss, model.scorer)
        full = full_gradient(chosen.hidden, chosen.target, model.scorer, temperature(loss))
        error = gradient_error(sampled, full)
        if error is not None:
            for name, value in asdict(error).items():
                self._add(f"gradient_{name}", value, 1)


def whole_histories(scene: Scene) -> Jagged | None:
    """All that each user takes, in catalogue ids and in order; 0 outside the catalogue.

    None where training is not how each user's history begins: positions would not fit.
    """
    data, split = scene.interactions, scene.split
    ids = np.zeros(data.n_items, dtype=np.int64)
    ids[split.catalogue] = np.arange(1, len(split.catalogue) + 1)
    values = torch.from_numpy(ids[data.item])
    whole = Jagged(values, torch.from_numpy(data.offsets))
    start = whole.offsets[:-1]
    fits = (split.train.lengths <= whole.lengths).all() and torch.equal(
        slices(values, start, start + split.train.lengths).values, split.train.values
    )
    if not fits:
        log.debug("no diag/false_negative_rate: training is not how each user's history begins")
        return None
    return whole


def percentile(counts: Tensor) -> Tensor:
    """The share of the other items with a lower count, ties by half, (V,)."""
    ordered = counts.sort().values
    lower = torch.searchsorted(ordered, counts)
    not_higher = torch.searchsorted(ordered, counts, right=True)
    return (lower + not_higher - 1) / 2 / max(len(counts) - 1, 1)


def poisson_interval(count: float, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a Poisson mean of which ``count`` was observed (Garwood, 1936)."""
    # Half the quantile of a chi-square with 2 n degrees of freedom; scipy.stats, which has it,
    # would take a tenth of the time that a run needs to its first step.
    from scipy.special import gammaincinv

    tail = (1 - level) / 2
    low = float(gammaincinv(count, tail)) if count > 0 else 0.0
    return low, float(gammaincinv(count + 1, 1 - tail))


def rank_percentile(scores: Tensor, items: Tensor) -> Tensor:
    """The share of the other items that score lower, ties by half, (n, w).

    Args:
        scores: of the whole catalogue, (n, V).
        items: (n, w).
    """
    own = scores.gather(1, items - 1)
    # Counting without sorting: the signs sum to higher minus lower.
    # In one buffer, since fresh large tensors cost more than the arithmetic.
    buffer = torch.empty_like(scores)
    balance = [
        torch.sub(scores, own[:, j : j + 1], out=buffer).sign_().sum(1)
        for j in range(items.shape[1])
    ]
    others = max(scores.shape[1] - 1, 1)
    return (1 - torch.stack(balance, 1) / others) / 2


def effective_sample_size(weight: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(sum w)^2 / sum w^2 as a share of the valid candidates, (N,); which have two, (N,) bool.

    Args:
        weight: log w, (N, K).
        valid: (N, K).
    """
    weight = weight.masked_fill(~valid, -torch.inf)
    count = valid.sum(1)
    several = count >= 2
    share = (2 * weight.logsumexp(1) - (2 * weight).logsumexp(1)).exp() / count
    return torch.where(several, share, 0), several


def temperature(loss: object) -> float:
    """The temperature of a loss that has one, else 1."""
    found = getattr(loss, "temperature", 1.0)
    return float(found)


def some_columns(negatives: Negatives, most: int, generator: torch.Generator) -> Negatives:
    """At most so many of the K candidates of each row; columns keep their policies."""
    if negatives.k <= most:
        return negatives
    if negatives.k > 1 << 16:  # a permutation of a large catalogue would cost more than the look
        chosen = torch.randint(negatives.k, (most,), generator=generator)
    else:
        chosen = torch.randperm(negatives.k, generator=generator)[:most]
    chosen = chosen.sort().values
    widths = torch.tensor([width for _, width in negatives.policies])
    span = torch.searchsorted(widths.cumsum(0), chosen, right=True)
    sizes = torch.bincount(span, minlength=len(widths)).tolist()
    column = chosen[None]
    if negatives.own_rows and len(widths) == 1:
        # Each row from a column of its own: candidates may stand in the order of their scores.
        start = torch.randint(negatives.k, (len(negatives.items), 1), generator=generator)
        column = (column + start) % negatives.k
    column = column.to(negatives.items.device)

    def of(x: Tensor | None) -> Tensor | None:
        return None if x is None else x.gather(1, column.expand(len(x), -1))

    return replace(
        negatives,
        items=negatives.items.gather(1, column.expand(len(negatives.items), -1)),
        log_q=of(negatives.log_q),
        label=of(negatives.label),
        mined=of(negatives.mined),
        present=of(negatives.present),
        exclude=tuple(
            (policy, n) for (policy, _), n in zip(negatives.policies, sizes, strict=True)
        ),
        exhaustive=False,
    )


def some_queries(
    queries: Queries, negatives: Negatives, n: int, generator: torch.Generator
) -> tuple[Queries, Negatives]:
    """At most n random ones in their order, and their negatives."""
    total = len(queries.target)
    if n >= total:
        return queries, negatives
    index = torch.randperm(total, generator=generator)[:n].sort().values
    index = index.to(queries.target.device)
    return queries.select(index), negatives.select(index)


def standing(negatives: Negatives, queries: Queries) -> tuple[Tensor, Tensor]:
    """Which candidates stand as negatives, (N, K) bool, and the items, (N, K)."""
    valid = negatives.valid(queries)
    if negatives.label is not None:
        valid = valid & (negatives.label != 1)
    return valid, negatives.of().expand(valid.shape)


def spans(negatives: Negatives) -> list[tuple[Exclude, slice]]:
    """Which columns each policy holds for."""
    found, start = [], 0
    for policy, width in negatives.policies:
        found.append((policy, slice(start, start + width)))
        start += width
    return found
