"""Full softmax, in tiles."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from negrec.kernels.log_sum_exp import log_sum_exp
from negrec.kernels.tiles import Pairs, Scratch
from negrec.losses.base import Loss
from negrec.scoring import ItemScorer
from negrec.types import Judgement, Negatives, Queries


class Softmax(Loss):
    r"""Cross-entropy of the target over the whole catalogue.

    .. math:: L = -\log \frac{e^{s^+}}{e^{s^+} + \sum_{i \neq +} e^{s_i}}

    with scores s divided by the temperature. Items that ``sampler.exclude`` rules out are left
    out of the sum; the target never is. Scores are computed tile by tile, and once more in the
    backward pass: no (N, V) tensor is ever held.

    Args:
        temperature: positive; it sharpens the loss only, ``scorer.temperature`` every score.
    """

    needs_exhaustive = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature
        self._scratch = Scratch()

    def forward(self, queries: Queries, negatives: Negatives, scorer: ItemScorer) -> Judgement:
        assert negatives.exhaustive
        ((policy, _),) = negatives.policies
        query, item = queries.excluded.pairs("target" if policy == "none" else policy)
        ruled_out = Pairs.of(query, item - 1)
        positive = scorer.target(queries.hidden, queries.target) / self.temperature
        hidden = queries.hidden.to(scorer.weight.dtype) / self.temperature
        others = log_sum_exp(hidden, scorer.matrix, ruled_out, self._scratch)  # (N,)
        judged = others != -torch.inf  # a score that is not a number must show in the loss
        # log(e^s+ + sum) - s+ as a softplus: exact also where the target is far in front.
        loss = F.softplus(others - positive).masked_fill(~judged, 0)
        return Judgement(loss, judged)
