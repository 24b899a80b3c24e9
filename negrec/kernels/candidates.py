"""Scores of queries against candidates of their own, and their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from negrec.kernels import native
from negrec.kernels.tiles import chunks

_LANES = 16  # the C++ reads rows of a multiple of so many numbers
# A number of a gathered vector is written and read some six times, forward and backward; one of a
# product with all vectors costs a fortieth of that (measured, float32, one core).
_GATHERED = 40
_CELLS = 1 << 20  # numbers of a chunk's intermediate results: 4 MB stay in the cache
_CELLS_OF_ACCELERATOR = 1 << 25  # large, since each launch costs


def scores(hidden: Tensor, vectors: Tensor, index: Tensor, row: Tensor | None = None) -> Tensor:
    r"""Dot products of queries with candidates, (N, K); nothing of size (N, K, D) is ever held.

    .. math:: s_{nj} = h_n \cdot v_{c(n, j)}, \quad c(n, j) = \mathrm{index}_{\mathrm{row}_n, j}

    The gradient of a vector is a sum over the queries in their order: on a CPU it is the same to
    the bit for any number of threads. Second derivatives do not exist.

    Args:
        hidden: h, (N, D).
        vectors: v, the distinct rows that are asked for, (U, D).
        index: rows of ``vectors``, from 0, (R, K).
        row: the row of ``index`` each query reads, (N,); None: R is N, and each reads its own.

    Raises:
        IndexError: an index that is no row of ``vectors``.
    """
    hidden = hidden.contiguous()
    if not native.serves(hidden, vectors):
        found: Tensor = _Torch.apply(hidden, vectors, index, row)  # type: ignore[no-untyped-call]
        return found
    return _compiled(hidden, vectors, index, row, None)[0]


def with_target(
    hidden: Tensor, vectors: Tensor, target: Tensor, index: Tensor, row: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scores of each query's target, (N,), and of its candidates, (N, K), in one go.

    A candidate that is the target ties with it where the code is compiled, to the bit.

    Args:
        hidden: see ``scores``.
        vectors: see ``scores``.
        target: a row of ``vectors`` for each query, (N,).
        index: see ``scores``.
        row: see ``scores``.
    """
    hidden = hidden.contiguous()
    if not native.serves(hidden, vectors):
        own = scores(hidden, vectors, target[:, None])[:, 0]
        return own, scores(hidden, vectors, index, row)
    negative, positive = _compiled(hidden, vectors, index, row, target)
    assert positive is not None
    return positive, negative


def _compiled(
    hidden: Tensor, vectors: Tensor, index: Tensor, row: Tensor | None, target: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    if missing := -hidden.shape[1] % _LANES:
        hidden, vectors = F.pad(hidden, (0, missing)), F.pad(vectors, (0, missing))
    # The C++ reads int64, side by side.
    whole = (None if x is None else x.long().contiguous() for x in (index, row, target))
    operands = (hidden, vectors, *whole)
    found: tuple[Tensor, Tensor | None] = _Compiled.apply(*operands)  # type: ignore[no-untyped-call]
    return found


class _Compiled(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        vectors: Tensor,
        index: Tensor,
        row: Tensor | None,
        target: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(hidden, vectors, index, row, target)
        (n, dim), k = hidden.shape, index.shape[1]
        negative, outside = hidden.new_empty(n, k), index.new_empty(1)
        positive = None if target is None else hidden.new_empty(n)
        operands = (hidden, vectors, index, row, target, n, k, dim, len(vectors))
        native.call("candidates_scores", *operands, negative, positive, outside)
        if outside.item():
            raise IndexError(f"{outside.item()} candidates are none of the {len(vectors)} vectors")
        return negative, positive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, vectors, index, row, target = ctx.saved_tensors
        slopes = (gradients[0].contiguous(), None if target is None else gradients[1].contiguous())
        places = (index, row, target, len(hidden), index.shape[1], hidden.shape[1])
        of_hidden = of_vectors = None
        if ctx.needs_input_grad[0]:
            of_hidden = torch.empty_like(hidden)
            native.call("candidates_of_hidden", *slopes, vectors, *places, of_hidden)
        if ctx.needs_input_grad[1]:
            of_vectors = torch.zeros_like(vectors)
            operands = (*slopes, hidden, *places, len(vectors))
            native.call("candidates_of_vectors", *operands, of_vectors)
        return of_hidden, of_vectors, None, None, None


class _Torch(torch.autograd.Function):
    """By chunks of queries: products with all vectors where these are few, else gathered ones."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, vectors: Tensor, index: Tensor, row: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(hidden, vectors, index, row)
        out = hidden.new_empty(len(hidden), index.shape[1])
        few = _few(vectors, index)
        for part in _parts(hidden, vectors, index, few):
            at = index[part] if row is None else index[row[part]]
            if few:
                out[part] = (hidden[part] @ vectors.T).gather(1, at)
            else:
                out[part] = torch.bmm(vectors[at], hidden[part, :, None])[:, :, 0]
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, vectors, index, row = ctx.saved_tensors
        of_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        of_vectors = torch.zeros_like(vectors) if ctx.needs_input_grad[1] else None
        few = _few(vectors, index)
        for part in _parts(hidden, vectors, index, few):
            at = index[part] if row is None else index[row[part]]
            slope = gradient[part]
            if few:
                weight = hidden.new_zeros(len(at), len(vectors)).scatter_add_(1, at, slope)
                if of_hidden is not None:
                    torch.mm(weight, vectors, out=of_hidden[part])
                if of_vectors is not None:
                    of_vectors.addmm_(weight.T, hidden[part])
                continue
            if of_hidden is not None:
                of_hidden[part] = torch.bmm(slope[:, None], vectors[at])[:, 0]
            if of_vectors is not None:
                each = slope[:, :, None] * hidden[part, None]  # (n, K, D)
                of_vectors.index_add_(0, at.flatten(), each.flatten(0, 1))
        return of_hidden, of_vectors, None, None


def _few(vectors: Tensor, index: Tensor) -> bool:
    return len(vectors) <= _GATHERED * index.shape[1]


def _parts(hidden: Tensor, vectors: Tensor, index: Tensor, few: bool) -> Iterator[slice]:
    """Chunks of queries whose intermediate results are small."""
    cells = _CELLS if hidden.device.type == "cpu" else _CELLS_OF_ACCELERATOR
    width = len(vectors) if few else index.shape[1] * hidden.shape[1]
    return chunks(len(hidden), max(1, cells // max(1, width)))
