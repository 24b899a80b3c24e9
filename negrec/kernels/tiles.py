"""How scores of N states against V items are cut: what is held at once does not grow with V."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

# Cells of a tile of (rows, columns) scores. Fresh large tensors cost more in page faults than the
# arithmetic: tiles of this size (6 MB) stay in the cache and reuse one buffer.
_CELLS = 128 * 12_288
# A matrix product of fewer than 64 rows is slow: catalogues above this are cut into stretches, of
# which a tile has 128 rows.
_WIDEST = 24_576
_STRETCH = 12_288
BLOCK = 64  # columns of a block of the two-level inverse CDF

_LOWEST_EXPONENT = -80.0


def chunk_rows(width: int) -> int:
    """How many rows of so many cells make a tile; a matrix product wants at least 16."""
    return max(16, _CELLS // width)


def stretches(n_items: int) -> list[slice]:
    """The columns of the tiles of a catalogue, left to right; a whole one while it is small."""
    return list(chunks(n_items, n_items if n_items <= _WIDEST else _STRETCH))


def tile_rows(n_items: int) -> int:
    """How many rows a tile of ``stretches`` has."""
    return chunk_rows(n_items if n_items <= _WIDEST else _STRETCH)


def chunks(n: int, size: int) -> Iterator[slice]:
    """Consecutive slices of at most ``size`` that cover 0..n - 1."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


class Scratch:
    """A buffer that is kept between calls; it is no state and is not checkpointed."""

    def __init__(self) -> None:
        self._buffer = torch.empty(0)

    def take(self, rows: int, columns: int, like: Tensor) -> Tensor:
        """An uninitialised (rows, columns) tensor, valid until the next call."""
        size = rows * columns
        buffer = self._buffer
        if buffer.numel() < size or buffer.device != like.device or buffer.dtype != like.dtype:
            self._buffer = buffer = like.new_empty(size)
        return buffer[:size].view(rows, columns)

    def __deepcopy__(self, memo: object) -> Scratch:
        return Scratch()


@dataclass(frozen=True)
class Pairs:
    """Some cells of (N, V), in the order of the rows.

    Attributes:
        row: ascending, (P,).
        column: (P,).
    """

    row: Tensor
    column: Tensor

    @classmethod
    def of(cls, row: Tensor, column: Tensor) -> Pairs:
        """Cells in any order."""
        order = row.argsort(stable=True)
        return cls(row[order], column[order])

    def to(self, device: torch.device) -> Pairs:
        """The same cells on another device."""
        return Pairs(self.row.to(device), self.column.to(device))

    def by_rows(self, parts: list[slice]) -> list[Pairs]:
        """The cells of consecutive rows, which are counted from the first of each part."""
        starts = torch.tensor([part.start for part in parts], device=self.row.device)
        bounds = [*torch.searchsorted(self.row, starts).tolist(), len(self.row)]
        return [
            Pairs(self.row[a:b] - part.start, self.column[a:b])
            for part, a, b in zip(parts, bounds, bounds[1:], strict=False)
        ]

    def within(self, columns: slice) -> Pairs:
        """The cells of a stretch of columns, which are counted from its first."""
        inside = (self.column >= columns.start) & (self.column < columns.stop)
        return Pairs(self.row[inside], self.column[inside] - columns.start)

    def at(self, rows: Tensor, n: int) -> Pairs:
        """The cells of some of n rows, ascending, which are counted by their place in ``rows``."""
        place = self.row.new_full((n,), -1)
        place[rows] = torch.arange(len(rows), device=rows.device)
        chosen = place[self.row] >= 0
        return Pairs(place[self.row[chosen]], self.column[chosen])


def exponentials(
    hidden: Tensor, matrix: Tensor, ruled_out: Pairs | Tensor, scratch: Scratch
) -> tuple[Tensor, Tensor]:
    """exp(hidden . item - top), and each row's top: the highest score that is not ruled out.

    Args:
        hidden: (n, D), already scaled by whatever sharpens the distribution.
        matrix: item vectors, (V, D).
        ruled_out: cells of weight 0, or a mask of them (n, V).
        scratch: holds the first result.

    Returns:
        (n, V filled up to 64s with zeros), and (n,); the top is -inf where all is ruled out.
    """
    n, width = len(hidden), len(matrix)
    filled = -(-width // BLOCK) * BLOCK
    weight = scratch.take(n, filled, hidden)
    weight[:, width:] = 0
    scores = weight[:, :width]
    torch.mm(hidden, matrix.T, out=scores)
    cells = ruled_out if isinstance(ruled_out, Tensor) else (ruled_out.row, ruled_out.column)
    # Before the highest score is sought: one that is ruled out must not push the others down.
    scores[cells] = -torch.inf
    top = scores.amax(1)
    scores -= top.masked_fill(top == -torch.inf, 0)[:, None]
    # Denormal results make exp ten times slower, and a weight of e^-80 is never drawn.
    scores.clamp_(min=_LOWEST_EXPONENT)
    scores.exp_()
    scores[cells] = 0
    return weight, top
