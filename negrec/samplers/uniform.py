"""Uniform negatives."""

import math

import torch
from torch import Tensor

from negrec.samplers.base import Proposal


class Uniform(Proposal):
    r"""Draws every item of the catalogue with the same probability, with replacement.

    .. math:: q(i) = 1 / V

    The sampler of SASRec (Kang & McAuley, 2018, arXiv:1808.09781, section III.E) with
    ``k=1, exclude=history``; of gSASRec's code with ``k=256, exclude=none``.
    """

    def draw(self, rows: int, generator: torch.Generator | None) -> Tensor:
        device = torch.device("cpu") if generator is None else generator.device
        return torch.randint(
            1, self.n_items + 1, (rows, self.k), generator=generator, device=device
        )

    def log_prob(self, items: Tensor) -> Tensor:
        log_q = torch.full((), -math.log(self.n_items), device=items.device)
        return log_q.expand(items.shape)  # nothing of the size (N, K) is written
