"""Sampled softmax, with and without the log-Q correction."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from negrec.losses.base import ScoreLoss
from negrec.types import Scores

LogQ = Literal["none", "standard", "refined"]


class SampledSoftmax(ScoreLoss):
    r"""Cross-entropy of the target among itself and the negatives.

    .. math:: L = -\log \frac{e^{c^+}}{e^{c^+} + \sum_j e^{c_j}}

    with the sum over the valid ones of K drawn negatives and, for scores s divided by the
    temperature, the corrected scores c:

    * ``none``: c = s. It estimates a softmax over the target and what the sampler likes to draw.
    * ``standard``: c = s - log q for target and negatives alike (Yi et al., 2019, RecSys,
      section 3.1; Bengio & Senecal, 2008). Biased: the target is not drawn, it is always there.
    * ``refined``: the target keeps its score, and c_j = s_j - log(K q_j) (arXiv:2507.09331;
      the sum estimates that over the rest of the catalogue). With many draws it is the full
      softmax.

    q is the density that the sampler really drew from, and K the number of draws, valid or not.
    No valid negative gives 0.

    Args:
        temperature: positive; it sharpens the loss only, ``scorer.temperature`` every score.
        log_q: which correction; "standard" and "refined" need a sampler with a density.
    """

    def __init__(self, temperature: float = 1.0, log_q: LogQ = "none") -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if log_q not in get_args(LogQ):
            raise ValueError(f"log_q must be one of {', '.join(get_args(LogQ))}, got {log_q!r}")
        self.temperature = temperature
        self.log_q: LogQ = log_q
        self.needs_density = log_q != "none"
        self.needs_target_density = log_q == "standard"

    def per_query(self, scores: Scores) -> Tensor:
        positive, negative = scores.positive / self.temperature, scores.negative / self.temperature
        if self.log_q != "none":
            assert scores.log_q is not None
            negative = negative - scores.log_q
            if self.log_q == "standard":
                assert scores.target_log_q is not None
                positive = positive - scores.target_log_q
            else:
                negative = negative - math.log(negative.shape[1])
        # log(e^c+ + sum) - c+ as a softplus: exact also where the target is far in front.
        total = negative.masked_fill(~scores.valid, -torch.inf).logsumexp(1)
        return F.softplus(total - positive)
