"""What every sampler is, and what all model-free proposals share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor, nn

from negrec.scoring import ItemScorer
from negrec.types import DatasetInfo, Exclude, Feedback, Negatives, Queries, Share, Step

# A proposal whose mass lies almost wholly on excluded items never finds a valid one: what is left
# after this many redraws is ruled out instead.
_REDRAWS = 100


class Sampler(nn.Module, ABC):
    """Answers queries with negatives. State lives in buffers: it moves and checkpoints with them.

    Args:
        info: facts of the training split.
        exclude: which accidental hits are ruled out: nothing ("none"), the query's own target
            ("target"), the items of its sequence in the batch ("window"), all training items of
            its user ("history").

    Attributes:
        labels: some candidates may be relabelled as positives.
        exhaustive: the candidates are the whole catalogue.
        density_by_query: ``Negatives.log_q`` tells the density that each candidate was drawn
            from, which depends on the query: ``log_prob`` gives None.
        k: candidates of each query; None where it depends on the batch.
    """

    labels: bool = False
    exhaustive: bool = False
    density_by_query: bool = False
    k: int | None = None

    def __init__(self, info: DatasetInfo, exclude: Exclude = "target") -> None:
        super().__init__()
        if exclude not in get_args(Exclude):
            raise ValueError(
                f"exclude must be one of {', '.join(get_args(Exclude))}, got {exclude!r}"
            )
        self.exclude: Exclude = exclude
        self.n_items = info.n_items

    @property
    def name(self) -> str:
        """What it is called in errors; a wrapper names what it wraps."""
        return type(self).__name__

    @property
    def has_density(self) -> bool:
        """Whether ``log_prob`` gives one."""
        return self.log_prob(torch.ones(1, dtype=torch.int64)) is not None

    @abstractmethod
    def sample(self, queries: Queries, scorer: ItemScorer, step: Step) -> Negatives:
        """Draws candidates; called without gradient, changes no state (``observe`` does).

        Where several ranks have parts of the batch, what is drawn for all queries at once is drawn
        for ``queries.whole`` from ``step.common`` by every rank, which keeps its own.

        Args:
            queries: N of them, detached.
            scorer: the model's.
            step: carries the only source of randomness, ``step.generator``.
        """

    def log_prob(self, items: Tensor) -> Tensor | None:
        """Log density of the proposal at items (...,); None where there is no density."""
        return None

    def log_prob_for(self, items: Tensor, queries: Queries) -> Tensor | None:
        """Log density that items are drawn from in a batch, of the items' shape or wider.

        Where a draw per query avoids excluded items, items are (N, K) or (1, K), and it is the
        renormalised one; elsewhere they may have any shape.
        """
        return self.log_prob(items)

    @property
    def parts(self) -> tuple[Sampler, ...]:
        """The samplers that this one is made of, in the order of ``Negatives.drawn``."""
        return ()

    def observe(self, feedback: Feedback) -> None:
        """Learns from a finished step; its parts do, each from what it had answered.

        Ranks must learn the same: from ``queries.whole``, or from what ``batch.gather`` brings.
        """
        for part, own in zip(self.parts, feedback.negatives.drawn, strict=True):
            part.observe(replace(feedback, negatives=own, scores=None))


class Proposal(Sampler):
    """A model-free proposal q(item), drawn with replacement.

    A draw per query redraws what ``exclude`` rules out, that is, it draws from the renormalised
    proposal, and k valid negatives remain. A shared draw cannot please everybody: it is left as
    it is, ``Negatives.valid`` masks, and losses count what is valid.

    Args:
        info: facts of the training split.
        k: negatives of one draw, in 1..V.
        share: who shares a draw: each "query" has its own, the queries of a "sequence", or the
            whole "batch".
        exclude: see ``Sampler``.
    """

    k: int

    def __init__(
        self, info: DatasetInfo, k: int, share: Share = "query", exclude: Exclude = "target"
    ) -> None:
        super().__init__(info, exclude)
        check_k(k, info.n_items)
        if share not in get_args(Share):
            raise ValueError(f"share must be one of {', '.join(get_args(Share))}, got {share!r}")
        self.k = k
        self.share: Share = share

    @abstractmethod
    def draw(self, rows: int, generator: torch.Generator | None) -> Tensor:
        """Item ids, (rows, k)."""

    def sample(self, queries: Queries, scorer: ItemScorer, step: Step) -> Negatives:
        whole = queries.whole
        items = self.draw(self._rows(whole), step.common)
        if self.share == "query":
            items = self._redraw(items, whole, step.common)
        items = queries.batch.own(items, self.share)
        row = queries.sequence if self.share == "sequence" else None
        log_q = self.log_prob_for(items, queries)
        return Negatives(items, row, log_q, self.log_prob(queries.target), exclude=self.exclude)

    def log_prob_for(self, items: Tensor, queries: Queries) -> Tensor | None:
        log_q = self.log_prob(items)
        if log_q is None or self.share != "query" or self.exclude == "none":
            return log_q
        return log_q - self._log_left(queries)[:, None]

    def _log_left(self, queries: Queries) -> Tensor:
        """Log mass of the proposal that is not excluded, (N,): what redrawing divides by."""
        query, item = queries.excluded.pairs(self.exclude)
        density = self.log_prob(item)
        assert density is not None
        mass = density.new_zeros(len(queries.target)).index_add_(0, query, density.exp())
        return torch.log1p(-mass.clamp(max=1))  # rounding may pass 1

    def _rows(self, queries: Queries) -> int:
        match self.share:
            case "query":
                return len(queries.target)
            case "sequence":
                return queries.batch.n_sequences
            case "batch":
                return 1

    def _redraw(self, items: Tensor, queries: Queries, generator: torch.Generator | None) -> Tensor:
        """Replaces excluded items by new draws until none is left, in place of the fresh draw."""
        index = torch.arange(len(items), device=items.device)[:, None].expand_as(items)
        hit = queries.excluded.contains(items, index, self.exclude).nonzero(as_tuple=True)
        for _ in range(_REDRAWS):
            n = len(hit[0])
            if n == 0:
                break
            fresh = self.draw(-(-n // self.k), generator).flatten()[:n]
            items[hit] = fresh
            again = queries.excluded.contains(fresh, hit[0], self.exclude)
            hit = (hit[0][again], hit[1][again])
        return items


def last_of_equal(key: Tensor) -> Tensor:
    """For each key (N,) the index of the last one that equals it: what a later write leaves."""
    ordered, order = key.sort(stable=True)
    return order[torch.searchsorted(ordered, key, right=True) - 1]


def check_k(k: int, n_items: int) -> None:
    """Refuses a number of negatives that the catalogue cannot give."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if k > n_items:
        raise ValueError(f"k must not exceed the catalogue: k={k}, and there are {n_items} items")
