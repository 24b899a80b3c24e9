"""Layers that work on jagged tokens (T, D)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from negrec.embedding import Table, look_up
from negrec.kernels.attention import attend
from negrec.kernels.dropout import drop
from negrec.packing import Rows
from negrec.scoring import ItemScorer
from negrec.types import HIDDEN, DatasetInfo


class Dropout(nn.Module):
    """Drops values in training, see ``negrec.kernels.dropout.drop``.

    Args:
        p: probability, in [0, 1), rounded to a multiple of 1/256.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"dropout must be in [0, 1), got {p}")
        self.p = p

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """Drops values of x, and adds the rest to ``onto`` where that is given."""
        return drop(x, self.p if self.training else 0.0, onto)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class RowAttention(nn.Module):
    """Multi-head attention inside each sequence, see ``negrec.kernels.attention.attend``.

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
        return attend(qkv, rows, self.heads, self.dropout.p if self.training else 0.0)


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
