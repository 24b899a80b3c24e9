"""Generalised binary cross-entropy (gSASRec)."""

from torch import Tensor
from torch.nn import functional as F

from negrec.kernels.softplus import softplus_sum
from negrec.losses.base import ScoreLoss
from negrec.types import Scores


class GBCE(ScoreLoss):
    r"""Binary cross-entropy whose positive is discounted for what was not sampled.

    .. math:: L = -\frac{\beta \log \sigma(s^+) + \sum_j \log(1 - \sigma(s^-_j))}{K + 1},
       \quad \beta = 1 - t (1 - \alpha), \quad \alpha = \frac{K}{V - 1}

    Petrov & Macdonald, 2023 (arXiv:2308.07192): equation 8, and section 5.3 for t; there
    :math:`\beta = \alpha (t (1 - 1/\alpha) + 1/\alpha)`, which is the same. K counts the valid
    negatives of the query. t = 0 is BCE, t = 1 predicts probabilities that are calibrated
    (corollary 5.1.1). A candidate labelled 1 counts as a positive: its term is -log sigma(s).

    Where we differ: sigma(s)^beta is beta log sigma(s) exactly, where the authors' code takes the
    detour over clamped probabilities in float64.

    Args:
        t: how far the scores are calibrated, in [0, 1].
    """

    reads_labels = True

    def __init__(self, t: float = 0.75) -> None:
        super().__init__()
        if not 0 <= t <= 1:
            raise ValueError(f"t must be in [0, 1], got {t}")
        self.t = t

    def per_query(self, scores: Scores) -> Tensor:
        k = scores.count  # K of each query
        alpha = k.to(scores.positive.dtype) / max(scores.n_items - 1, 1)
        beta = 1 - self.t * (1 - alpha)
        negative = softplus_sum(scores.negative, scores.valid, scores.label)
        return (beta * F.softplus(-scores.positive) + negative) / (k + 1)
