"""Draws from the softmax over a catalogue for CUDA, in Triton: no (N, V) tensor is written.

Inverse CDF in two levels. A first kernel multiplies tiles of queries and items, and leaves of each
tile its queries' highest scores and sums of weights: 1/64 of what the scores would take. PyTorch
picks each draw's tile by those sums. A second kernel forms that tile's scores once more, for the
draw's query alone, and picks the item.
Imported where there is Triton only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from negrec.kernels.draw import invert
from negrec.kernels.gpu import trusted

_TILE = 128  # items of a tile
_ROWS = 64  # queries of a tile
_LANES = 32  # numbers of a vector that are multiplied at once, at the most
_SUMS = 1 << 24  # tiles whose sums are held at once (64 MiB each for tops, sums, twice for the CDF)


@triton.jit
def _outside(scores, row, column, pair_row, pair_column, begin, end):
    """Scores (rows, columns) with -inf in the cells that a stretch of pairs names."""
    for pair in range(begin, end):
        own = (row == tl.load(pair_row + pair))[:, None]
        cell = own & (column == tl.load(pair_column + pair))[None, :]
        scores = tl.where(cell, float("-inf"), scores)
    return scores


@triton.jit(do_not_specialize=["first", "n"])
def _sums(
    hidden, matrix, pair_row, pair_column, bounds, top, total, first, n, n_items, n_tiles,
    width: tl.constexpr, lanes: tl.constexpr, rows: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """Of a tile of queries and items: each query's highest score, and its sum of weights."""
    of_rows, of_items = tl.program_id(0) // n_tiles, tl.program_id(0) % n_tiles
    local = of_rows * rows + tl.arange(0, rows)
    row = first + local
    column = of_items * tile + tl.arange(0, tile)
    # In 64 bits: a table of 40 million items and D = 64 has more than 2^31 numbers.
    far_row, far_column = row.to(tl.int64), column.to(tl.int64)
    scores = tl.zeros((rows, tile), tl.float32)
    for begin in range(0, width, lanes):
        lane = begin + tl.arange(0, lanes)
        at = hidden + far_row[:, None] * width + lane[None, :]
        h = tl.load(at, mask=(row[:, None] < n) & (lane[None, :] < width), other=0.0)
        at = matrix + far_column[:, None] * width + lane[None, :]
        e = tl.load(at, mask=(column[:, None] < n_items) & (lane[None, :] < width), other=0.0)
        # Full precision, no TF32, as everywhere that items are scored.
        scores += tl.dot(h, tl.trans(e), input_precision="ieee")
    scores = tl.where((column < n_items)[None, :], scores, float("-inf"))
    cell = (first // rows + of_rows).to(tl.int64) * n_tiles + of_items
    begin, end = tl.load(bounds + cell), tl.load(bounds + cell + 1)
    scores = _outside(scores, row, column, pair_row, pair_column, begin, end)
    highest = tl.max(scores, 1)
    base = tl.where(highest == float("-inf"), 0.0, highest)
    at = local.to(tl.int64) * n_tiles + of_items
    tl.store(top + at, highest, mask=row < n)
    tl.store(total + at, tl.sum(tl.exp(scores - base[:, None]), 1), mask=row < n)


@triton.jit(do_not_specialize=["first"])
def _pick(
    hidden, matrix, pair_row, pair_column, bounds, chosen, share, drawn, first, k, n_items, n_tiles,
    width: tl.constexpr, lanes: tl.constexpr, rows: tl.constexpr, tile: tl.constexpr,
):  # fmt: skip
    """The item of a draw: the first of its tile whose cumulated weight exceeds a share of it."""
    draw = tl.program_id(0)
    row = first + draw // k
    of_items = tl.load(chosen + draw)
    column = of_items * tile + tl.arange(0, tile)
    far_column = column.to(tl.int64)
    scores = tl.zeros((tile,), tl.float32)
    for begin in range(0, width, lanes):
        lane = begin + tl.arange(0, lanes)
        h = tl.load(hidden + row.to(tl.int64) * width + lane, mask=lane < width, other=0.0)
        at = matrix + far_column[:, None] * width + lane[None, :]
        e = tl.load(at, mask=(column[:, None] < n_items) & (lane[None, :] < width), other=0.0)
        scores += tl.sum(e * h[None, :], 1)
    scores = tl.where(column < n_items, scores, float("-inf"))
    cell = (row // rows).to(tl.int64) * n_tiles + of_items
    for pair in range(tl.load(bounds + cell), tl.load(bounds + cell + 1)):
        own = tl.load(pair_row + pair) == row
        scores = tl.where(own & (column == tl.load(pair_column + pair)), float("-inf"), scores)
    highest = tl.max(scores, 0)
    weight = tl.exp(scores - tl.where(highest == float("-inf"), 0.0, highest))
    cumulated = tl.cumsum(weight, 0)
    reached = tl.load(share + draw) * tl.max(cumulated, 0)
    # Of the items that can be drawn: the first beyond, or the last where rounding leaves none; -1
    # where there is none at all.
    possible = weight > 0
    beyond = tl.min(tl.where(possible & (cumulated > reached), column, n_items), 0)
    last = tl.max(tl.where(possible, column, -1), 0)
    tl.store(drawn + draw, tl.where(beyond < n_items, beyond, last).to(tl.int64))


@dataclass(frozen=True)
class _Pairs:
    """Cells that are not drawn from, those of a tile side by side.

    Attributes:
        row: query of each pair, (P,).
        column: (P,).
        bounds: the pairs of tile c are bounds[c]..bounds[c + 1] - 1, (tiles + 1,); tiles are
            counted row by row.
    """

    row: Tensor
    column: Tensor
    bounds: Tensor

    @classmethod
    def of(cls, row: Tensor, column: Tensor, n: int, n_tiles: int) -> _Pairs:
        tile = row // _ROWS * n_tiles + column // _TILE
        tile, order = tile.sort()
        every = torch.arange(triton.cdiv(n, _ROWS) * n_tiles + 1, device=row.device)
        return cls(row[order], column[order], torch.searchsorted(tile, every))


def launch(width: int) -> dict[str, int]:
    """The compile-time sizes of the kernels, for vectors of ``width`` numbers."""
    lanes = min(_LANES, max(16, triton.next_power_of_2(width)))  # tl.dot takes 16 at the least
    return {"width": width, "lanes": lanes, "rows": _ROWS, "tile": _TILE}


def draw(
    hidden: Tensor,
    matrix: Tensor,
    row: Tensor,
    column: Tensor,
    u: Tensor,
    sums: int = _SUMS,
) -> Tensor:
    """What ``negrec.kernels.draw.draw`` draws, given its numbers.

    Args:
        hidden: (N, D), float32.
        matrix: (V, D), float32.
        row: of the cells that are ruled out, in any order, (P,).
        column: of these; -1 rules nothing out.
        u: numbers in [0, 1), float64, (N, k).
        sums: tiles whose sums are held at once.

    Returns:
        Columns, int64, (N, k); -1 where all items of a row are ruled out.
    """
    hidden, matrix = hidden.contiguous(), matrix.contiguous()
    n_tiles, sizes = triton.cdiv(len(matrix), _TILE), launch(matrix.shape[1])
    pairs = _Pairs.of(row, column, len(hidden), n_tiles)
    given = (hidden, matrix, pairs.row, pairs.column, pairs.bounds)
    drawn = torch.empty(u.shape, dtype=torch.int64, device=u.device)
    # Whole tiles of queries, of which each has its own stretch of the pairs.
    at_once = max(1, sums // (n_tiles * _ROWS)) * _ROWS
    for first in range(0, len(hidden), at_once):
        own = u[first : first + at_once]
        n, k = own.shape
        top, total = hidden.new_empty(n, n_tiles), hidden.new_empty(n, n_tiles)
        _sums[(triton.cdiv(n, _ROWS) * n_tiles,)](
            *given, top, total, first, len(hidden), len(matrix), n_tiles,
            num_warps=8, num_stages=1, **sizes,
        )  # fmt: skip
        highest = top.amax(1, keepdim=True)
        weight = total * torch.exp(top - highest.masked_fill(highest == -torch.inf, 0))
        tile, rest = invert(weight.double().cumsum(1), own)
        share = (rest / weight.gather(1, tile)).float()
        part = drawn[first : first + at_once]  # which the kernel writes to
        _pick[(n * k,)](
            *given, tile, share, part, first, k, len(matrix), n_tiles,
            num_warps=4, num_stages=1, **sizes,
        )  # fmt: skip
    return drawn


@cache
def works(device: torch.device, width: int) -> bool:
    """Whether the kernels draw on this device what PyTorch draws; if not, it is said, once.

    Args:
        device: of the tensors.
        width: D.
    """
    return trusted("draw", lambda: _error(device, width), torch.float32)


def _error(device: torch.device, width: int) -> float:
    """How many draws differ from PyTorch's in float64, less the one that rounding may move."""
    n, n_items, k = 3, 2 * _TILE + 1, 8
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, width, generator=generator) * width**-0.25
    matrix = torch.randn(n_items, width, generator=generator) * width**-0.25
    u = torch.rand(n, k, dtype=torch.double, generator=generator)
    row = torch.tensor([0, 1, 1, 2])
    column = torch.tensor([0, 7, n_items - 1, -1])
    h, m, r, c, numbers = (x.to(device) for x in (hidden, matrix, row, column, u))
    drawn = draw(h, m, r, c, numbers).cpu()
    weight = (hidden.double() @ matrix.double().T).exp()
    weight[row[:-1], column[:-1]] = 0
    cdf = weight.cumsum(1)
    expected = torch.searchsorted(cdf, u * cdf[:, -1:], right=True)
    return float(int((drawn != expected).sum()) - 1)
