"""High-scored negatives whose score does not stand still (SRNS, Ding et al., 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from negrec.kernels.tiles import chunks
from negrec.samplers.base import Sampler, last_of_equal
from negrec.samplers.uniform import Uniform
from negrec.scoring import ItemScorer, queries_at_once, score_candidates
from negrec.types import DatasetInfo, Exclude, Feedback, Negatives, Queries, Step

VISITS = 5  # whose probabilities are remembered; the paper's number
_UNKNOWN = -1.0  # in the place of a probability


@dataclass(frozen=True)
class Refreshed(Negatives):
    """Negatives, and what the memory of their queries becomes once the step is over.

    Attributes:
        memory: item ids, 0 where there is none, (N, M).
        history: their probabilities, oldest first, (N, M, VISITS).
    """

    memory: Tensor | None = None
    history: Tensor | None = None


class SRNS(Sampler):
    r"""Picks negatives that score high and whose scores vary, from a memory of each query.

    .. math:: j = \arg\max_{i \in \mathcal{M}} P_i + w_t \, \mathrm{std}(P_i), \quad
       P_i = \sigma(s_i - s^+), \quad w_t = w \min(t / T_0, 1)

    "Simplify and robustify negative sampling" (Ding et al., 2020, arXiv:2009.03376, section 3):
    false negatives score high and steadily, so among items of like score the one that varies is
    the safer negative. The standard deviation is that of P at the last five visits before this
    one, as many as are known; an item that is new has 0. t counts epochs from 0.

    After the pick the memory M is refreshed, with the scores of this visit: from M and ``pool``
    uniform items as many as it holds are drawn without replacement, with probability
    proportional to exp(s_i / tau).

    Limits: w = 0 picks the highest score of the memory; a large tau makes the memory a uniform
    sample, a small one the items that score highest among all that were ever drawn.

    Where we differ: the paper keeps one memory for each user, here there is one for each training
    token (user, position), whose state and target are its own; its code follows the scores of
    3,000 items of each user through every epoch, here an item's past begins when it is drawn and
    ends when it leaves the memory. So tau must be small enough for items to stay: with the
    code's 10 and a pool of 64 almost none would. At a token's first visit the memory is empty and
    the pick is from the pool. The paper rules out all items of the user (``exclude="history"``).

    Memory: n_tokens * memory * 14 bytes (an id of 4, five half-precision probabilities). Where a
    token comes twice in a batch, the later query's memory stands. There is no density: log-Q
    cannot correct for it.

    Args:
        info: facts of the training split.
        memory: M's size in items, at least ``k``; the paper's code has 8.
        pool: uniform items that are drawn at each visit, at least ``k``; the paper's code has 64.
        weight: w, at least 0; the paper's code has 5.
        tau: temperature of the refresh, positive.
        warmup: T_0, epochs until the weight is whole, at least 0; the paper's code has 50.
        k: negatives per query.
        exclude: see ``Sampler``.

    Raises:
        ValueError: the training tokens are not numbered.
    """

    k: int
    token_base: Tensor
    items: Tensor
    history: Tensor

    def __init__(
        self,
        info: DatasetInfo,
        memory: int = 8,
        pool: int = 8,
        weight: float = 5.0,
        tau: float = 0.2,
        warmup: int = 50,
        k: int = 1,
        exclude: Exclude = "target",
    ) -> None:
        super().__init__(info, exclude)
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if k > memory:
            raise ValueError(f"k must not exceed the memory: k={k}, and it holds {memory}")
        if k > pool:
            raise ValueError(f"k must not exceed the pool: k={k}, and the pool has {pool}")
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight must be at least 0 and finite, got {weight}")
        if not 0 < tau < math.inf:
            raise ValueError(f"tau must be positive, got {tau}")
        if warmup < 0:
            raise ValueError(f"warmup must be at least 0 epochs, got {warmup}")
        if info.token_base is None:
            raise ValueError(
                "SRNS remembers by (user, position), and info.token_base is None: take the facts "
                "from Sequences.facts(info)"
            )
        try:
            self.pool = Uniform(info, pool, "query", exclude)
        except ValueError as error:
            raise ValueError(f"pool: {error}") from error
        self.memory = memory
        self.weight = weight
        self.tau = tau
        self.warmup = warmup
        self.k = k
        shape = (info.n_tokens, memory)
        self.register_buffer("token_base", info.token_base.clone(), persistent=False)
        self.register_buffer("items", torch.zeros(shape, dtype=torch.int32))  # 0: empty
        unknown = torch.full((*shape, VISITS), _UNKNOWN, dtype=torch.float16)
        self.register_buffer("history", unknown)

    def weight_in(self, epoch: int) -> float:
        """w_t: what a standard deviation counts in an epoch, from 0."""
        return self.weight * min(epoch / self.warmup, 1.0) if self.warmup else self.weight

    def sample(self, queries: Queries, scorer: ItemScorer, step: Step) -> Negatives:
        key = self._key(queries)
        remembered = self.items[key].long()
        drawn = self.pool.sample(queries, scorer, step).items
        items = torch.cat([remembered, drawn], 1)  # (N, C): the memory, then the pool
        # The drawn ones have no past.
        past = F.pad(self.history[key].float(), (0, 0, 0, drawn.shape[1]), value=_UNKNOWN)
        present = (items > 0) & ~_repeats(items)
        items = items.clamp(min=1)
        candidates = Negatives(items, exclude=self.exclude, present=present)
        valid = candidates.valid(queries)
        scores = _score(queries, candidates, scorer).masked_fill(~valid, -torch.inf)
        positive = scorer.target(queries.hidden, queries.target)
        probability = torch.sigmoid(scores - positive[:, None])
        picked, present = self._pick(probability, past, valid, step.epoch)
        # Adding Gumbel noise and taking the highest draws without replacement.
        noise = scores.new_empty(len(queries.whole.target), scores.shape[1])
        noise = queries.batch.own(noise.exponential_(generator=step.common), "query")
        kept, memory = self._draw(scores, items, noise)
        visited = torch.cat([past[:, :, 1:], probability[:, :, None]], 2)
        return Refreshed(
            items.gather(1, picked),
            exclude=self.exclude,
            present=present,
            memory=memory,
            history=visited.gather(1, kept[:, :, None].expand(-1, -1, VISITS)),
        )

    def observe(self, feedback: Feedback) -> None:
        negatives = feedback.negatives
        assert isinstance(negatives, Refreshed)
        assert negatives.memory is not None
        assert negatives.history is not None
        batch = feedback.queries.batch
        key = self._key(feedback.queries.whole)
        memory = batch.gather(negatives.memory.int(), "query")
        history = batch.gather(negatives.history.half(), "query")
        # Of equal keys the last one's memory stands.
        last = last_of_equal(key)
        self.items[key] = memory[last]
        self.history[key] = history[last]

    def _key(self, queries: Queries) -> Tensor:
        """The number of each query's token, (N,)."""
        return self.token_base[queries.user] + queries.position

    def _pick(
        self, probability: Tensor, past: Tensor, valid: Tensor, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Columns of the k best candidates, and whether these may be negatives, (N, k)."""
        worth = probability + self.weight_in(epoch) * deviation(past)
        # From the memory; from the pool while there is nothing in it.
        remembered = valid[:, : self.memory].any(1, keepdim=True)
        column = torch.arange(valid.shape[1], device=valid.device)
        eligible = valid & ((column < self.memory) == remembered)
        picked = worth.masked_fill(~eligible, -torch.inf).topk(self.k, dim=1).indices
        return picked, eligible.gather(1, picked)

    def _draw(self, scores: Tensor, items: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Columns and items of the refreshed memory, (N, M); an item 0 is an empty slot."""
        noisy, column = (scores / self.tau - noise.log()).topk(self.memory, dim=1)
        return column, items.gather(1, column).masked_fill(noisy == -torch.inf, 0)


def deviation(history: Tensor) -> Tensor:
    """Standard deviation of what is known, 0 where nothing is.

    Args:
        history: probabilities, negative where unknown, (..., VISITS).
    """
    known = history >= 0
    n = known.sum(-1, keepdim=True).clamp(min=1)
    mean = history.masked_fill(~known, 0).sum(-1, keepdim=True) / n
    square = (history - mean).square().masked_fill(~known, 0)
    return (square.sum(-1, keepdim=True) / n).sqrt().squeeze(-1)


def _repeats(items: Tensor) -> Tensor:
    """Which items stand further left in their row already, (N, C) bool."""
    ordered, order = items.sort(dim=1, stable=True)
    again = F.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
    return torch.zeros_like(again).scatter_(1, order, again)


def _score(queries: Queries, candidates: Negatives, scorer: ItemScorer) -> Tensor:
    """Scores of N queries against their candidates, in chunks, (N, C)."""
    parts = chunks(len(queries.target), queries_at_once(candidates, scorer))
    return torch.cat(
        [score_candidates(queries.select(p), candidates.select(p), scorer) for p in parts]
    )
