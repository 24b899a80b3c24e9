"""The training sequences, cut into windows that a model can read."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from negrec.data.targets import Targets
from negrec.errors import InputError
from negrec.types import DatasetInfo, Jagged, slices

Window = Literal["last", "all"]


class Sequences:
    """Windows of the users' training interactions.

    Args:
        train: catalogue ids in order, one row per user, untruncated.
        max_length: the longest input, in items.
        targets: which positions carry targets.
        window: "last" keeps the newest window of a longer history; "all" cuts the history into
            consecutive windows, counted from its end, so that every target occurs once.

    Attributes:
        user: the user of each window, (W,).
        start: window w is ``train.values[start[w]:end[w]]``, (W,).
        end: (W,).
    """

    def __init__(
        self, train: Jagged, max_length: int, targets: Targets, window: Window = "last"
    ) -> None:
        if max_length < 1:
            raise InputError(f"max_length must be at least 1, got {max_length}")
        if window not in ("last", "all"):
            raise InputError(f"window must be last or all, got {window!r}")
        self.train = train
        self.targets = targets
        size = max_length + targets.extra
        begin, end = train.offsets[:-1], train.offsets[1:]
        user = torch.arange(len(train))
        if window == "all":
            # Neighbouring windows share `extra` items: the last target of one is the first
            # input of the next.
            n_windows = (-(-(end - begin - targets.extra) // max_length)).clamp(min=1)
            user = torch.repeat_interleave(n_windows)
            back = torch.arange(len(user)) - (n_windows.cumsum(0) - n_windows)[user]
            end = end[user] - back * max_length
            begin = begin[user]
        start = torch.maximum(begin, end - size)
        kept = end - start >= targets.shortest
        self.user, self.start, self.end = user[kept], start[kept], end[kept]
        if len(self.user) == 0:
            raise InputError(
                f"no user has the {targets.shortest} training interactions that a training "
                "sequence needs: use more data or a smaller dataset.min_interactions"
            )

    def __len__(self) -> int:
        return len(self.user)

    def facts(self, info: DatasetInfo) -> DatasetInfo:
        """What the windows add to the facts of the training split."""
        n_users = len(self.train)
        # The windows of a user lie side by side: one stretch of the history.
        position = self.position
        first = torch.full((n_users,), len(self.train.values))
        first = first.scatter_reduce(0, self.user, position, "amin")
        stop = torch.zeros(n_users, dtype=torch.int64)
        stop = stop.scatter_reduce(0, self.user, position + self.end - self.start, "amax")
        tokens = (stop - first).clamp(min=0)
        windows = slices(self.train.values, self.start, self.end)
        # Expected, where targets are drawn: their density is that over all epochs.
        chance = self.targets.chance(windows)
        trained = torch.zeros(n_users, dtype=torch.bool)
        trained[self.user] = True
        return replace(
            info,
            trained_users=trained,
            target_counts=torch.bincount(windows.values - 1, chance, info.n_items),
            token_base=tokens.cumsum(0) - tokens - first,
            n_tokens=int(tokens.sum()),
        )

    @cached_property
    def position(self) -> Tensor:
        """Index of each window's first item in its user's history, (W,)."""
        return self.start - self.train.offsets[:-1][self.user]

    @cached_property
    def seen(self) -> Jagged:
        """The distinct training items of each user, ascending."""
        stride = int(self.train.values.max()) + 1
        keys = torch.unique(self.train.row * stride + self.train.values)
        offsets = torch.searchsorted(keys, torch.arange(len(self.train) + 1) * stride)
        return Jagged(keys % stride, offsets)
