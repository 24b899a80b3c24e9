"""What each user takes, and when for the last time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from negrec.types import Exclude, Jagged, Queries


class Taken(nn.Module):
    """Answers whether a user takes an item at, or after, a position of the history.

    Args:
        histories: catalogue ids of each user in order, held-out items included (n_users rows);
            0 stands for an item outside the catalogue.
        n_items: V.
    """

    key: Tensor
    last: Tensor
    by_position: Tensor
    end: Tensor

    def __init__(self, histories: Jagged, n_items: int) -> None:
        super().__init__()
        user, item = histories.row, histories.values
        position = torch.arange(len(item)) - histories.offsets[user]
        inside = item > 0
        user, item, position = user[inside], item[inside], position[inside]
        self.n_items = n_items
        self.longest = int(histories.lengths.max()) + 1
        key = user * (n_items + 1) + item
        order = key.argsort(stable=True)  # by user and item, then in order of time
        key, user, position = key[order], user[order], position[order]
        newest = torch.ones_like(key, dtype=torch.bool)
        newest[:-1] = key[1:] != key[:-1]
        key, user, position = key[newest], user[newest], position[newest]
        by_position = (user * self.longest + position).sort().values
        self.register_buffer("key", key, persistent=False)  # ascending
        self.register_buffer("last", position, persistent=False)
        self.register_buffer("by_position", by_position, persistent=False)
        beyond = (torch.arange(len(histories)) + 1) * self.longest
        self.register_buffer("end", torch.searchsorted(by_position, beyond), persistent=False)

    def last_position(self, user: Tensor, item: Tensor) -> Tensor:
        """Where in the user's history the item stands for the last time, -1: never, (...)."""
        wanted = user * (self.n_items + 1) + item
        at = torch.searchsorted(self.key, wanted).clamp_(max=len(self.key) - 1)
        return torch.where(self.key[at] == wanted, self.last[at], -1)

    def count(self, user: Tensor, position: Tensor) -> Tensor:
        """How many distinct items the user takes at the position or later, (...)."""
        before = torch.searchsorted(self.by_position, user * self.longest + position)
        return self.end[user] - before

    def chance(self, queries: Queries, position: Tensor, policy: Exclude) -> Tensor:
        r"""The chance that a uniform draw, of what the policy leaves, is taken later, (N,).

        .. math:: |L \setminus X| \, / \, (V - |X|)

        with L the items that the user takes at ``position`` or later, and X the excluded ones.

        Args:
            queries: N of them.
            position: where the target of each stands in its user's history, (N,).
            policy: what rules items out.
        """
        later = self.count(queries.user, position)
        if policy == "none":
            return later / self.n_items
        if policy == "target":  # which is one of the later ones
            return (later - 1) / (self.n_items - 1)
        # What is excluded belongs to the sequence: one query of each stands for the others.
        _, row, size = torch.unique_consecutive(
            queries.sequence, return_inverse=True, return_counts=True
        )
        one = queries.select(size.cumsum(0) - size)
        owner, item = one.excluded.pairs(policy)
        excluded = torch.bincount(owner, minlength=len(size))
        last = self.last_position(one.user[owner], item)
        keys = (owner * (self.longest + 1) + last + 1).sort().values
        first = row * (self.longest + 1)
        both = torch.searchsorted(keys, first + self.longest + 1) - torch.searchsorted(
            keys, first + position + 1
        )
        return (later - both) / (self.n_items - excluded[row]).clamp(min=1)
