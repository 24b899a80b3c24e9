"""Accuracy as pure functions of ranks, and balance as one of rates.

A target is described by its rank = 1 + number of items scored higher, and by its ties = number of
OTHER items with the same score. Its e ties make the positions rank, ..., rank + e equally likely;
every metric here is the expectation over these e + 1 positions, in closed form. A rank of infinity
is a miss at every cut-off (a target outside the catalogue).

No targets: NaN, since there is nothing to average.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
Numbers: TypeAlias = "NDArray[Any] | Sequence[float] | Tensor"


def hit_rate(ranks: Numbers, k: int, ties: Numbers | None = None) -> float:
    r"""Share of targets among the first k.

    .. math:: HR@k = \mathrm{mean}\; [\mathrm{rank} \le k]

    Args:
        ranks: 1 + number of items scored higher, (M,).
        k: the cut-off, at least 1.
        ties: number of other items with the target's score, (M,); none by default.

    Raises:
        ValueError: a rank below 1, negative ties, or k below 1.
    """
    return _mean(hit_rate_per_target(ranks, k, ties))


def ndcg(ranks: Numbers, k: int, ties: Numbers | None = None) -> float:
    r"""Normalised discounted cumulative gain of single targets, whose ideal gain is 1.

    .. math:: NDCG@k = \mathrm{mean}\; \frac{[\mathrm{rank} \le k]}{\log_2(\mathrm{rank} + 1)}

    Args:
        ranks: 1 + number of items scored higher, (M,).
        k: the cut-off, at least 1.
        ties: number of other items with the target's score, (M,); none by default.

    Raises:
        ValueError: a rank below 1, negative ties, or k below 1.
    """
    return _mean(ndcg_per_target(ranks, k, ties))


def mrr(ranks: Numbers, ties: Numbers | None = None) -> float:
    r"""Mean reciprocal rank, over the whole ranking.

    .. math:: MRR = \mathrm{mean}\; 1 / \mathrm{rank}

    Args:
        ranks: 1 + number of items scored higher, (M,).
        ties: number of other items with the target's score, (M,); none by default.

    Raises:
        ValueError: a rank below 1, or negative ties.
    """
    return _mean(mrr_per_target(ranks, ties))


def recall(ranks: Numbers, k: int, user: Numbers, ties: Numbers | None = None) -> float:
    """Share of a user's targets among the first k, mean over users.

    For users with several targets; with one target each it is the hit rate.

    Args:
        ranks: 1 + number of items scored higher, (M,).
        k: the cut-off, at least 1.
        user: the user of each target, (M,).
        ties: number of other items with the target's score, (M,); none by default.

    Raises:
        ValueError: a rank below 1, negative ties, k below 1, or not one user per target.
    """
    hits, of = hit_rate_per_target(ranks, k, ties), to_numpy(user)
    if of.shape != hits.shape:
        raise ValueError(f"user has the shape {of.shape}, ranks have {hits.shape}")
    _, owner, n_targets = np.unique(of, return_inverse=True, return_counts=True)
    return _mean(np.bincount(owner, weights=hits) / n_targets)


def hit_rate_per_target(ranks: Numbers, k: int, ties: Numbers | None = None) -> Floats:
    """Probability that each target is among the first k, (M,); its mean is ``hit_rate``."""
    k = _cutoff(k)
    first, e = _positions(ranks, ties)
    hits: Floats = np.clip(k + 1 - first, 0, e + 1) / (e + 1)
    return hits


def ndcg_per_target(ranks: Numbers, k: int, ties: Numbers | None = None) -> Floats:
    """Expected discounted gain of each target, (M,); its mean is ``ndcg``."""
    k = _cutoff(k)
    first, e = _positions(ranks, ties)
    discount = 1 / np.log2(np.arange(2, k + 2))
    # Sums of the discounts of the first 0..k positions: what lies behind k adds nothing.
    summed = np.concatenate([[0.0], discount.cumsum()])
    before = np.minimum(first - 1, k).astype(np.int64)
    until = np.minimum(first + e, k).astype(np.int64)
    gains: Floats = (summed[until] - summed[before]) / (e + 1)
    return gains


def mrr_per_target(ranks: Numbers, ties: Numbers | None = None) -> Floats:
    r"""Expected reciprocal rank of each target, (M,); its mean is ``mrr``.

    The sum of 1/r over r = rank .. rank + e is digamma(rank + e + 1) - digamma(rank).
    """
    first, e = _positions(ranks, ties)
    reciprocal = 1 / first
    tied = (e > 0) & np.isfinite(first)
    if not tied.any():
        return reciprocal
    from scipy.special import digamma  # not at the top: a run starts sooner without scipy

    low, n = first[tied], e[tied] + 1
    reciprocal[tied] = (digamma(low + n) - digamma(low)) / n
    return reciprocal


def balance(rates: Numbers) -> float:
    r"""How evenly the groups of targets are served: one minus the Gini coefficient of their rates.

    .. math:: 1 - \frac{\sum_{ij} |x_i - x_j|}{2 n^2 \bar x}

    Prakash et al., 2024 (arXiv:2410.17276, equation 8), there with the hit rates of head, mid and
    tail: 1 where all are equal, 1/3 where one of the three gets everything. NaN where all rates
    are zero or one of them is NaN (a group without targets).

    Args:
        rates: one rate per group, not negative, (n,).

    Raises:
        ValueError: no rates, or a negative or infinite one.
    """
    x = np.asarray(to_numpy(rates), dtype=np.float64)
    if x.ndim != 1 or not len(x):
        raise ValueError(f"balance needs a list of rates, got the shape {x.shape}")
    if np.isnan(x).any():
        return float("nan")
    if (x < 0).any() or np.isinf(x).any():
        raise ValueError(f"rates must be finite and not negative, got {x.tolist()}")
    return 1 - gini(x)


def gini(values: Floats) -> float:
    """The Gini coefficient of non-negative values, in [0, 1 - 1/n]; NaN where all are zero."""
    x = np.sort(values)
    total = x.sum()
    if total == 0:
        return float("nan")
    # Sum over pairs |x_i - x_j| = 2 sum_i (2 i - n - 1) x_(i) of the sorted values, i from 1.
    weight = 2 * np.arange(1, len(x) + 1) - len(x) - 1
    return float((weight * x).sum() / (len(x) * total))


def to_numpy(values: Numbers) -> NDArray[Any]:
    """Lists, arrays and tensors of any device as an array."""
    if isinstance(values, np.ndarray):
        return values
    # Duck-typed: who only reads results (a report) need not import torch.
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _positions(ranks: Numbers, ties: Numbers | None) -> tuple[Floats, Floats]:
    """First position and number of ties of each target, checked, (M,) each."""
    # float64 holds whole numbers up to 2^53, and infinity.
    first = np.array(to_numpy(ranks), dtype=np.float64, ndmin=1)
    if not (first >= 1).all() or (first != np.floor(first)).any():
        raise ValueError(f"ranks must be whole numbers from 1, got {_wrong(first, 1)}")
    if ties is None:
        return first, np.zeros_like(first)
    e = np.array(to_numpy(ties), dtype=np.float64, ndmin=1)
    if e.shape != first.shape:
        raise ValueError(f"ties have the shape {e.shape}, ranks have {first.shape}")
    if not (e >= 0).all() or (e != np.floor(e)).any() or np.isinf(e).any():
        raise ValueError(f"ties must be whole numbers from 0, got {_wrong(e, 0)}")
    return first, e


def _wrong(values: Floats, lowest: int) -> float:
    bad = ~(values >= lowest) | (values != np.floor(values)) | np.isinf(values)
    return float(values[bad][0])


def _cutoff(k: int) -> int:
    try:
        whole = operator.index(k)
    except TypeError:
        raise ValueError(f"k must be a whole number, got {k!r}") from None
    if whole < 1:
        raise ValueError(f"k must be at least 1, got {whole}")
    return whole


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else float("nan")
