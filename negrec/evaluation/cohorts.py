"""Popularity cohorts of items."""

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Cohort:
    """How large a cohort is: table 2 of Prakash et al., 2024 (arXiv:2410.17276).

    Attributes:
        items: how many there are.
        share: of the catalogue.
        interactions: share of the training interactions.
        median_users: the median over its items of the share of the training users who took the
            item ("median percentage of users"); NaN for a cohort without items.
    """

    items: int
    share: float
    interactions: float
    median_users: float


def cohort_sizes(user: NDArray[np.int64], item: NDArray[np.int64], n_items: int) -> list[Cohort]:
    """The sizes of head, mid and tail.

    Args:
        user: of each training interaction, (n,).
        item: its catalogue id 1..V, (n,).
        n_items: V.
    """
    counts = np.bincount(item, minlength=n_items + 1)[1:]
    cohort = popularity_cohorts(counts)
    # Each user once for an item, however often they took it.
    pairs = np.sort(user.astype(np.int64) * (n_items + 1) + item)
    first = pairs[np.diff(pairs, prepend=-1) != 0]
    takers = np.bincount(first % (n_items + 1), minlength=n_items + 1)[1:]
    n_users = len(np.unique(user))
    sizes = []
    for index in range(len(COHORTS)):
        inside = cohort == index
        median = np.median(takers[inside]) / n_users if inside.any() else np.nan
        interactions = counts[inside].sum() / len(item)
        sizes.append(
            Cohort(int(inside.sum()), float(inside.mean()), float(interactions), float(median))
        )
    return sizes


def _whole(counts: NDArray[Any]) -> NDArray[np.int64]:
    if counts.ndim != 1:
        raise ValueError(f"counts must be a list of numbers, got the shape {counts.shape}")
    whole: NDArray[np.int64] = counts.astype(np.int64)
    if (whole != counts).any() or (whole < 0).any():
        raise ValueError("counts must be whole numbers from 0")
    return whole
