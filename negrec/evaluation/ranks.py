"""Where each target stands among all items, and which items stand first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from negrec.errors import InputError
from negrec.kernels.tiles import Pairs, Scratch, chunks
from negrec.scoring import FixedScorer
from negrec.types import HeldOut

Seen = Literal["filter", "keep", "zero"]


@dataclass(frozen=True)
class Ranks:
    """Where targets stand.

    Attributes:
        greater: how many items are scored higher, (M,); V for a target outside the catalogue.
        ties: how many other items have the same score, (M,).
    """

    greater: Tensor
    ties: Tensor


def rank(
    hidden: Tensor, scorer: FixedScorer, part: HeldOut, seen: Seen, scratch: Scratch | None = None
) -> Ranks:
    """Ranks targets among the whole catalogue, in chunks of states.

    Args:
        hidden: the state after the history of each target, (m, D).
        scorer: scores states against the V items.
        part: the m targets with their histories.
        seen: what becomes of the items of the history: "filter" takes them out of the ranking,
            but never the target; "keep" ranks them like others; "zero" gives them the score 0, a
            target among them included (the published code of S3-Rec; for reproductions only).
        scratch: holds the scores of a chunk.

    Raises:
        InputError: a score is not finite.
    """
    _check_finite(hidden, scorer, part)
    target = part.target.to(hidden.device)
    own = (target - 1).clamp(min=0)  # of a cold target: not read
    replaced, value = _replaced(part, seen, hidden.device)
    greater, ties = scorer.counts(hidden, own, replaced, value, scratch or Scratch())
    cold = target == 0
    greater, ties = greater.masked_fill(cold, scorer.n_items), ties.masked_fill(cold, 0)
    return Ranks(greater.cpu(), ties.cpu())


def top(
    hidden: Tensor,
    scorer: FixedScorer,
    part: HeldOut,
    seen: Seen,
    k: int,
    scratch: Scratch | None = None,
) -> tuple[Tensor, Tensor]:
    """The k first items of each ranking, best first, ties by id, and their scores, (m, k) each.

    Where the ranking has fewer items, the rest is item 0 with the score -inf.

    Args:
        hidden: the state after the history of each target, (m, D).
        scorer: scores states against the V items.
        part: the m targets with their histories.
        seen: as in ``rank``.
        k: length of the lists.
        scratch: holds the scores of a chunk.

    Raises:
        InputError: a score is not finite.
    """
    _check_finite(hidden, scorer, part)
    scratch = scratch or Scratch()
    items = torch.zeros(len(hidden), k, dtype=torch.int64)
    scores = torch.full((len(hidden), k), -torch.inf)
    width = min(k, scorer.n_items)
    replaced, value = _replaced(part, seen, hidden.device)
    parts = list(chunks(len(hidden), scorer.tile_rows))
    for rows, pairs in zip(parts, replaced.by_rows(parts), strict=True):
        states, found = hidden[rows], []
        for stretch in scorer.stretches:
            out = scratch.take(len(states), stretch.stop - stretch.start, scorer.weight)
            of_tile, inside = scorer.tile(states, stretch, out), pairs.within(stretch)
            of_tile[inside.row, inside.column] = value
            column, best = _first(of_tile, min(k, of_tile.shape[1]))
            found.append((column + stretch.start, best))
        column, best = _merged(found, width)
        items[rows, :width] = (column + 1).masked_fill_(best == -torch.inf, 0).cpu()
        scores[rows, :width] = best.to(scores)
    return items, scores


def rank_among(hidden: Tensor, scorer: FixedScorer, part: HeldOut, candidates: Tensor) -> Ranks:
    """Ranks each target among its own few candidates, (m, n) ids (sampled metrics).

    Args:
        hidden: the state after the history of each target, (m, D).
        scorer: scores states against the V items.
        part: the m targets.
        candidates: the items that a target is ranked among, (m, n); the target is not one of them.

    Raises:
        InputError: a score is not finite.
    """
    _check_finite(hidden, scorer, part)
    items = torch.cat([part.target.clamp(min=1)[:, None], candidates], 1).to(hidden.device)
    scores = scorer(hidden, items)
    own, others = scores[:, :1], scores[:, 1:]
    greater, ties = (others > own).sum(1).cpu(), (others == own).sum(1).cpu()
    cold = part.target == 0
    return Ranks(greater.masked_fill_(cold, scorer.n_items), ties.masked_fill_(cold, 0))


def sample_unseen(part: HeldOut, n_items: int, n: int, generator: torch.Generator) -> Tensor:
    """Items drawn uniformly, with replacement, from those neither seen nor the target, (m, n).

    Args:
        part: the m targets with their histories.
        n_items: size V of the catalogue.
        n: items per target.
        generator: source of randomness.

    Raises:
        InputError: a user has seen the whole catalogue.
    """
    m = len(part)
    histories = part.histories()
    stride = n_items + 1
    owner = torch.cat([histories.row, torch.arange(m)])
    item = torch.cat([histories.values, part.target])
    keys = torch.unique((owner * stride + item)[item > 0])  # sorted by target, then by item
    owner, item = keys // stride, keys % stride
    first = torch.searchsorted(owner, torch.arange(m + 1))
    left = n_items - first.diff()  # how many items may be drawn, (m,)
    if (left == 0).any():
        user = int(part.user[left == 0][0])
        raise InputError(
            f"user {user} has seen all {n_items} items, so nothing is left to sample for "
            "evaluation.sampled: use evaluation.sampled=null"
        )
    u = (torch.rand(m, n, dtype=torch.double, generator=generator) * left[:, None]).long()
    # The u-th of the items that are left: u plus how many ruled-out items come before it.
    # The j-th ruled-out item (from 0) has item - 1 - j items left before it.
    before = owner * stride + item - 1 - (torch.arange(len(keys)) - first[owner])
    passed = torch.searchsorted(before, torch.arange(m)[:, None] * stride + u, right=True)
    return u + 1 + passed - first[:-1, None]


def _replaced(part: HeldOut, seen: Seen, device: torch.device) -> tuple[Pairs, float]:
    """The cells of (m, V) that have another score than the model's, and that score."""
    if seen == "keep":
        none = part.target[:0].to(device)
        return Pairs(none, none), 0.0
    histories = part.histories()
    chosen = histories.values > 0
    if seen == "filter":
        chosen &= histories.values != part.target[histories.row]
    row, column = histories.row[chosen], histories.values[chosen] - 1
    return Pairs(row.to(device), column.to(device)), -torch.inf if seen == "filter" else 0.0


