"""Dropout, alone or on its way into a sum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from negrec.kernels import native


def threshold(p: float) -> int:
    """Which bytes drop a value: those below, so that p is rounded to a multiple of 1/256."""
    return min(round(256 * p), 255)


def n_words(n: int) -> int:
    """How many words hold n bytes."""
    return -(-n // 8)


def draw(n: int, device: torch.device) -> Tensor:
    """Random words whose first n bytes decide on n values."""
    words = torch.empty(n_words(n), dtype=torch.int64, device=device)
    return words.random_(-(2**63), None)  # the full range: all eight bytes are uniform


def drop(x: Tensor, p: float, onto: Tensor | None = None) -> Tensor:
    """Zeroes each value with probability p and scales the rest by 1 / (1 - p).

    One random byte decides on a value: `bernoulli_` costs several times as much and would be a
    fifth of a training step on a CPU. So p is rounded, see ``threshold``, and the scale uses the
    rounded p, which keeps the expectation exact.

    Args:
        x: any shape.
        p: probability, in [0, 1).
        onto: what the result is added to, of the shape of x; nothing by default.
    """
    least = threshold(p)
    if least == 0:
        return x if onto is None else onto + x
    if torch.compiler.is_compiling():  # an operation that it can fuse with its neighbours
        fused = F.dropout(x, least / 256)
        return fused if onto is None else onto + fused
    if native.serves(x) and (onto is None or (onto.shape == x.shape and native.serves(onto))):
        dropped: Tensor = _Native.apply(x, onto, least)  # type: ignore[no-untyped-call]
        return dropped
    dropped = _Plain.apply(x, least)  # type: ignore[no-untyped-call]
    return dropped if onto is None else onto + dropped


class _Plain(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, least: int) -> Tensor:
        words = draw(x.numel(), x.device)
        keep = (words.view(torch.uint8)[: x.numel()] >= least).view(x.shape)
        ctx.save_for_backward(keep)
        ctx.scale = 256 / (256 - least)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return (gradients[0] * keep).mul_(ctx.scale), None


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, onto: Tensor | None, least: int) -> Tensor:
        ctx.words, ctx.least = draw(x.numel(), x.device), least
        out = torch.empty_like(x)
        native.call("dropout_apply", x, onto, ctx.words, x.numel(), least, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        gradient = gradients[0].contiguous()
        of_x = torch.empty_like(gradient)
        native.call("dropout_apply", gradient, None, ctx.words, of_x.numel(), ctx.least, of_x)
        return of_x, gradient if ctx.needs_input_grad[1] else None, None
