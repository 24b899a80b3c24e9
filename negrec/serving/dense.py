"""Histories in a table, for a model that is traced: every shape is known, nothing is packed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from negrec.packing import Block, Rows, Times
from negrec.types import HIDDEN, Batch

_PADDING = 1  # any item: what stands there is looked up and read by nobody


@dataclass(frozen=True)
class Columns(Times):
    """A table's columns, one after the other; ``sizes`` is its shape turned round, (L, B)."""

    def run(self, layer: nn.Module, x: Tensor) -> Tensor:
        states: Tensor = layer(x.view(*self.sizes.shape, -1))[0].flatten(0, 1)
        return states


@dataclass(frozen=True, kw_only=True)
class DenseBatch(Batch):
    """B sequences of up to L items as a table: T = B L tokens, some of which are padding.

    A model reads it as any other batch. What it computes for padding is read by nobody, and
    says nothing to the tokens that are read: it stands behind them and is masked.

    Attributes:
        table: items, oldest first, and any item behind the newest, (B, L).
        lengths: how many items of each row count, at least 1, (B,).
    """

    table: Tensor
    lengths: Tensor

    @classmethod
    def from_table(cls, table: Tensor, lengths: Tensor, user: Tensor) -> DenseBatch:
        """The batch of a table (B, L), lengths (B,) of at least 1, and user indices or -1 (B,)."""
        n, width = table.shape
        place = torch.arange(width, device=table.device)
        offsets = torch.arange(n + 1, device=table.device) * width
        none = table.new_empty(0)
        position = place.expand(n, width).flatten()
        return cls(
            user, table.flatten(), position, offsets, none, none, table=table, lengths=lengths
        )

    @cached_property
    def sequence(self) -> Tensor:
        n, width = self.table.shape
        return torch.arange(n, device=self.table.device)[:, None].expand(n, width).flatten()

    @cached_property
    def from_end(self) -> Tensor:
        place = torch.arange(self.table.shape[1], device=self.table.device)
        # Padding stands behind the end: any place is as good, if only there is one.
        return (self.lengths[:, None] - 1 - place).clamp(min=0).flatten()

    @cached_property
    def before(self) -> Tensor:
        return self.position

    @cached_property
    def last(self) -> Tensor:
        return self.offsets[:-1] + self.lengths - 1

    @cached_property
    def rows(self) -> Rows:
        """One row for each sequence."""
        return self._rows(causal=True)

    @cached_property
    def whole_rows(self) -> Rows:
        return self._rows(causal=False)

    def _rows(self, causal: bool) -> Rows:
        n, width = self.table.shape
        valid = torch.arange(width, device=self.table.device) < self.lengths[:, None]
        owner = torch.where(valid, 0, -1)  # a row's one sequence, and its padding
        every = torch.arange(n * width, device=self.table.device)
        return Rows(every, every, (Block(0, (n, width), owner, causal),))

    @cached_property
    def times(self) -> Columns:
        n, width = self.table.shape
        every = torch.arange(n * width, device=self.table.device)
        token, slot = every.view(n, width).T.flatten(), every.view(width, n).T.flatten()
        return Columns(token, slot, self.table.T)

    def with_hidden_end(self) -> DenseBatch:
        table = nn.functional.pad(self.table, (0, 1), value=_PADDING)
        place = torch.arange(table.shape[1], device=table.device)
        table = torch.where(place == self.lengths[:, None], HIDDEN, table)
        return DenseBatch.from_table(table, self.lengths + 1, self.user)


def from_padded(items: Tensor, user: Tensor | None = None) -> DenseBatch:
    """The batch of items with zeros behind, (B, L); of a row without items one item is read.

    Args:
        items: catalogue ids, oldest first, then 0, (B, L).
        user: index of each user, -1 for somebody else, (B,); nobody is known by default.
    """
    if user is None:
        user = items.new_full(items.shape[:1], -1)
    lengths = (items != 0).sum(1).clamp(min=1)
    return DenseBatch.from_table(items.clamp(min=_PADDING), lengths, user)
