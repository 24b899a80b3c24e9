"""Binary cross-entropy."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from negrec.losses.base import ScoreLoss
from negrec.types import Scores


class BCE(ScoreLoss):
    r"""Tells the target from its negatives by a binary classifier.

    .. math:: L = \frac{-\log \sigma(s^+) - \sum_j \log(1 - \sigma(s^-_j))}{1 + K}

    with the sum over the K valid negatives of the query (Kang & McAuley, 2018, arXiv:1808.09781,
    equation 6; the mean over the 1 + K terms is gSASRec's, arXiv:2308.07192). With
    ``negatives="mean"`` the positive and the mean of the negatives weigh one half each, as in
    Apple's code (arXiv:2410.17276); for K = 1 the two are the same. A candidate labelled 1
    counts as a positive: its term is -log sigma(s). No valid negative leaves the positive alone.

    Args:
        negatives: "sum" or "mean".
    """

    def __init__(self, negatives: Literal["sum", "mean"] = "sum") -> None:
        super().__init__()
        if negatives not in ("sum", "mean"):
            raise ValueError(f"negatives must be sum or mean, got {negatives!r}")
        self.negatives = negatives

    def per_query(self, scores: Scores) -> Tensor:
        positive = F.softplus(-scores.positive)
        term = F.softplus(scores.negative)
        if scores.label is not None:
            term = term - scores.label * scores.negative  # softplus(-s) = softplus(s) - s
        negative = term.masked_fill(~scores.valid, 0).sum(1)
        k = scores.valid.sum(1)
        if self.negatives == "sum":
            return (positive + negative) / (1 + k)
        return (positive + negative / k.clamp(min=1)) / (1 + k.clamp(max=1))
