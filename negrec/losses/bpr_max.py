"""BPR-max: BPR against the negatives that score highest."""

import math

import torch
from torch import Tensor

from negrec.losses.base import ScoreLoss
from negrec.types import Scores


class BPRMax(ScoreLoss):
    r"""BPR with each negative weighted by its share of the softmax over the negatives.

    .. math:: L = -\log \sum_j w_j \sigma(s^+ - s^-_j) + \lambda \sum_j w_j (s^-_j)^2,
       \quad w = \mathrm{softmax}(s^-)

    over the valid negatives of the query (Hidasi & Karatzoglou, 2018, arXiv:1706.03847, section
    3.3). With ``sampler=in_batch`` it is the loss of GRU4Rec+. No valid negative gives 0.

    Args:
        regularization: lambda, at least 0; the score regularisation that the paper found to
            be part of what makes the loss work.
    """

    def __init__(self, regularization: float = 1.0) -> None:
        super().__init__()
        if not 0 <= regularization < math.inf:
            raise ValueError(f"regularization must be at least 0, got {regularization}")
        self.regularization = regularization

    def per_query(self, scores: Scores) -> Tensor:
        valid = scores.valid
        # Ruled out: weight e^-inf = 0. A row without any valid candidate would be all NaN.
        empty = ~valid.any(1, keepdim=True)
        log_w = scores.negative.masked_fill(~(valid | empty), -torch.inf).log_softmax(1)
        above = torch.nn.functional.logsigmoid(scores.positive[:, None] - scores.negative)
        # log sum_j w_j sigma_j, never leaving the logarithm: sigma underflows for far-off scores.
        ranking = -torch.logsumexp(log_w + above, 1)
        square = scores.negative.masked_fill(~valid, 0).square()
        loss = ranking + self.regularization * (log_w.exp() * square).sum(1)
        return loss.masked_fill(empty[:, 0], 0)
