"""False negatives, found by remembering what scored high (UFNRec, Liu et al., 2022)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from negrec.kernels.tiles import chunks
from negrec.plateau import Plateau, Start
from negrec.samplers.base import Sampler, last_of_equal
from negrec.scoring import ItemScorer, queries_at_once, score_candidates
from negrec.types import DatasetInfo, Feedback, Negatives, Queries, Step

Miner = Literal["count", "variance"]
Action = Literal["track", "remove", "reverse"]

_CERTAIN = 255  # in every place of its trace, either miner takes an item for a false negative


@dataclass(frozen=True)
class Served(Negatives):
    """Negatives with items from the memory in front.

    Attributes:
        scores: of the targets (N,) and of the candidates (N, K), for ``observe``, where they are
            too many for a loss to hold; made before the step moves the item vectors.
    """

    scores: tuple[Tensor, Tensor] | None = None


class HardMemory(Sampler):
    r"""Serves again what scored high the last time, and takes what keeps doing so for positives.

    UFNRec (Liu et al., 2022, arXiv:2208.04116, section 3.2 and its code) around any sampler. Each
    (user, position) has a memory of a few items. From the start of mining on, at each visit,

    1. the remembered items take the place of the first drawn negatives;
    2. those that the miner takes for false negatives are mined: tracked (``Negatives.mined`` tells
       a teacher), removed from the candidates, or reversed (label 1) in the same step's loss;
    3. after the step the memory holds the candidates that scored above the target, the highest
       first; when there are more than slots, the lower ones are forgotten.

    Miners, r being how many visits in a row an item was recorded at:

    * ``count`` (UFNRec): r > m, that is, it was served again more than m times.
    * ``variance`` (SRNS, Ding et al., 2020, arXiv:2009.03376, equation 4): over the last five
      visits the probability P = sigma(s_j - s^+) had a mean of at least 1/2 and a standard
      deviation below ``deviation``: false negatives score high and steadily.

    Limits: an m that is never reached, or action "track", only re-serves hard negatives. Before
    the start the wrapped sampler's negatives pass through as they are.

    Where the papers are silent or we differ: UFNRec's code has no ``slots`` and never forgets a
    count, here the count goes with the item. SRNS samples by variance and names no threshold;
    UFNRec does not say how it makes one of it: ``deviation`` and the mean are ours. Without
    ``recorded_only`` (columns "SRNS" and "UFN_srns" of UFNRec's table 4) the memory takes the
    highest-scored candidates, above the target or not: of these a history can be kept. A drawn
    candidate that repeats a served one is ruled out. Where a user's position comes twice in a
    batch, the later query's record stands, as if it had been visited last.

    Rows that queries share are spread to one row per query: from the start of mining on a shared
    draw is not faster than one per query. There is no density: log-Q cannot correct for it.

    Args:
        info: facts of the training split.
        base: draws the other negatives.
        miner: "count" or "variance".
        action: what becomes of a false negative: "track", "remove" or "reverse".
        m: of the miner "count", in 0..254; UFNRec's code has 5, its paper tunes 1..10.
        deviation: of the miner "variance", in (0, 0.5]; on Amazon Beauty half of the items that
            stay for five visits deviate by less than 0.05.
        recorded_only: only candidates scored above the target enter the memory.
        persist: a false negative remains one (the paper) in a slot of its own; False: it leaves
            the memory after the visit (the code).
        slots: remembered items of each (user, position), at least 1; 5 bytes each, 9 with miner
            "variance".
        start: of mining, an epoch from 0, or "plateau"; see ``Plateau``.

    Raises:
        ValueError: the training tokens are not numbered, or the base cannot be wrapped.
    """

    token_base: Tensor
    items: Tensor
    trace: Tensor

    def __init__(
        self,
        info: DatasetInfo,
        base: Sampler,
        miner: Miner = "count",
        action: Action = "reverse",
        m: int = 5,
        deviation: float = 0.05,
        recorded_only: bool = True,
        persist: bool = False,
        slots: int = 8,
        start: Start = "plateau",
    ) -> None:
        super().__init__(info, base.exclude)
        if miner not in get_args(Miner):
            raise ValueError(f"miner must be one of {', '.join(get_args(Miner))}, got {miner!r}")
        if action not in get_args(Action):
            raise ValueError(f"action must be one of {', '.join(get_args(Action))}, got {action!r}")
        if not 0 <= m < _CERTAIN:
            raise ValueError(f"m must be in 0..{_CERTAIN - 1}, got {m}")
        if not 0 < deviation <= 0.5:  # no number in [0, 1] deviates by more
            raise ValueError(f"deviation must be in (0, 0.5], got {deviation}")
        if slots < 1:
            raise ValueError(f"slots must be at least 1, got {slots}")
        if base.exhaustive:
            raise ValueError(
                f"false_negatives does not go with sampler {base.name}: every item is served anyway"
            )
        if base.labels:
            raise ValueError(f"{base.name} looks for false negatives already")
        if info.token_base is None:
            raise ValueError(
                "false negatives are remembered by (user, position), and info.token_base is None: "
                "take the facts from Sequences.facts(info)"
            )
        self.base = base
        self.k = base.k
        self.miner: _Miner = _Count(m) if miner == "count" else _Variance(deviation)
        self.action: Action = action
        self.recorded_only = recorded_only
        self.persist = persist
        self.slots = slots
        self.starting = Plateau(start)
        self.labels = action == "reverse"
        shape = (info.n_tokens, slots)
        self.register_buffer("token_base", info.token_base.clone(), persistent=False)
        self.register_buffer("items", torch.zeros(shape, dtype=torch.int32))  # 0: empty
        self.register_buffer("trace", torch.zeros(*shape, self.miner.width, dtype=torch.uint8))

    @property
    def name(self) -> str:
        done = {"track": "tracked", "remove": "removed", "reverse": "reversed"}[self.action]
        return f"{self.base.name} with false negatives {done}"

    def sample(self, queries: Queries, scorer: ItemScorer, step: Step) -> Negatives:
        drawn = self.base.sample(queries, scorer, step)
        if not self.starting.started(step.epoch):
            # Without a density from the start: a loss cannot change its mind in mid-training.
            return replace(drawn, log_q=None, target_log_q=None, drawn=(drawn,))
        n, k = len(queries.target), drawn.k
        served, trace = self._recall(queries, k)
        width = served.shape[1]
        remembered = served > 0
        items = drawn.of().expand(n, -1)
        present = torch.ones_like(items, dtype=torch.bool)
        if drawn.present is not None:
            present &= drawn.of(drawn.present)
        for item in served.unbind(1):  # a few slots
            present &= items != item[:, None]
        present[:, :width] |= remembered
        mined = F.pad(remembered & self.miner.false(trace), (0, k - width))
        if self.action == "remove":
            present &= ~mined
        served_with = Served(
            torch.cat([torch.where(remembered, served, items[:, :width]), items[:, width:]], 1),
            label=mined.to(queries.hidden.dtype) if self.action == "reverse" else None,
            mined=mined,
            exclude=drawn.exclude,
            present=present,
            drawn=(drawn,),
        )
        size = queries_at_once(served_with, scorer)
        if n <= size:
            return served_with  # the loss will hold the scores
        parts = [
            score_candidates(queries.select(part), served_with.select(part), scorer)
            for part in chunks(n, size)
        ]
        scores = (scorer.target(queries.hidden, queries.target), torch.cat(parts))
        return replace(served_with, scores=scores)

    @property
    def parts(self) -> tuple[Sampler, ...]:
        return (self.base,)

    def observe(self, feedback: Feedback) -> None:
        self.starting.observe(feedback.whole_loss, feedback.epoch)
        super().observe(feedback)
        if feedback.negatives.mined is not None:
            self._record(feedback)

    def _key(self, queries: Queries) -> Tensor:
        """The number of each query's token, (N,)."""
        return self.token_base[queries.user] + queries.position

    def _recall(self, queries: Queries, k: int) -> tuple[Tensor, Tensor]:
        """Remembered items (N, S'), 0 where there is none, and traces (N, S', W); S' <= k."""
        key = self._key(queries)
        return self.items[key, :k].long(), self.trace[key, :k]

    def _record(self, feedback: Feedback) -> None:
        """Puts the candidates that scored high into the memory, in place of what was there."""
        queries, negatives = feedback.queries, feedback.negatives
        assert negatives.mined is not None
        positive, negative, valid = _scores(feedback)
        wanted = valid & ~negatives.mined
        if self.recorded_only:
            wanted &= negative > positive[:, None]
        priority = negative.masked_fill(~wanted, -torch.inf)
        if self.persist:
            priority = priority.masked_fill(negatives.mined, torch.inf)
        served, trace = self._recall(queries, negatives.k)
        width = served.shape[1]
        top, column = priority.topk(width, dim=1)  # (N, S')
        items = negatives.items.gather(1, column).masked_fill(top == -torch.inf, 0)
        # An item drawn twice is recorded once.
        twice = (items[:, :, None] == items[:, None, :]).tril(-1).any(2)
        items = items.masked_fill(twice, 0)
        # What was served has a past, what was drawn has none.
        slot = column.clamp(max=width - 1)
        known = (column < width) & (served.gather(1, slot) > 0)
        past = trace.gather(1, slot[:, :, None].expand_as(trace)) * known[:, :, None]
        probability = torch.sigmoid(negative.gather(1, column) - positive[:, None])
        trace = self.miner.visited(past, probability)
        mined = negatives.mined.gather(1, column)
        trace = trace.masked_fill(mined[:, :, None], _CERTAIN)
        batch = queries.batch
        self._write(
            self._key(queries.whole), batch.gather(items, "query"), batch.gather(trace, "query")
        )

    def _write(self, key: Tensor, items: Tensor, trace: Tensor) -> None:
        """Overwrites the memory of N keys; of equal keys the last one's stands."""
        last = last_of_equal(key)
        free = self.slots - items.shape[1]
        self.items[key] = F.pad(items[last], (0, free)).int()
        self.trace[key] = F.pad(trace[last], (0, 0, 0, free))


class _Miner(Protocol):
    """Decides by an item's trace: ``width`` bytes, 0 where nothing is known."""

    width: int

    def false(self, trace: Tensor) -> Tensor:
        """Which items (..., S) are false negatives, by their traces (..., S, W)."""

    def visited(self, trace: Tensor, probability: Tensor) -> Tensor:
        """Traces after a visit at which the items' probabilities were these (..., S)."""


class _Count:
    """The trace is how many visits in a row an item was recorded at."""

    width = 1

    def __init__(self, m: int) -> None:
        self.m = m

    def false(self, trace: Tensor) -> Tensor:
        return trace[..., 0] > self.m

    def visited(self, trace: Tensor, probability: Tensor) -> Tensor:
        return trace + 1  # up to m + 1, a byte: then it is mined


class _Variance:
    """The trace is the last five probabilities, oldest first, in steps of 1/254 from 1 on."""

    width = 5

    def __init__(self, deviation: float) -> None:
        self.deviation = deviation

    def false(self, trace: Tensor) -> Tensor:
        probability = (trace.float() - 1) / 254
        steady = probability.std(-1, correction=0) < self.deviation
        return (trace > 0).all(-1) & steady & (probability.mean(-1) >= 0.5)

    def visited(self, trace: Tensor, probability: Tensor) -> Tensor:
        newest = (1 + 254 * probability).round().to(torch.uint8)
        return torch.cat([trace[..., 1:], newest[..., None]], -1)


def _scores(feedback: Feedback) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the targets (N,) and of the candidates (N, K), and which of these are valid."""
    if feedback.scores is not None:
        return feedback.scores.positive, feedback.scores.negative, feedback.scores.valid
    assert isinstance(feedback.negatives, Served)
    if feedback.negatives.scores is None:
        raise ValueError("false negatives are found by scores, and the loss held none")
    return *feedback.negatives.scores, feedback.negatives.valid(feedback.queries)
