"""A pre-norm transformer block in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from negrec.kernels import native
from negrec.kernels.attention import packed_words, places
from negrec.kernels.dropout import draw, n_words, threshold
from negrec.packing import Rows


def serves(x: Tensor, rows: Rows, weights: Sequence[Tensor]) -> bool:
    """Whether ``block`` can take these; otherwise the block's layers do, one after the other."""
    return (
        rows.offsets is not None
        and native.serves(x, *weights)
        and x.shape[1] % 16 == len(weights[8]) % 16 == 0  # whole vectors on every machine
        and not torch.is_autocast_enabled("cpu")
    )


def block(
    x: Tensor, rows: Rows, heads: int, p: float, epsilon: float, weights: Sequence[Tensor]
) -> Tensor:
    r"""Attention and feed-forward net of a pre-norm block with GELU, compiled.

    .. math:: y = x + \mathrm{drop}(A(\mathrm{norm}(x))), \quad
       z = y + \mathrm{drop}(f(\mathrm{norm}(y)))

    The same numbers and the same drops as the layers, without their passes over memory: some
    sequences at a time go through the whole block in the cache.

    Args:
        x: tokens, (T, D), D a multiple of 16.
        rows: how the tokens are packed, and who may look at whom.
        heads: H, divides D.
        p: probability of dropping, in [0, 1), on the weights of the attention and on both sums; 0
            outside of training.
        epsilon: of both norms.
        weights: weight and bias each of: the first norm, the linear layer to queries, keys and
            values, the one from the attention, the second norm, and the two of f, the inner width a
            multiple of 16.

    Returns:
        (T, D).
    """
    keep = torch.is_grad_enabled()
    out: Tensor = _Block.apply(x, rows, heads, threshold(p), epsilon, keep, *weights)  # type: ignore[no-untyped-call]
    return out


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        rows: Rows,
        heads: int,
        least: int,
        epsilon: float,
        keep: bool,
        *weights: Tensor,
    ) -> Tensor:
        n, dim = x.shape
        width = len(weights[8])
        bytes_: tuple[Tensor | None, ...] = (None, None, None)
        if least:
            # As the layers draw them: of the attention's weights, and of the two sums.
            sizes = [packed_words(rows, heads), n_words(n * dim), n_words(n * dim)]
            bytes_ = torch.split(draw(8 * sum(sizes), x.device), sizes)
        ctx.given = (dim, width, epsilon, *places(rows, heads), *bytes_, least)
        table = torch.tensor([weight.data_ptr() for weight in weights])
        made: list[Tensor | None] = [x.new_empty(n, size) for size in (3 * dim, dim, dim)]
        made += [x.new_empty(n, width) if keep else None for _ in range(2)]
        out = torch.empty_like(x)
        native.call("prenorm_forward", x, table, *ctx.given, *made, out)
        if keep:
            ctx.save_for_backward(x, *made, *weights)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        made, weights = rest[:5], rest[5:]
        table = torch.tensor([weight.data_ptr() for weight in weights])
        sizes = [weight.numel() for weight in weights]
        of_weights = x.new_empty(torch.get_num_threads(), sum(sizes))
        of_x = torch.empty_like(x)
        given = (x, table, *ctx.given, *made, gradients[0].contiguous(), of_x, of_weights)
        native.call("prenorm_backward", *given)
        parts = of_weights[0].split(sizes)
        own = [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]
        return of_x, None, None, None, None, None, *own
