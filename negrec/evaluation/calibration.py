"""Whether scores, read as probabilities, mean what they say (gSASRec's overconfidence)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from negrec.evaluation.metrics import Floats, Numbers, hit_rate_per_target

if TYPE_CHECKING:  # a report draws the theorem, and should not wait for torch
    from torch import Tensor

    from negrec.scoring import FixedScorer

DEEPEST = 100  # the paper's largest cut-off


def calibration(scores: Tensor, ranks: Numbers, ties: Numbers) -> pl.DataFrame:
    r"""Mean predicted probability@K beside mean precision@K, for K = 1, 2, ...

    .. math:: \mathrm{probability}@K = \frac{1}{|L|} \sum_{l \in L} \frac{1}{K}
       \sum_{i \in l_{1..K}} \sigma(s_i), \qquad
       \mathrm{precision}@K = \frac{1}{|L|} \sum_{l \in L} \frac{|\{targets\} \cap l_{1..K}|}{K}

    Petrov & Macdonald, 2023 (arXiv:2308.07192, section 6.2.2 and figure 2). Equal: calibrated.
    A probability far above the precision: overconfident, as trained with few negatives.
    The sigmoid is what BCE and its relatives train; a softmax loss leaves it without meaning.

    Args:
        scores: of the items of each list, descending, -inf where a list has fewer, (L, K).
        ranks: of all targets of the lists, (M,), M = L where each list has one target.
        ties: (M,).

    Returns:
        Columns k, probability, precision; K rows.
    """
    n_lists, deepest = scores.shape
    k = np.arange(1, deepest + 1)
    predicted = scores.cpu().double().sigmoid().sum(0).numpy().cumsum()  # (K,)
    found = np.array([hit_rate_per_target(ranks, int(cut), ties).sum() for cut in k])
    positions = k * n_lists if n_lists else np.full(deepest, np.nan)
    return pl.DataFrame(
        {"k": k, "probability": predicted / positions, "precision": found / positions}
    )


def probability_sums(hidden: Tensor, scorer: FixedScorer) -> Tensor:
    r"""The sum of all predicted probabilities of each state, (n,).

    .. math:: \sum_i \sigma(s_i)

    Exactly one item comes next, so calibrated probabilities sum to 1; an overconfident model's
    sum is far above (arXiv:2308.07192, section 4, figure 1).

    Args:
        hidden: (n, D).
        scorer: scores states against the V items.
    """
    from negrec.kernels.tiles import Scratch, chunks

    scratch, sums = Scratch(), hidden.new_zeros(len(hidden))
    for part in chunks(len(hidden), scorer.tile_rows):
        states = hidden[part]
        for stretch in scorer.stretches:
            width = stretch.stop - stretch.start
            scores = scorer.tile(states, stretch, scratch.take(len(states), width, scorer.weight))
            sums[part] += scores.sigmoid_().sum(1)
    return sums


def theorem_5_1(prior: Floats, sampling_rate: float, beta: float = 1.0) -> Floats:
    r"""The probability that training with uniform negatives converges to, for a true one.

    .. math:: \sigma(s_i) = \frac{\beta P(i)}{\alpha - \alpha P(i) + \beta P(i)}

    Petrov & Macdonald, 2023 (arXiv:2308.07192, theorem 5.1). beta = alpha gives P itself
    (corollary 5.1.1), beta = 1 is BCE (corollary 5.1.2).

    Args:
        prior: P, in [0, 1]; the figures put precision@K in its place.
        sampling_rate: alpha = negatives / (V - 1), in (0, 1].
        beta: the power of gBCE, in (0, 1]; 1 for BCE.
    """
    for name, value in (("sampling_rate", sampling_rate), ("beta", beta)):
        if not 0 < value <= 1:
            raise ValueError(f"{name} must be in (0, 1], got {value}")
    return beta * prior / (sampling_rate - sampling_rate * prior + beta * prior)
