"""Negatives from the targets of recent batches."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from negrec.samplers.in_batch import InBatch
from negrec.types import DatasetInfo, Exclude, Feedback, Queries
from negrec.wide import wide


class CrossBatch(InBatch):
    """In-batch negatives from a queue: the newest training targets, beside the batch's own.

    Wang et al., 2021 (SIGIR, arXiv:2110.15154), with M batches of about N targets as
    ``size = M * N``. Slots of a queue that is not yet full are drawn as well and left empty: the
    first steps have fewer than k candidates. Where we differ: the queue holds ids and the items
    are scored with the present vectors, where the paper caches vectors and lets them age.

    Args:
        info: facts of the training split.
        size: targets that the queue holds, at least 1.
        k: see ``InBatch``.
        share: see ``InBatch``.
        exclude: see ``Sampler``.
    """

    queue: Tensor

    def __init__(
        self,
        info: DatasetInfo,
        size: int,
        k: int | Literal["all"] = 256,
        share: Literal["batch", "sequence"] = "batch",
        exclude: Exclude = "window",
    ) -> None:
        super().__init__(info, k, share, exclude)
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.register_buffer("queue", torch.zeros(size, dtype=torch.int64))  # oldest first

    def log_prob_for(self, items: Tensor, queries: Queries) -> Tensor:
        # While the queue fills, a slot gives an item only with the share that is filled.
        there = self.candidates(queries) > 0
        filled = there.to(wide(there.device), torch.double).mean().log()
        return self.log_prob(items) + filled.float().to(there.device)

    def candidates(self, queries: Queries) -> Tensor:
        return torch.cat([queries.whole.target, self.queue])

    def observe(self, feedback: Feedback) -> None:
        newest = torch.cat([self.queue, feedback.queries.whole.target])
        self.queue.copy_(newest[-len(self.queue) :])
