"""Sums of softplus over a query's candidates: what binary losses on scores are made of."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from negrec.kernels import native


def softplus_sum(score: Tensor, valid: Tensor, label: Tensor | None = None) -> Tensor:
    r"""The binary cross-entropy of candidates, summed up for each query, (N,).

    .. math:: \sum_{j \text{ valid}} \mathrm{softplus}(s_j) - y_j s_j

    softplus(s) = -log(1 - sigma(s)) is that of a negative, and softplus(s) - s = -log sigma(s)
    that of a positive. Without a valid candidate the sum is 0. Compiled, there are no second
    derivatives.

    Args:
        score: s, (N, K).
        valid: candidates that count, (N, K) bool.
        label: y, 1 where a candidate counts as a positive, (N, K); None: nowhere.
    """
    if native.serves(score):
        label = None if label is None else label.to(score.dtype).contiguous()
        total: Tensor = _Sum.apply(score, valid.contiguous(), label)  # type: ignore[no-untyped-call]
        return total
    term = F.softplus(score)
    if label is not None:
        term = term - label * score
    return term.masked_fill(~valid, 0).sum(1)


class _Sum(torch.autograd.Function):
    """One pass over the scores forward, and one backward: a torch operation each would be ten."""

    @staticmethod
    def forward(ctx: Any, score: Tensor, valid: Tensor, label: Tensor | None) -> Tensor:
        ctx.save_for_backward(score, valid, label)
        total = score.new_empty(len(score))
        native.call("softplus_sum", score, valid, label, *score.shape, total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        score, valid, label = ctx.saved_tensors
        gradient, out = gradients[0].contiguous(), torch.empty_like(score)
        native.call("softplus_slope", gradient, score, valid, label, *score.shape, out)
        return out, None, None
