"""Negatives from the batch's own targets."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from negrec.samplers.base import Sampler
from negrec.scoring import ItemScorer
from negrec.types import DatasetInfo, Exclude, Negatives, Queries, Step


class InBatch(Sampler):
    r"""Draws k of the batch's targets without replacement.

    .. math:: q(i) = \text{training targets that are } i \; / \; \text{training targets}

    What is drawn are positions, so an item that is a target twice may come twice, and popular
    items come often: over shuffled batches the density q is the frequency among the training
    targets (never the batch's own, whose correction is biased; see ``SampledSoftmax``).

    Prakash et al., 2024 (Apple, arXiv:2410.17276, section 4.2, "batch"): all targets of the batch
    for everybody are ``k="all", share="batch"``; the authors' code draws k for each sequence,
    ``share="sequence"``. Both leave out the items of the query's own window.

    Args:
        info: facts of the training split.
        k: candidates, at least 1, or "all" targets of the batch; a smaller batch gives what it
            has.
        share: one draw for the whole "batch", or one for each "sequence".
        exclude: see ``Sampler``; accidental hits are masked.
    """

    log_q: Tensor

    def __init__(
        self,
        info: DatasetInfo,
        k: int | Literal["all"] = 256,
        share: Literal["batch", "sequence"] = "batch",
        exclude: Exclude = "window",
    ) -> None:
        super().__init__(info, exclude)
        if k != "all" and (not isinstance(k, int) or k < 1):
            raise ValueError(f"k must be at least 1 or all, got {k!r}")
        if share not in ("batch", "sequence"):
            raise ValueError(f"share must be batch or sequence, got {share!r}")
        if share == "sequence" and k == "all":
            raise ValueError("k=all is the same for every sequence: use share=batch")
        counts = info.counts if info.target_counts is None else info.target_counts
        if not counts.any():
            raise ValueError("in-batch negatives need training targets, and there are none")
        self.k = None if k == "all" else k
        self.share = share
        log_q = counts.double().log() - counts.sum().double().log()
        self.register_buffer("log_q", log_q.float(), persistent=False)

    def candidates(self, queries: Queries) -> Tensor:
        """What is drawn from, (P,); 0 where there is nothing yet."""
        return queries.whole.target

    def sample(self, queries: Queries, scorer: ItemScorer, step: Step) -> Negatives:
        pool = self.candidates(queries)
        size, device = len(pool), pool.device
        # The pool in random order; any stretch of it is a random subset.
        order = torch.randperm(size, generator=step.common, device=device)
        k = size if self.k is None else min(self.k, size)
        row = None
        if self.share == "batch":
            chosen = order[None, :k]
        else:
            n = queries.whole.batch.n_sequences
            start = torch.randint(size, (n, 1), generator=step.common, device=device)
            start = queries.batch.own(start, "sequence")
            chosen = order[(start + torch.arange(k, device=device)) % size]
            row = queries.sequence
        items = pool[chosen]
        present = items > 0
        items = torch.where(present, items, 1)
        return Negatives(
            items,
            row,
            self.log_prob_for(items, queries),
            self.log_prob_for(queries.target, queries),
            exclude=self.exclude,
            present=present,
        )

    def log_prob(self, items: Tensor) -> Tensor:
        return self.log_q[items - 1]
