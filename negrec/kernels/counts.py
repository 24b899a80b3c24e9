"""How many items of a catalogue score higher than a given one: ranks without sorting."""

from __future__ import annotations

import torch
from torch import Tensor

from negrec.kernels import native
from negrec.kernels.tiles import Pairs, Scratch, chunks, stretches, tile_rows


def counts(
    hidden: Tensor,
    matrix: Tensor,
    own: Tensor,
    replaced: Pairs,
    value: float,
    scratch: Scratch,
) -> tuple[Tensor, Tensor]:
    """How many items score higher than one's own, and how many others the same, (n,) each.

    In compiled code a score is the same number wherever its item stands, and equal item vectors
    tie exactly; in PyTorch they do as far as its matrix product rounds alike.

    Args:
        hidden: (n, D).
        matrix: item vectors, (V, D); all scores are finite.
        own: the column that each row's items are compared with, (n,).
        replaced: cells that have another score than the product.
        value: that score.
        scratch: holds a tile of scores.
    """
    n, n_items = len(hidden), len(matrix)
    if native.serves(hidden, matrix):
        row, column = replaced.row.contiguous(), replaced.column.contiguous()
        mine, own = hidden.new_empty(n), own.contiguous()
        native.call("own_scores", hidden, n, matrix, matrix.shape[1], own, mine)
        mine[row[column == own[row]]] = value
        greater, equal = torch.empty(2, n, dtype=torch.int64)
        native.call(
            *("counts", hidden, n, matrix, n_items, matrix.shape[1], mine),
            *(row, column, len(row), value, greater, equal),
        )
        return greater, equal - 1
    place = None
    if len(stretches(n_items)) > 1:  # rows of a tile whose own items lie in few stretches
        order = own.argsort(stable=True)
        place = order.argsort()
        hidden, own = hidden[order], own[order]
        replaced = Pairs.of(place[replaced.row], replaced.column)
    parts = list(chunks(n, tile_rows(n_items)))
    found = [
        _counts(hidden[part], matrix, own[part], pairs, value, scratch)
        for part, pairs in zip(parts, replaced.by_rows(parts), strict=True)
    ]
    none = own[:0]
    greater = torch.cat([none, *(above for above, _ in found)])
    equal = torch.cat([none, *(same for _, same in found)]) - 1
    return (greater, equal) if place is None else (greater[place], equal[place])


def _counts(
    hidden: Tensor,
    matrix: Tensor,
    own: Tensor,
    replaced: Pairs,
    value: float,
    scratch: Scratch,
) -> tuple[Tensor, Tensor]:
    """Of the rows of a tile: items that score higher than one's own, and the same as it."""
    columns = stretches(len(matrix))

    def tile(stretch: slice) -> Tensor:
        items, inside = matrix[stretch], replaced.within(stretch)
        scores = scratch.take(len(hidden), len(items), matrix)
        torch.mm(hidden, items.T, out=scores)
        scores[inside.row, inside.column] = value
        return scores

    if len(columns) == 1:
        scores = tile(columns[0])
        return compared(scores, scores.gather(1, own[:, None]))
    mine = matrix.new_empty(len(hidden), 1)
    for stretch in columns:
        here = (own >= stretch.start) & (own < stretch.stop)
        if here.any():  # as part of the tile: one product alone may round in another way
            mine[here] = tile(stretch)[here].gather(1, (own[here] - stretch.start)[:, None])
    found = torch.stack([torch.stack(compared(tile(stretch), mine)) for stretch in columns])
    above, same = found.sum(0)
    return above, same


def compared(scores: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """How many scores of each row (n, V), which are used up, are above its own (n, 1), or equal."""
    # In place: comparisons that write booleans cost six times as much. Sums of -1, 0 and 1 are
    # exact in float32 up to 2^24 items.
    sign = scores.sub_(own).sign_()
    balance = sign.sum(1)  # higher minus lower
    different = sign.abs_().sum(1)  # higher plus lower
    return ((different + balance) / 2).long(), scores.shape[1] - different.long()
