"""GELU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from negrec.kernels import native


def gelu(x: Tensor) -> Tensor:
    r"""The exact GELU of Hendrycks & Gimpel, 2016 (arXiv:1606.08415), elementwise.

    .. math:: x \, \Phi(x)

    The compiled code works out the derivative beside the value, of the same exponential.
    """
    if not native.serves(x):
        return F.gelu(x)
    value: Tensor = _Native.apply(x)  # type: ignore[no-untyped-call]
    return value


class _Native(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        slope = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        native.call("gelu_forward", x, x.numel(), out, slope)
        ctx.save_for_backward(slope)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        out = torch.empty_like(slope)
        native.call("gelu_backward", slope, gradients[0].contiguous(), slope.numel(), out)
        return out
