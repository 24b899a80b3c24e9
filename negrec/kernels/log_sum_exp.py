"""The normaliser of the softmax over a catalogue, and its gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from negrec.kernels import native
from negrec.kernels.tiles import Pairs, Scratch, chunks, exponentials, stretches, tile_rows


def log_sum_exp(hidden: Tensor, matrix: Tensor, ruled_out: Pairs, scratch: Scratch) -> Tensor:
    r"""Log of the sum of exp(score) over the items that are not ruled out, (n,).

    .. math:: \log \sum_i \exp(h \cdot e_i)

    -inf where all items are ruled out; NaN where a score is no number. Scores are computed tile by
    tile, and once more in the backward pass: no (n, V) tensor is ever held. Second derivatives do
    not exist.

    Args:
        hidden: (n, D).
        matrix: item vectors, (V, D).
        ruled_out: cells that are left out.
        scratch: holds a tile of scores.
    """
    result: Tensor = _LogSumExp.apply(  # type: ignore[no-untyped-call]
        hidden, matrix, ruled_out, scratch
    )
    return result


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, matrix: Tensor, ruled_out: Pairs, scratch: Scratch
    ) -> Tensor:
        hidden, matrix = hidden.contiguous(), matrix.contiguous()
        row, column = ruled_out.row.contiguous(), ruled_out.column.contiguous()
        out = hidden.new_empty(len(hidden))
        if native.serves(hidden, matrix):
            native.call(
                *("log_sum_exp", hidden, len(hidden), matrix, len(matrix), matrix.shape[1]),
                *(row, column, len(row), out),
            )
        else:
            parts = list(chunks(len(hidden), tile_rows(len(matrix))))
            for part, own in zip(parts, ruled_out.by_rows(parts), strict=True):
                out[part] = _forward(hidden[part], matrix, own, scratch)
        ctx.save_for_backward(hidden, matrix, row, column, out)
        ctx.scratch = scratch
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, matrix, row, column, total = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_hidden = torch.empty_like(hidden)
        if native.serves(hidden, matrix):
            of_matrix = torch.empty_like(matrix)
            native.call(
                *("log_sum_exp_backward", hidden, len(hidden), matrix, len(matrix)),
                *(matrix.shape[1], row, column, len(row), total, gradient, of_hidden, of_matrix),
            )
            return of_hidden, of_matrix, None, None
        of_matrix = torch.zeros_like(matrix)
        parts = list(chunks(len(hidden), tile_rows(len(matrix))))
        for part, own in zip(parts, Pairs(row, column).by_rows(parts), strict=True):
            for stretch in stretches(len(matrix)):
                items = matrix[stretch]
                weight, top = exponentials(hidden[part], items, own.within(stretch), ctx.scratch)
                # exp(s - total) = weight * exp(top - total), and 0 where nothing is left to sum.
                scale = torch.exp(top - total[part]).nan_to_num_(0, 0, 0) * gradient[part]
                weight = weight[:, : len(items)].mul_(scale[:, None])
                if stretch.start == 0:
                    torch.mm(weight, items, out=of_hidden[part])
                else:
                    of_hidden[part].addmm_(weight, items)
                of_matrix[stretch].addmm_(weight.T, hidden[part])
        return of_hidden, of_matrix, None, None


def _forward(hidden: Tensor, matrix: Tensor, ruled_out: Pairs, scratch: Scratch) -> Tensor:
    """Of the rows of a tile."""
    found = []
    for stretch in stretches(len(matrix)):
        weight, top = exponentials(hidden, matrix[stretch], ruled_out.within(stretch), scratch)
        found.append(weight.sum(1).log_() + top)
    return found[0] if len(found) == 1 else torch.stack(found).logsumexp(0)
