"""Draws from the softmax over a catalogue."""

from __future__ import annotations

import torch
from torch import Tensor

from negrec.kernels import gpu, native
from negrec.kernels.tiles import (
    BLOCK,
    Pairs,
    Scratch,
    chunks,
    exponentials,
    stretches,
    tile_rows,
)
from negrec.wide import uniform


def draw(
    hidden: Tensor,
    matrix: Tensor,
    ruled_out: Pairs | Tensor,
    k: int,
    generator: torch.Generator | None,
    scratch: Scratch,
) -> Tensor:
    r"""Draws k items of each state with replacement, exactly, (n, k) columns.

    .. math:: Q(i \mid h) \propto \exp(h \cdot e_i), \quad (h, i) \text{ not ruled out}

    Inverse CDF in levels: a uniform number picks a stretch of the catalogue, what is left of it a
    block of columns there, and what is left of that the column. Only sums of blocks are added up
    over a whole row, in float64; no (n, V) tensor is held where V is large. Compiled code (C++, or
    Triton on CUDA) makes the same draws of the same generator, but where rounding moves the border
    of an item past the uniform number.

    Args:
        hidden: (n, D), already scaled by whatever sharpens the distribution.
        matrix: item vectors, (V, D).
        ruled_out: cells of weight 0, or a mask of them (n, V).
        k: draws per row.
        generator: source of randomness, of the device of ``hidden``.
        scratch: holds a tile of scores.

    Returns:
        Columns 0..V - 1; -1 where all items of a row are ruled out.
    """
    device = hidden.device
    u = uniform((len(hidden), k), device, generator)
    host = u.device  # of the tensors, but where they cannot be float64
    drawn = _draws(hidden.to(host), matrix.to(host), ruled_out.to(host), u, scratch)
    return drawn.to(device)


def _draws(
    hidden: Tensor, matrix: Tensor, ruled_out: Pairs | Tensor, u: Tensor, scratch: Scratch
) -> Tensor:
    """The draws of all rows, by whatever is fastest."""
    n, k = u.shape
    if isinstance(ruled_out, Pairs) and native.serves(hidden, matrix):
        out = torch.empty(n, k, dtype=torch.int64)
        row, column = ruled_out.row.contiguous(), ruled_out.column.contiguous()
        native.call(
            *("softmax_draw", hidden, n, matrix, len(matrix), matrix.shape[1]),
            *(row, column, len(row), u, k, out),
        )
        return out
    if isinstance(ruled_out, Pairs) and gpu.serves(hidden, matrix, half=False):
        from negrec.kernels import draw_triton

        if draw_triton.works(u.device, matrix.shape[1]):
            return draw_triton.draw(hidden, matrix, ruled_out.row, ruled_out.column, u)
    parts = list(chunks(n, tile_rows(len(matrix))))
    if isinstance(ruled_out, Tensor):
        left_out: list[Pairs | Tensor] = [ruled_out[part] for part in parts]
    else:
        left_out = [*ruled_out.by_rows(parts)]
    drawn = [
        _draw(hidden[part], matrix, own, u[part], scratch)
        for part, own in zip(parts, left_out, strict=True)
    ]
    return torch.cat(drawn) if drawn else u.long()


def _draw(
    hidden: Tensor, matrix: Tensor, ruled_out: Pairs | Tensor, u: Tensor, scratch: Scratch
) -> Tensor:
    """The draws of the rows of a tile."""
    columns = stretches(len(matrix))
    if len(columns) == 1:
        return pick(exponentials(hidden, matrix, ruled_out, scratch)[0], u)
    tops, sums = [], []
    for stretch in columns:
        weight, top = exponentials(hidden, matrix[stretch], _within(ruled_out, stretch), scratch)
        tops.append(top)
        sums.append(weight.view(len(hidden), -1, BLOCK).sum(2).double().sum(1))
    top, share = torch.stack(tops, 1), torch.stack(sums, 1)  # (n, stretches)
    highest = top.amax(1, keepdim=True)
    highest.masked_fill_(highest == -torch.inf, 0)
    share *= (top - highest).double().exp()
    stretch_of, rest = invert(share.cumsum(1), u)
    rest /= share.gather(1, stretch_of)
    drawn = torch.full_like(stretch_of, -1)
    for index, stretch in enumerate(columns):
        mine = (stretch_of == index) & (highest > -torch.inf)
        rows = mine.any(1).nonzero()[:, 0]
        if len(rows):
            own = _within(ruled_out, stretch)
            own = own[rows] if isinstance(own, Tensor) else own.at(rows, len(hidden))
            weight, _ = exponentials(hidden[rows], matrix[stretch], own, scratch)
            found = pick(weight, rest[rows]) + stretch.start
            drawn[rows] = torch.where(mine[rows], found, drawn[rows])
    return drawn.masked_fill_(share.sum(1, keepdim=True) == 0, -1)


def _within(ruled_out: Pairs | Tensor, columns: slice) -> Pairs | Tensor:
    if isinstance(ruled_out, Tensor):
        return ruled_out[:, columns]
    return ruled_out.within(columns)


def pick(weight: Tensor, u: Tensor) -> Tensor:
    """Columns of each row in proportion to its weights, one for each uniform number, (n, k).

    A column of weight 0 is never picked. A row of zeros gives -1.

    Args:
        weight: finite and not negative, (n, V), V a multiple of 64.
        u: in [0, 1), float64, (n, k), of the device of ``weight`` where that has float64.
    """
    n, device = len(weight), weight.device
    weight = weight.to(u.device)
    blocks = weight.view(n, -1, BLOCK)
    cdf = blocks.sum(2).double().cumsum(1)  # (n, V / 64)
    block, rest = invert(cdf, u)
    index = torch.arange(n, device=u.device)[:, None]
    inner = blocks[index, block].double().cumsum(2)  # (n, k, 64)
    # Rounding of the block's float32 sum may leave u beyond the block's own end.
    end = inner[..., -1]
    rest = torch.minimum(rest, torch.nextafter(end, torch.zeros_like(end)))
    column = torch.searchsorted(inner, rest[..., None].clamp_(min=0), right=True).squeeze(2)
    return (block * BLOCK + column).masked_fill_(cdf[:, -1:] == 0, -1).to(device)


def invert(cdf: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Which part of a row a uniform number falls into, and how far, two tensors (n, k).

    Args:
        cdf: cumulated sums of the parts, (n, parts).
        u: (n, k).
    """
    total = cdf[:, -1:]
    u = torch.minimum(u * total, torch.nextafter(total, torch.zeros_like(total)))
    part = torch.searchsorted(cdf, u, right=True)  # the first whose cumulated sum exceeds u
    part = part.clamp_(max=cdf.shape[1] - 1)  # a row of zeros has none
    return part, u - cdf.gather(1, (part - 1).clamp_(min=0)).masked_fill_(part == 0, 0)
