"""Layers that work on jagged tokens (T, D)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negrec.embedding import Table, look_up
from negrec.packing import Rows
from negrec.scoring import ItemScorer
from negrec.types import HIDDEN, DatasetInfo


class Dropout(nn.Module):
    """Zeroes each value with probability p and scales the rest by 1 / (1 - p).

    One random byte decides on a value: `bernoulli_` costs several times as much and would be a
    fifth of a training step on a CPU. So p is rounded to a multiple of 1/256, and the scale uses
    the rounded p, which keeps the expectation exact.

    Args:
        p: probability, in [0, 1).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must be in [0, 1), got {p}")
        self.p = p
        self._threshold = min(round(256 * p), 255)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self._threshold == 0:
            return x
        dropped: Tensor = _ByteDropout.apply(x, self._threshold)  # type: ignore[no-untyped-call]
        return dropped

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device)
        words.random_(-(2**63), None)  # the full range: all eight bytes are uniform
        keep = (words.view(torch.uint8)[: x.numel()] >= threshold).view(x.shape)
        ctx.save_for_backward(keep)
        ctx.scale = 256 / (256 - threshold)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (keep,) = ctx.saved_tensors
        return (grads[0] * keep).mul_(ctx.scale), None


class RowAttention(nn.Module):
    """Multi-head attention inside each sequence, over packed rows.

    Args:
        dim: D.
        heads: H, divides D.
        dropout: of the attention weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads must divide dim, got heads={heads} and dim={dim}")
        self.heads = heads
        self.dropout = Dropout(dropout)

    def forward(self, qkv: Tensor, rows: Rows) -> Tensor:
        """Attends.

        Args:
            qkv: queries, keys and values side by side, (T, 3 D).
            rows: how the tokens are packed.

        Returns:
            (T, D).
        """
        packed = qkv[rows.token]  # (P, 3 D)
        parts = [
            self._attend(packed[block.start : block.stop].view(*block.shape, -1), block.mask)
            for block in rows.blocks
        ]
        return torch.cat(parts)[rows.slot]

    def _attend(self, qkv: Tensor, mask: Tensor) -> Tensor:
        n_rows, width, _ = qkv.shape
        split = qkv.view(n_rows, width, 3, self.heads, -1)
        q, k, v = split.permute(2, 0, 3, 1, 4)  # (R, H, L, D / H)
        if self.training and self.dropout.p > 0 and not qkv.is_cuda:
            # scaled_dot_product_attention's own dropout is slow on a CPU, see Dropout.
            score = (q * q.shape[-1] ** -0.5) @ k.mT
            weight = score.masked_fill(~mask, -torch.inf).softmax(-1)
            out: Tensor = self.dropout(weight) @ v
        else:
            p = self.dropout.p if self.training else 0.0
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
        return out.transpose(1, 2).flatten(2).flatten(0, 1)  # (R L, D)


class ItemInput(nn.Module):
    """The input vectors of items: the scorer's own or a table apart, and one for hidden items.

    Args:
        n_items: V.
        dim: D.
        std: standard deviation of the normal initialisation.
        own: a table apart from the scorer's.
        hides: there is a vector for id 0 (``HIDDEN``).
    """

    def __init__(
        self, n_items: int, dim: int, std: float, own: bool = False, hides: bool = False
    ) -> None:
        super().__init__()
        self.own = ItemScorer(n_items, dim, std) if own else None
        self.hidden = nn.Parameter(torch.empty(dim).normal_(std=std)) if hides else None

    def forward(self, items: Tensor, scorer: ItemScorer) -> Tensor:
        """Looks items up, (T,) to (T, D)."""
        table = self.own or scorer
        if self.hidden is None:
            return table.embed(items)
        hidden = items == HIDDEN
        told = table.embed(items.masked_fill(hidden, 1))
        return torch.where(hidden[:, None], self.hidden, told)


class UserVectors(nn.Module):
    """A learnt vector for each user, and zeros for users that training never shows.

    Args:
        info: facts of the training split.
        dim: D.
        std: standard deviation of the normal initialisation.
    """

    known: Tensor

    def __init__(self, info: DatasetInfo, dim: int, std: float) -> None:
        super().__init__()
        self.table = nn.Embedding(info.n_users, dim)
        self.table.weight = Table(self.table.weight.detach())
        nn.init.normal_(self.table.weight, std=std)
        known = torch.ones(info.n_users, dtype=torch.bool)
        if info.trained_users is not None:
            known = info.trained_users
        self.register_buffer("known", torch.cat([known, known.new_zeros(1)]))

    def forward(self, user: Tensor) -> Tensor:
        """Looks users up, (B,) to (B, D); -1 is somebody unknown."""
        known = self.known[user]  # -1 reads the last: nobody
        vectors = look_up(self.table.weight, user.masked_fill(~known, 0))
        return vectors * known[:, None]
