"""Negatives by popularity."""

import math

import torch
from torch import Tensor

from negrec.samplers.base import Proposal
from negrec.types import DatasetInfo, Exclude, Share
from negrec.wide import uniform


class Popularity(Proposal):
    r"""Draws item i with probability proportional to its training count to a power.

    .. math:: q(i) = c_i^\gamma / \sum_j c_j^\gamma

    gamma = 0 is uniform over the items that occur in training, 1 is their empirical
    distribution, and 0.75 is the choice of word2vec (Mikolov et al., 2013, arXiv:1310.4546,
    section 2.2). Items that never occur are never drawn.

    Args:
        info: facts of the training split.
        gamma: power of the count, finite; negative values favour rare items.
        k: negatives of one draw, in 1..V.
        share: see ``Proposal``.
        exclude: see ``Sampler``.
    """

    log_q: Tensor
    cdf: Tensor

    def __init__(
        self,
        info: DatasetInfo,
        gamma: float,
        k: int,
        share: Share = "query",
        exclude: Exclude = "target",
    ) -> None:
        super().__init__(info, k, share, exclude)
        if not math.isfinite(gamma):
            raise ValueError(f"gamma must be finite, got {gamma}")
        if not info.counts.any():
            raise ValueError("popularity needs training interactions, and every count is 0")
        log_weight = gamma * info.counts.double().log()
        log_weight[info.counts == 0] = -torch.inf  # never seen in training, never drawn
        log_q = log_weight.log_softmax(dim=0)
        self.register_buffer("log_q", log_q.float(), persistent=False)
        self.register_buffer("cdf", log_q.exp().cumsum(0), persistent=False)  # ends at 1

    def draw(self, rows: int, generator: torch.Generator | None) -> Tensor:
        # Inverse CDF in float64: torch.multinomial stops at 2^24 categories.
        device = self.log_q.device
        u = uniform((rows, self.k), device, generator)
        cdf = self.cdf
        if cdf.dtype != torch.double:  # `wide.place` has rounded it
            cdf = self.log_q.to(u.device).double().exp().cumsum(0)
        # Scaled to the rounded end of the CDF, so that no item of weight 0 behind it is reached.
        return (torch.searchsorted(cdf, u * cdf[-1], right=True) + 1).to(device)

    def log_prob(self, items: Tensor) -> Tensor:
        return self.log_q[items - 1]
