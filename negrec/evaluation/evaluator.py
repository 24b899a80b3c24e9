"""From a model and held-out targets to ranks and metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol, get_args

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from negrec import seeding
from negrec.evaluation.calibration import DEEPEST, calibration, probability_sums
from negrec.evaluation.cohorts import COHORTS, COLD, popularity_cohorts
from negrec.evaluation.lists import Lists, coverage, exposure_gini, novelty, popularity
from negrec.evaluation.metrics import Floats, balance, hit_rate, mrr, ndcg, recall
from negrec.evaluation.ranks import Ranks, Seen, rank, rank_among, sample_unseen, top
from negrec.kernels.tiles import Scratch, chunks
from negrec.scoring import FixedScorer, ItemScorer
from negrec.types import Batch, DatasetInfo, HeldOut
from negrec.world import ALONE, World

log = logging.getLogger(__name__)

Ints = NDArray[np.int64]


class Ranker(Protocol):
    """What can be evaluated: ``scorer`` scores what ``represent`` makes of histories."""

    @property
    def scorer(self) -> ItemScorer: ...

    def represent(self, batch: Batch) -> Tensor: ...


@dataclass(frozen=True)
class Evaluation:
    """Where a model ranks each held-out target, and what that amounts to.

    Attributes:
        user: user index, (M,).
        target: catalogue id, 0 where the target is outside the catalogue, (M,).
        greater: how many items are scored higher, (M,); V for a target outside the catalogue.
        ties: how many other items have the same score, (M,).
        cohort: 0 head, 1 mid, 2 tail, 3 cold (outside the catalogue), (M,).
        metrics: hr_10, ndcg_10, mrr, ..., by cohort hr_10_head, ..., as fractions.
        calibration: see ``calibration``; None where it was not asked for.
        sampled: the number of items that targets were ranked among, None for the catalogue.
    """

    user: Ints
    target: Ints
    greater: Ints
    ties: Ints
    cohort: Ints
    metrics: Mapping[str, float]
    calibration: pl.DataFrame | None = None
    sampled: int | None = None

    @property
    def ranks(self) -> Floats:
        """1 + number of items scored higher, infinity (a miss) for cold targets, (M,)."""
        return np.where(self.target == 0, np.inf, self.greater + 1)

    def frame(self) -> pl.DataFrame:
        """The results per target; every statistic can be recomputed from them."""
        return pl.DataFrame(
            {
                "user": self.user,
                "target": self.target,
                "greater": self.greater,
                "ties": self.ties,
                "cohort": pl.Series(self.cohort, dtype=pl.Int8),
            }
        )

    def why_no_balance(self, k: int) -> str | None:
        """Why the balance at a cut-off is not a number; None where it is one."""
        empty = [name for name in COHORTS if not self.metrics[f"n_{name}"]]
        if empty:
            return f"no target in {' and '.join(empty)}"
        if not any(self.metrics[f"hr_{k}_{name}"] for name in COHORTS):
            return "no hit in any cohort"
        return None


class Evaluator:
    """Ranks held-out targets by a model.

    The model is asked once per history, in batches of similar lengths; results stand in the order
    of the held-out targets.

    Args:
        held_out: the targets, with the histories that precede them.
        info: facts of the training split.
        cutoffs: the k of the metrics, in items.
        seen: what becomes of the items of the history: "filter" takes them out of the ranking,
            never the target; "keep" ranks them too; "zero" gives them the score 0.
        batch_size: histories per batch; it changes the speed, not the result.
        sampled: ranks each target among so many random unseen items instead of the whole
            catalogue. Only for reproducing published numbers (UFNRec): it reorders models
            (Krichene & Rendle, 2020, KDD).
        lists: also measures the top-k lists (coverage, ...) and calibration.
        world: the ranks that rank together, each a share of the histories; the results are the
            same on all of them.

    Attributes:
        cohort: the cohort of each target, see ``Evaluation``.
    """

    def __init__(
        self,
        held_out: HeldOut,
        info: DatasetInfo,
        cutoffs: Sequence[int] = (1, 5, 10, 20),
        seen: Seen = "filter",
        batch_size: int = 512,
        sampled: int | None = None,
        lists: bool = False,
        world: World = ALONE,
    ) -> None:
        if seen not in get_args(Seen):
            raise ValueError(
                f"evaluation.seen must be one of {', '.join(get_args(Seen))}, got {seen!r}"
            )
        if not cutoffs or any(not isinstance(k, int) or k < 1 for k in cutoffs):
            raise ValueError(
                f"evaluation.cutoffs must be whole numbers from 1, got {list(cutoffs)}"
            )
        for name, value in (("batch_size", batch_size), ("sampled", sampled)):
            if value is not None and value < 1:
                raise ValueError(f"evaluation.{name} must be at least 1, got {value}")
        self.info = info
        self.cutoffs = tuple(cutoffs)
        self.seen: Seen = seen
        self.batch_size = batch_size
        self.sampled = sampled
        self.world = world
        self.lists = lists and sampled is None  # lists of the whole catalogue, or none
        cohorts = np.append(popularity_cohorts(info.counts), COLD)
        self.cohort: Ints = cohorts[held_out.target.numpy() - 1]  # target 0 reads the last: cold
        self._user: Ints = held_out.user.numpy()
        self._target: Ints = held_out.target.numpy()
        known = without_unknown(held_out)
        self._histories, history = _distinct(known, info.max_length)
        # Targets of one history side by side, in the order of the histories.
        self._order = history.argsort(stable=True)
        self._targets = known.select(self._order)
        self._history = history[self._order]
        self._bounds = torch.searchsorted(
            self._history, torch.arange(len(self._histories) + 1)
        ).tolist()
        self._candidates: Tensor | None = None
        if sampled is not None:
            log.warning(
                "evaluation.sampled=%d ranks targets among random items, not the catalogue: the "
                "metrics compare with published sampled ones only",
                sampled,
            )
            # The same candidates for every model and every run.
            generator = seeding.generator(0, "sampled ranking")
            drawn = sample_unseen(known, info.n_items, sampled, generator)
            self._candidates = drawn[self._order]

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that every evaluation has, without supports."""
        first = np.zeros(len(self._target), dtype=np.int64)
        perfect = Evaluation(self._user, self._target, first, first, self.cohort, {})
        found = accuracy(perfect, self.cutoffs)
        return tuple(name for name in found if name != "n" and not name.startswith("n_"))

    def __call__(self, model: Ranker) -> Evaluation:
        """Ranks all targets by the model.

        Raises:
            InputError: a score is not finite.
        """
        scratch = Scratch()
        batches = self._batches()
        rows = [self._rows(batch) for batch in batches]
        trained = isinstance(model, nn.Module) and any(True for _ in model.parameters())
        ranks, shown = [], []
        with evaluating(model):
            scorer = model.scorer.fixed()
            for batch in batches:
                part = self._histories.select(batch)
                hidden = represent(model, part, self.info.max_length)
                ranks.append(self._rank(hidden, scorer, batch, scratch))
                if self.lists:
                    shown.append(self._show(hidden, scorer, part, trained, scratch))
        back = self._order.argsort()
        greater: Ints = self._whole([r.greater for r in ranks], rows, len(back))[back].numpy()
        ties: Ints = self._whole([r.ties for r in ranks], rows, len(back))[back].numpy()
        evaluation = Evaluation(
            self._user, self._target, greater, ties, self.cohort, {}, None, self.sampled
        )
        found = accuracy(evaluation, self.cutoffs)
        table = None
        if shown:
            n = len(self._histories)
            items = self._whole([s.items for s in shown], batches, n)
            found |= self._of_lists(items.numpy())
        if shown and trained:
            # Without parameters there was no training that scores could be overconfident from.
            scores = self._whole([s.scores[:, :DEEPEST] for s in shown], batches, n)
            table = calibration(scores, evaluation.ranks, ties)
            sums = self._whole([s.sums for s in shown], batches, n)
            found["probability_sum"] = float(sums.mean())
        evaluation = replace(evaluation, metrics=found, calibration=table)
        if self.lists:
            _tell(evaluation, type(model).__name__, self.cutoffs)
        return evaluation

    def first(self, model: Ranker, k: int) -> Ints:
        """The k first items of each target's ranking, best first, see ``ranks.top``, (M, k)."""
        scratch = Scratch()
        lists = [torch.zeros(0, k, dtype=torch.int64)]
        with evaluating(model):
            scorer = model.scorer.fixed()
            for batch in chunks(len(self._histories), self.batch_size):
                part = self._histories.select(batch)
                hidden = represent(model, part, self.info.max_length)
                lists.append(top(hidden, scorer, part, self.seen, k, scratch)[0])
        found: Ints = torch.cat(lists)[self._history][self._order.argsort()].numpy()
        return found

    @property
    def _shared(self) -> bool:
        """Whether each rank has a share; of too few histories all of them do all."""
        return 1 < self.world.size <= len(self._histories)

    def _batches(self) -> list[slice]:
        """This rank's batches of histories."""
        n = len(self._histories)
        if not self._shared:
            return list(chunks(n, self.batch_size))
        # Neighbours have like lengths: taken in turns they are about as much work.
        every = list(chunks(n, min(self.batch_size, n // self.world.size)))
        return every[self.world.rank :: self.world.size]

    def _rows(self, batch: slice) -> slice:
        """The targets of a batch of histories."""
        return slice(self._bounds[batch.start], self._bounds[batch.stop])

    def _whole(self, parts: Sequence[Tensor], places: Sequence[slice], n: int) -> Tensor:
        """The n rows of all ranks, of which this one has some parts."""
        if not self._shared:
            return torch.cat(list(parts)) if parts else torch.zeros(0, dtype=torch.int64)
        whole = parts[0].new_zeros(n, *parts[0].shape[1:])
        for part, place in zip(parts, places, strict=True):
            whole[place] = part
        return self.world.sum(whole)  # nobody else has anything in their places

    def _rank(self, hidden: Tensor, scorer: FixedScorer, batch: slice, scratch: Scratch) -> Ranks:
        """Ranks of the targets of a batch of histories."""
        rows = self._rows(batch)
        states = hidden[(self._history[rows] - batch.start).to(hidden.device)]
        part = self._targets.select(rows)
        if self._candidates is not None:
            return rank_among(states, scorer, part, self._candidates[rows])
        return rank(states, scorer, part, self.seen, scratch)

    def _show(
        self, hidden: Tensor, scorer: FixedScorer, part: HeldOut, trained: bool, scratch: Scratch
    ) -> _Shown:
        k = max(self.cutoffs)
        if trained:
            k = max(k, min(DEEPEST, self.info.n_items))
        items, scores = top(hidden, scorer, part, self.seen, k, scratch)
        sums = probability_sums(hidden, scorer).cpu() if trained else torch.empty(0)
        return _Shown(items, scores, sums)

    def _of_lists(self, items: Lists) -> dict[str, float]:
        n_items, counts = self.info.n_items, self.info.counts.numpy()
        found = {}
        for k in self.cutoffs:
            found[f"coverage_{k}"] = coverage(items, k, n_items)
            found[f"arp_{k}"] = popularity(items, k, counts)
            found[f"exposure_gini_{k}"] = exposure_gini(items, k, n_items)
            found[f"novelty_{k}"] = novelty(items, k, counts)
        return found


def accuracy(
    evaluation: Evaluation, cutoffs: Sequence[int], cohorts: Sequence[str] = COHORTS
) -> dict[str, float]:
    """HR, NDCG and MRR of all targets and by cohort, balance, and the supports.

    Recall stands beside where users have several targets, and ``_warm`` values, without the cold
    targets, where there are cold ones.

    Args:
        evaluation: whose ``cohort`` counts along ``cohorts``; of a cold target it is not read.
        cutoffs: the k of the metrics.
        cohorts: names of the cohorts, the most popular first.
    """
    ranks, ties, cold = evaluation.ranks, evaluation.ties, evaluation.target == 0
    found: dict[str, float] = {}

    def add(chosen: NDArray[np.bool_], suffix: str) -> None:
        of, tied, user = ranks[chosen], ties[chosen], evaluation.user[chosen]
        for k in cutoffs:
            found[f"hr_{k}{suffix}"] = hit_rate(of, k, tied)
            found[f"ndcg_{k}{suffix}"] = ndcg(of, k, tied)
            if several:
                found[f"recall_{k}{suffix}"] = recall(of, k, user, tied)
        found[f"mrr{suffix}"] = mrr(of, tied)
        found[f"n{suffix}"] = float(chosen.sum())

    several = len(np.unique(evaluation.user)) < len(evaluation.user)
    add(np.ones(len(ranks), dtype=np.bool_), "")
    for index, name in enumerate(cohorts):
        add((evaluation.cohort == index) & ~cold, f"_{name}")
    for k in cutoffs:
        found[f"balance_{k}"] = balance([found[f"hr_{k}_{name}"] for name in cohorts])
    found["n_cold"] = float(cold.sum())
    if cold.any():
        add(~cold, "_warm")
    return found


def represent(model: Ranker, part: HeldOut, max_length: int) -> Tensor:
    """The state after each history, nobody's where it is empty, (m, D).

    Args:
        model: in evaluation mode.
        part: histories of catalogue items only.
        max_length: how many of the newest items the model reads.
    """
    weight = model.scorer.weight
    filled = part.end > part.start
    if filled.all():
        return model.represent(batch_of(part, max_length).to(weight.device))
    hidden = model.scorer.nobody(len(part))
    if filled.any():
        hidden[filled.to(hidden.device)] = represent(model, part.select(filled), max_length)
    return hidden


def batch_of(part: HeldOut, max_length: int) -> Batch:
    """The newest items of each history as a batch without targets.

    Args:
        part: histories of catalogue items only, none of them empty.
        max_length: how many of the newest items are kept.
    """
    histories = part.histories(max_length)
    skipped = (part.end - part.start - max_length).clamp(min=0)
    within = torch.arange(len(histories.values)) - histories.offsets[histories.row]
    none = torch.zeros(0, dtype=torch.int64)
    return Batch(
        user=part.user,
        items=histories.values,
        position=skipped[histories.row] + within,
        offsets=histories.offsets,
        query=none,
        target=none,
    )


@dataclass(frozen=True)
class _Shown:
    """The lists of a batch of histories: items and scores (m, k), sums of probabilities (m,)."""

    items: Tensor
    scores: Tensor
    sums: Tensor


def without_unknown(held_out: HeldOut) -> HeldOut:
    """The same targets after histories of catalogue items only: no model knows another item."""
    known = held_out.items > 0
    if known.all():
        return held_out
    moved = torch.cat([known.new_zeros(1, dtype=torch.int64), known.cumsum(0)])
    return HeldOut(
        held_out.user,
        held_out.target,
        held_out.items[known],
        moved[held_out.start],
        moved[held_out.end],
    )


def _distinct(targets: HeldOut, max_length: int) -> tuple[HeldOut, Tensor]:
    """The first target of each distinct history, short histories first; each target's history.

    Args:
        targets: M targets, of which several may share a history.
        max_length: of what a model sees.
    """
    keys = torch.stack([targets.user, targets.start, targets.end], 1)
    distinct, history = torch.unique(keys, dim=0, return_inverse=True)
    index = torch.arange(len(targets))
    first = torch.full((len(distinct),), len(targets)).scatter_reduce(0, history, index, "amin")
    histories = targets.select(first)
    order = (histories.end - histories.start).clamp(max=max_length).argsort(stable=True)
    return histories.select(order), order.argsort()[history]


def _tell(evaluation: Evaluation, model: str, cutoffs: Sequence[int]) -> None:
    """Says which balances are no numbers, and why."""
    for k in cutoffs:
        reason = evaluation.why_no_balance(k)
        if reason is not None:
            log.warning("balance@%d of %s is not a number: %s", k, model, reason)


@contextmanager
def evaluating(model: object) -> Iterator[None]:
    """Without gradients; switches dropout and the like off, and back on if it was on."""
    with torch.no_grad():
        if not isinstance(model, nn.Module) or not model.training:
            yield
            return
        model.eval()
        try:
            yield
        finally:
            model.train()
