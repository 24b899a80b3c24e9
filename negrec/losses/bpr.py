"""Bayesian personalised ranking."""

from torch import Tensor

from negrec.kernels.softplus import softplus_sum
from negrec.losses.base import ScoreLoss
from negrec.types import Scores


class BPR(ScoreLoss):
    r"""Asks the target to score above each negative.

    .. math:: L = -\frac{1}{K} \sum_j \log \sigma(s^+ - s^-_j)

    with the mean over the K valid negatives of the query (Rendle et al., 2009, arXiv:1205.2618,
    section 4.1, without its regularisation: that is the optimiser's weight decay). No valid
    negative gives 0.
    """

    def per_query(self, scores: Scores) -> Tensor:
        total = softplus_sum(scores.negative - scores.positive[:, None], scores.valid)
        return total / scores.count.clamp(min=1)
