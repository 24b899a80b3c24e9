"""How a query is scored against items."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from functools import wraps
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negrec.embedding import Table, look_up, whole
from negrec.kernels import candidates, counts, native
from negrec.kernels.tiles import Pairs, Scratch, chunk_rows, chunks, stretches, tile_rows
from negrec.types import Batch, Negatives, Queries, slices

Similarity = Literal["dot", "cosine"]
Scored = TypeVar("Scored", Tensor, tuple[Tensor, Tensor])

_SCORES = 1 << 23  # scores that are held at once (32 MiB)
_VECTORS = 1 << 25  # numbers of candidates' vectors that are held at once (128 MiB)
_TABLE = 1 << 23  # numbers of a table that is read as a whole where next to all rows are wanted
_GATHERED = 1 << 20  # numbers of vectors that are cheaper to gather than to tell apart
_SMALLEST_GRID = 4  # queries; rows of up to twice as many share the next larger grid


def full_precision(score: Callable[..., Scored]) -> Callable[..., Scored]:
    """Scores in the precision of the item vectors: targets and negatives must compare alike."""

    @wraps(score)
    def scored(self: ItemScorer, hidden: Tensor, *args: object) -> Scored:
        with torch.autocast(hidden.device.type, enabled=False):
            return score(self, hidden.to(self.weight.dtype), *args)

    return scored


class ItemScorer(nn.Module):
    r"""Scores items by the dot product or the cosine of a hidden state and the item's vector.

    .. math:: s(h, i) = (h \cdot e_i + b_i) / \tau \quad \text{or} \quad
       s(h, i) = (\cos(h, e_i) + b_i) / \tau

    With ``offset`` a query brings a number o of its own, and a score is (... + b_i + o) / tau: the
    part that a model's score has in common for all items, which some losses (BCE) depend on.

    A model hands its states to ``query`` before anybody else sees them. From there on a score is
    a plain dot product, whatever the settings: ``query(states) @ matrix.T``.

    Args:
        n_items: size V of the catalogue.
        dim: D.
        std: standard deviation of the normal initialisation.
        similarity: "dot" or "cosine".
        bias: each item has a bias, 0 at the start.
        temperature: tau, positive; a cosine wants about 0.05 to 0.2.
        offset: queries have offsets; a matter of the model's, not of the configuration.
    """

    offset = False

    def __init__(
        self,
        n_items: int,
        dim: int,
        std: float = 0.02,
        similarity: Similarity = "dot",
        bias: bool = False,
        temperature: float = 1.0,
        offset: bool = False,
    ) -> None:
        super().__init__()
        if similarity not in ("dot", "cosine"):
            raise ValueError(f"scorer.similarity must be dot or cosine, got {similarity!r}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"scorer.temperature must be positive, got {temperature}")
        self.similarity: Similarity = similarity
        self.temperature = temperature
        self.weight = Table(torch.empty(n_items, dim))
        self.bias = Table(torch.zeros(n_items, 1)) if bias else None
        self.offset = offset
        nn.init.normal_(self.weight, std=std)

    @property
    def n_items(self) -> int:
        return len(self.weight)

    @property
    def width(self) -> int:
        """Numbers of a query, columns of ``matrix``."""
        return self.weight.shape[1] + (self.bias is not None) + self.offset

    @property
    def matrix(self) -> Tensor:
        """The item side of every score, (V, D): item i is row i - 1.

        A bias makes it one wider, and an offset too.
        """
        bias = None if self.bias is None else whole(self.bias)
        return self._item_side(whole(self.weight), bias)

    def fixed(self) -> FixedScorer:
        """The same scores with the item side worked out once, for an evaluation."""
        return FixedScorer(self.matrix)

    def embed(self, items: Tensor) -> Tensor:
        """The rows of the table for items 1..V as they are, for a model's input, (..., D)."""
        return look_up(self.weight, items - 1)

    def vectors(self, items: Tensor) -> Tensor:
        """The rows of ``matrix`` for items 1..V, (..., D)."""
        bias = None if self.bias is None else look_up(self.bias, items - 1)
        return self._item_side(look_up(self.weight, items - 1), bias)

    @full_precision
    def query(self, states: Tensor, offset: Tensor | None = None) -> Tensor:
        """The query side of every score: what a model's states (..., D) become.

        Args:
            states: (..., D).
            offset: of each state, (...), for a scorer with offsets; 0 by default.
        """
        if self.similarity == "cosine":
            states = F.normalize(states, dim=-1)
        parts = [states]
        if self.bias is not None:
            parts.append(states.new_ones(*states.shape[:-1], 1))
        if self.offset:
            own = states.new_zeros(states.shape[:-1]) if offset is None else offset.to(states)
            parts.append(own[..., None])
        return torch.cat(parts, -1) if len(parts) > 1 else states

    def nobody(self, n: int) -> Tensor:
        """The queries of n people of whom nothing is known, (n, width).

        A state of zeros: biases rank the items, and without them all items tie.
        """
        return self.query(self.weight.new_zeros(n, self.weight.shape[1]))

    def _item_side(self, vectors: Tensor, bias: Tensor | None) -> Tensor:
        if self.similarity == "cosine":
            vectors = F.normalize(vectors, dim=-1)
        if bias is not None:
            vectors = torch.cat([vectors, bias], -1)
        if self.offset:
            vectors = F.pad(vectors, (0, 1), value=1.0)
        return vectors if self.temperature == 1 else vectors / self.temperature

    @full_precision
    def target(self, hidden: Tensor, target: Tensor) -> Tensor:
        """Scores of one item per query, (N,)."""
        if native.serves(self.weight):
            # As candidates are scored: one that is the target ties with it, to the bit.
            vectors, (own,) = self._vectors_once(target)
            return candidates.scores(hidden, vectors, own[:, None])[:, 0]
        return (hidden * self.vectors(target)).sum(-1)

    @full_precision
    def every(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """Scores of the whole catalogue, (N, V): for few queries only.

        Args:
            hidden: (N, D).
            out: takes the scores, (N, V); only where no gradient is wanted.
        """
        return torch.mm(hidden, self.matrix.T, out=out)

    @full_precision
    def forward(self, hidden: Tensor, items: Tensor, row: Tensor | None = None) -> Tensor:
        """Scores of candidates, (N, K).

        Args:
            hidden: (N, D).
            items: (R, K), see ``Negatives.items``.
            row: the row of ``items`` each query reads, ascending, (N,); None when R is 1 or N.
        """
        if row is None and len(items) == 1:
            return hidden @ self.vectors(items[0]).T
        if not native.serves(self.weight):
            if row is not None:
                return self._by_row(hidden, items, row)
            if items.numel() * self.width <= _GATHERED:
                return torch.einsum("nd,nkd->nk", hidden, self.vectors(items))
        vectors, (index,) = self._vectors_once(items)
        return candidates.scores(hidden, vectors, index, row)

    @full_precision
    def with_target(
        self, hidden: Tensor, target: Tensor, items: Tensor, row: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores of the targets, (N,), and of the candidates, (N, K): ``target`` and ``forward``.

        Args:
            hidden: (N, D).
            target: (N,).
            items: (R, K), see ``Negatives.items``.
            row: see ``forward``.
        """
        kind = type(self)  # which may score in a way of its own
        alike = kind.target is ItemScorer.target and kind.forward is ItemScorer.forward
        shared = row is None and len(items) == 1
        if shared or not alike or not native.serves(self.weight):
            return self.target(hidden, target), self(hidden, items, row)
        vectors, (own, index) = self._vectors_once(target, items)
        return candidates.with_target(hidden, vectors, own, index, row)

    def _vectors_once(self, *items: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Vectors of all that is among some items, and where each of these is found.

        Returns:
            (U, D), and rows of it in the shapes of the items.
        """
        sizes = [x.numel() for x in items]
        n = sum(sizes)
        if n >= self.n_items and self.n_items * self.width <= _TABLE:
            return self.matrix, [x - 1 for x in items]
        known = torch.cat([x.flatten() for x in items])
        if n * self.width <= _GATHERED or known.device.type != "cpu":
            # To tell them apart takes longer, and makes the host wait for a device.
            place = torch.arange(n, device=known.device)
        else:
            known, place = torch.unique(known, return_inverse=True)
        places = zip(torch.split(place, sizes), items, strict=True)
        return self.vectors(known), [own.view(x.shape) for own, x in places]

    def _by_row(self, hidden: Tensor, items: Tensor, row: Tensor) -> Tensor:
        """One matrix product for the queries of a row, rows of like size in one batched call.

        A device is waited for: the sizes of the products are the batch's.
        """
        first = row[0]
        sizes = torch.bincount(row - first)  # of the rows that are read
        # Rows by size, and queries by row: all that follows are stretches.
        order = sizes.argsort(stable=True)
        sizes, starts = sizes[order], (sizes.cumsum(0) - sizes)[order]
        local = torch.repeat_interleave(sizes)
        column = torch.arange(len(row), device=row.device) - (sizes.cumsum(0) - sizes)[local]
        query = starts[local] + column
        rows, queries, widths = _grids(sizes)
        # Looked up once and split: each slice of its own would cost a gradient of full size.
        vectors = torch.split(self.vectors(items[order + first]), rows)
        states = torch.split(hidden[query], queries)
        places, columns = torch.split(local, queries), torch.split(column, queries)
        scores, start = [], 0
        for matrix, state, place, at, width in zip(
            vectors, states, places, columns, widths, strict=True
        ):
            grid = hidden.new_zeros(len(matrix), width, hidden.shape[1])
            grid = grid.index_put((place - start, at), state)
            scores.append(torch.bmm(grid, matrix.mT)[place - start, at])
            start += len(matrix)
        return torch.cat(scores)[query.argsort()]


def _grids(sizes: Tensor) -> tuple[list[int], list[int], list[int]]:
    """Groups rows whose sizes differ by less than a factor of two.

    Args:
        sizes: queries of each row, ascending, (R,).

    Returns:
        Of each group: its number of rows, its number of queries, its largest size.
    """
    ascending: list[int] = sizes.tolist()
    groups, start, high = [], 0, _SMALLEST_GRID
    while start < len(ascending):
        stop = bisect_right(ascending, high, lo=start)
        if stop > start:
            groups.append((stop - start, sum(ascending[start:stop]), ascending[stop - 1]))
        start, high = stop, 2 * high
    rows, queries, widths = zip(*groups, strict=True)
    return list(rows), list(queries), list(widths)


def queries_at_once(negatives: Negatives, scorer: ItemScorer) -> int:
    """How many queries may be scored in one go against candidates, and held, at least 1."""
    n = _SCORES // negatives.k
    if negatives.own_rows and scorer.n_items * scorer.width > _VECTORS:
        n = min(n, _VECTORS // (negatives.k * scorer.width))  # their vectors are held too
    return max(1, n)


def score_candidates(queries: Queries, negatives: Negatives, scorer: ItemScorer) -> Tensor:
    """Scores of N queries against their K candidates, all at once, (N, K)."""
    if negatives.exhaustive:
        return scorer.every(queries.hidden)
    scores: Tensor = scorer(queries.hidden, negatives.items, negatives.row)
    return scores


class FixedScorer(ItemScorer):
    """A scorer whose item vectors are given, not learnt: counts, or a known truth.

    Args:
        matrix: the item vectors, (V, D).
    """

    def __init__(self, matrix: Tensor) -> None:
        nn.Module.__init__(self)  # past ItemScorer, which would draw vectors
        self.similarity, self.temperature, self.bias = "dot", 1.0, None
        self.register_buffer("weight", matrix)

    def fixed(self) -> FixedScorer:
        return self

    @property
    def stretches(self) -> list[slice]:
        """The columns of the tiles of scores."""
        return stretches(self.n_items)

    @property
    def tile_rows(self) -> int:
        """How many queries a tile of scores has."""
        return tile_rows(self.n_items)

    @full_precision
    def tile(self, hidden: Tensor, columns: slice, out: Tensor) -> Tensor:
        """Scores of one of the ``stretches`` of the catalogue, in ``out``, (n, columns)."""
        return torch.mm(hidden, self.matrix[columns].T, out=out)

    @full_precision
    def counts(
        self, hidden: Tensor, own: Tensor, replaced: Pairs, value: float, scratch: Scratch
    ) -> tuple[Tensor, Tensor]:
        """How many items score higher than one's own, and how many others the same, (N,) each.

        Args:
            hidden: (N, D).
            own: the column of the item that others are compared with, (N,).
            replaced: cells that have another score.
            value: that score.
            scratch: holds a tile of scores.
        """
        return counts.counts(hidden, self.matrix, own, replaced, value, scratch)

    def largest(self, hidden: Tensor) -> Tensor:
        """What no score of a query exceeds in size, (N,), by Cauchy-Schwarz."""
        bound: Tensor = hidden.norm(dim=1) * self.matrix.norm(dim=1).amax()
        return bound


class HistoryScorer(FixedScorer):
    r"""Scores items by how they relate to each item of a history; no vectors are behind it.

    .. math:: s(h, j) = b_j + \sum_l w_l A_{h_l j}

    where h_l is the item l back in the history h, counted from 0, and left out of the sum if it
    occurs again later. A hidden state is the history itself, see ``histories``; for one of zeros,
    nobody's, the score is b.

    Args:
        base: b, scores of a user without history, (V,).
        relation: A by its entries: ids i and j and the value A_ij, (M,) each, no pair twice.
        by_place: w, from the newest item on, (L,); a history's older items are not read.
    """

    column: Tensor
    value: Tensor
    bounds: Tensor
    by_place: Tensor

    def __init__(
        self, base: Tensor, relation: tuple[Tensor, Tensor, Tensor], by_place: Tensor
    ) -> None:
        n_items = len(base)
        if n_items > 1 << 24:
            raise ValueError(
                f"this model's states are item ids in float32, exact up to 2^24: {n_items} items "
                "are too many"
            )
        super().__init__(base[:, None])
        given, item, value = relation
        given, order = given.sort(stable=True)
        # Compressed rows: those of item i lie from bounds[i] to bounds[i + 1]; row 0 is empty.
        bounds = torch.searchsorted(given, torch.arange(n_items + 2))
        self.register_buffer("bounds", bounds)
        self.register_buffer("column", item[order] - 1)
        self.register_buffer("value", value[order])
        self.register_buffer("by_place", by_place)

    @property
    def width(self) -> int:
        return len(self.by_place)

    def nobody(self, n: int) -> Tensor:
        """The histories of n people of whom nothing is known: b ranks the items, (n, L)."""
        return self.weight.new_zeros(n, self.width)

    @property
    def matrix(self) -> Tensor:
        raise TypeError("these scores are no dot products: there is no matrix of item vectors")

    def vectors(self, items: Tensor) -> Tensor:
        raise TypeError("these scores are no dot products: there are no item vectors")

    @property
    def stretches(self) -> list[slice]:
        return [slice(0, self.n_items)]  # a part of a row costs as much as the row

    @property
    def tile_rows(self) -> int:
        return chunk_rows(self.n_items)

    @full_precision
    def tile(self, hidden: Tensor, columns: slice, out: Tensor) -> Tensor:
        assert columns == slice(0, self.n_items)
        return self.every(hidden, out)

    @full_precision
    def counts(
        self, hidden: Tensor, own: Tensor, replaced: Pairs, value: float, scratch: Scratch
    ) -> tuple[Tensor, Tensor]:
        parts, found = list(chunks(len(hidden), self.tile_rows)), [own.new_empty(2, 0)]
        for part, pairs in zip(parts, replaced.by_rows(parts), strict=True):
            states = hidden[part]
            scores = self.every(states, scratch.take(len(states), self.n_items, states))
            scores[pairs.row, pairs.column] = value
            mine = scores.gather(1, own[part, None])
            found.append(torch.stack(counts.compared(scores, mine)))
        greater, equal = torch.cat(found, 1)
        return greater, equal - 1

    def histories(self, batch: Batch, token: Tensor) -> Tensor:
        """The states of some tokens: the items up to them, newest first, (n, L).

        0 stands behind the oldest, and in the place of an item that occurs again later.

        Args:
            batch: the sequences.
            token: indices into its tokens, (n,).
        """
        back = torch.arange(self.width, device=token.device)
        start = batch.offsets[batch.sequence[token]]
        at = token[:, None] - back
        items = batch.items[at.clamp(min=0)].masked_fill(at < start[:, None], 0)
        # In a stable order by item the newest of equal ones comes first.
        value, order = items.sort(dim=1, stable=True)
        again = torch.zeros_like(value, dtype=torch.bool)
        again[:, 1:] = value[:, 1:] == value[:, :-1]
        repeated = torch.zeros_like(again).scatter_(1, order, again)
        return self.query(items.masked_fill(repeated, 0))

    @full_precision
    def target(self, hidden: Tensor, target: Tensor) -> Tensor:
        scores: Tensor = self(hidden, target[:, None])
        return scores[:, 0]

    @full_precision
    def every(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        scores = hidden.new_empty(len(hidden), self.n_items) if out is None else out
        scores.copy_(self.weight.T)
        items = hidden.long().flatten()  # (n L,)
        start, end = self.bounds[items], self.bounds[items + 1]
        related, values = slices(self.column, start, end), slices(self.value, start, end).values
        row, place = related.row // self.width, related.row % self.width
        cell = row * self.n_items + related.values
        scores.view(-1).index_add_(0, cell, values * self.by_place[place])
        return scores

    @full_precision
    def forward(self, hidden: Tensor, items: Tensor, row: Tensor | None = None) -> Tensor:
        items = items.expand(len(hidden), -1) if row is None else items[row]
        # By way of the catalogue, so that an item's score is the same to the bit wherever it is
        # asked for.
        parts = [
            self.every(hidden[chunk]).gather(1, items[chunk] - 1)
            for chunk in chunks(len(hidden), chunk_rows(self.n_items))
        ]
        return torch.cat(parts) if parts else self.weight.new_empty(items.shape)

    def largest(self, hidden: Tensor) -> Tensor:
        """What no score of a query exceeds in size, (N,)."""
        value = torch.cat([self.value, self.value.new_zeros(1)]).abs().amax()
        bound: Tensor = self.weight.abs().amax() + value * self.by_place.abs().sum()
        return bound.expand(len(hidden))
