"""Popularity cohorts of items."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from negrec.evaluation.metrics import Numbers, to_numpy

COHORTS: Final = ("head", "mid", "tail")
COLD: Final = 3  # the cohort of targets outside the catalogue


def popularity_cohorts(counts: Numbers) -> NDArray[np.int64]:
    """The cohort of each item: 0 head, 1 mid, 2 tail, (V,).

    Items are sorted by training count, descending, ties by id. An item is head while the cumulated
    count, itself included, is below 1/3 of the total, mid while it is below 2/3, tail after that
    (the code of Prakash et al., 2024, arXiv:2410.17276). So each cohort holds about a third of the
    interactions, and an item that never occurs in training is tail.

    Unlike theirs, an item that alone holds more than 1/3 of all interactions is head: by
    cumulation the most popular item would be mid or even tail.

    Args:
        counts: training interactions of each item, whole numbers, (V,).

    Raises:
        ValueError: a count that is negative or not whole.
    """
    count = _whole(to_numpy(counts))
    order = np.argsort(-count, kind="stable")
    ordered = count[order]
    # Integers: thirds of a float total would decide on the last digit where a cut falls.
    cumulated = 3 * ordered.cumsum()
    total = ordered.sum()
    cohort = (cumulated >= total).astype(np.int64) + (cumulated >= 2 * total)
    cohort[3 * ordered > total] = 0
    of_item: NDArray[np.int64] = np.empty_like(cohort)
    of_item[order] = cohort
    return of_item


def _whole(counts: NDArray[Any]) -> NDArray[np.int64]:
    if counts.ndim != 1:
        raise ValueError(f"counts must be a list of numbers, got the shape {counts.shape}")
    whole: NDArray[np.int64] = counts.astype(np.int64)
    if (whole != counts).any() or (whole < 0).any():
        raise ValueError("counts must be whole numbers from 0")
    return whole
