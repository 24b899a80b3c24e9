"""Binary cross-entropy."""

import math
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from negrec.kernels.softplus import softplus_sum
from negrec.losses.base import ScoreLoss
from negrec.types import Scores


class BCE(ScoreLoss):
    r"""Tells the target from its negatives by a binary classifier.

    .. math:: L = \frac{-\log \sigma(s^+) - \sum_j \log(1 - \sigma(s^-_j))}{1 + K}

    with the sum over the K valid negatives of the query (Kang & McAuley, 2018, arXiv:1808.09781,
    equation 6; the mean over the 1 + K terms is gSASRec's, arXiv:2308.07192). With
    ``negatives="mean"`` the positive and the mean of the negatives weigh one half each, as in
    Apple's code (arXiv:2410.17276); for K = 1 the two are the same. A candidate labelled 1
    counts as a positive: its term is -log sigma(s).

    With ``log_q="standard"`` every s is replaced by s - log(K q), K being the number of draws:
    noise-contrastive estimation (Gutmann & Hyvarinen, 2010; Mnih & Teh, 2012, arXiv:1206.6426),
    whose scores approach log P(i) where those of plain BCE approach log P(i) / (K q(i)), exactly
    so with ``sampler.exclude=none``. What is excluded was a negative less often: with the target
    excluded, frequent ones come out as about P / (1 - P).

    Args:
        negatives: "sum" or "mean".
        log_q: "none", or "standard" for noise-contrastive estimation.
    """

    reads_labels = True

    def __init__(
        self,
        negatives: Literal["sum", "mean"] = "sum",
        log_q: Literal["none", "standard"] = "none",
    ) -> None:
        super().__init__()
        if negatives not in ("sum", "mean"):
            raise ValueError(f"negatives must be sum or mean, got {negatives!r}")
        if log_q not in ("none", "standard"):
            raise ValueError(f"log_q must be none or standard, got {log_q!r}")
        self.negatives = negatives
        self.log_q = log_q
        self.needs_density = log_q != "none"

    def per_query(self, scores: Scores) -> Tensor:
        above, below = scores.positive, scores.negative
        if self.log_q == "standard":
            assert scores.log_q is not None
            assert scores.target_log_q is not None
            draws = math.log(below.shape[1])
            above, below = above - scores.target_log_q - draws, below - scores.log_q - draws
        positive = F.softplus(-above)
        negative = softplus_sum(below, scores.valid, scores.label)
        k = scores.count
        if self.negatives == "sum":
            return (positive + negative) / (1 + k)
        return (positive + negative / k.clamp(min=1)) / (1 + k.clamp(max=1))
