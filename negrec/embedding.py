"""Large tables, of which a training step reads few rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Late(ABC):
    """Rows that an optimiser leaves as they are until they have a gradient again.

    What is stored is not what such a row is by now: everybody reads it from here, by way of
    ``look_up`` and ``whole``.
    """

    @abstractmethod
    def rows(self, row: Tensor) -> Tensor:
        """The rows as they are by now, without gradient, (n,) to (n, D)."""

    @abstractmethod
    def whole(self) -> Tensor:
        """All rows as they are by now, without gradient, (V, D)."""


class Table(nn.Parameter):
    """A parameter that is read by rows: a vector for each item, or for each user.

    Attributes:
        late: of an optimiser that moves only rows with a gradient; None: all rows are as stored.
    """

    late: Late | None = None


def look_up(table: Tensor, row: Tensor) -> Tensor:
    """Rows of a table, (...) to (..., D).

    Args:
        table: (V, D).
        row: indices from 0, (...).
    """
    late = late_rows(table)
    if late is not None:
        read: Tensor = _LateRows.apply(table, row, late)  # type: ignore[no-untyped-call]
        return read
    # A dense gradient is a fresh tensor of the table's size at every look-up. Where there is a
    # tensor to add to, as the trainer keeps one, a sparse gradient goes right into it.
    return F.embedding(row, table, sparse=table.grad is not None)


def whole(table: Tensor) -> Tensor:
    """All rows of a table, (V, D)."""
    late = late_rows(table)
    if late is None:
        return table
    read: Tensor = _LateWhole.apply(table, late)  # type: ignore[no-untyped-call]
    return read


def late_rows(table: Tensor) -> Late | None:
    """Who knows what the rows of a table are by now; None where they are as stored."""
    return table.late if isinstance(table, Table) else None


class _LateRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, row: Tensor, late: Late) -> Tensor:
        ctx.save_for_backward(row)
        ctx.shape = table.shape
        return late.rows(row.reshape(-1)).view(*row.shape, table.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (row,) = ctx.saved_tensors
        values = grads[0].reshape(-1, ctx.shape[1])
        # Repeated rows stay side by side: the optimiser sums them up.
        gradient = torch.sparse_coo_tensor(
            row.reshape(1, -1), values, ctx.shape, check_invariants=False
        )
        return gradient, None, None


class _LateWhole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, late: Late) -> Tensor:
        return late.whole()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None