def _merged(found: list[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    """The k first of what `_first` found in each stretch, from left to right."""
    if len(found) == 1:
        return found[0]
    column, value = (torch.cat(side, 1) for side in zip(*found, strict=True))
    value, order = value.sort(dim=1, descending=True, stable=True)  # ties stay by column
    return column.gather(1, order[:, :k]), value[:, :k]


def _first(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Columns of the k largest scores of each row, descending, ties by column; and the scores."""
    value, column = scores.topk(min(k + 1, scores.shape[1]))
    # Where the next score ties with the last of the k, topk took any of those columns.
    tied = (value[:, k:] == value[:, k - 1 : k]).any(1)
    column = column[:, :k].sort(dim=1).values
    if tied.any():
        column[tied] = _smallest_columns(scores[tied], value[tied, k - 1 : k], k)
    value, order = scores.gather(1, column).sort(dim=1, descending=True, stable=True)
    return column.gather(1, order), value


def _smallest_columns(scores: Tensor, last: Tensor, k: int) -> Tensor:
    """The k first columns by score, of those that tie for the last places the smallest, (n, k).

    Args:
        scores: (n, V).
        last: the k-th largest score of each row, (n, 1).
        k: how many; they stand in ascending order.
    """
    above, tied = scores > last, scores == last
    places = k - above.sum(1, keepdim=True)
    chosen = above | (tied & (tied.cumsum(1) <= places))
    return chosen.nonzero()[:, 1].view(-1, k)


def _check_finite(hidden: Tensor, scorer: FixedScorer, part: HeldOut) -> None:
    """Refuses states and item vectors whose scores would be NaN, or overflow.

    A bound on a query's scores stands for a look at each of the (m, V) scores. A NaN would rank
    its target first: no comparison with it is true.
    """
    if not len(hidden):
        return
    largest = scorer.largest(hidden)
    bad = ~(largest < torch.finfo(largest.dtype).max)
    if bad.any():
        which = int(bad.nonzero()[0])
        raise InputError(
            f"the model's scores for user {int(part.user[which])} (target "
            f"{int(part.target[which])}) are not finite: the training has diverged, use a lower "
            "trainer.optimizer.lr or set trainer.clip_norm=1"
        )
