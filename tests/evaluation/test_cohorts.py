"""Cohorts by hand, and against the definition read item by item."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from negrec.evaluation.cohorts import Cohort, cohort_sizes, popularity_cohorts


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # Total 9; cumulated 1, 2 | 3, 4, 5 | 6, ...: a third itself is mid, two thirds are tail.
        ([1] * 9, [0, 0, 1, 1, 1, 2, 2, 2, 2]),
        # Sorted 4, 3, 2, 2, 1 of 12 at positions 2, 0, 1, 4, 3: 4 is not below 4, 7 < 8, 9, ...
        ([3, 2, 4, 1, 2], [1, 2, 1, 2, 2]),
        # Ties by id: items 0 and 2 have 2 of 6 each; 2 and 4 are not below 2 and 4.
        ([2, 1, 2, 1], [1, 2, 2, 2]),
        # One item above a third is head although it reaches beyond it, here to 5/9.
        ([1, 5, 1, 1, 1], [2, 0, 2, 2, 2]),
        # ... even when it has nearly everything.
        ([98, 1, 1], [0, 2, 2]),
        # Exactly a third is not above it.
        ([3, 1, 1, 1, 1, 1, 1], [1, 1, 1, 2, 2, 2, 2]),
        # Without training interactions an item is tail.
        ([0, 0, 1, 1, 1, 1, 0], [2, 2, 0, 1, 2, 2, 2]),
        ([0, 0], [2, 2]),
        ([7], [0]),
        ([], []),
    ],
)
def test_by_hand(counts, expected):
    assert popularity_cohorts(counts).tolist() == expected
    assert popularity_cohorts(torch.tensor(counts)).tolist() == expected


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40))
def test_against_the_definition(counts):
    total, cumulated = sum(counts), 0
    cohorts = popularity_cohorts(np.array(counts))
    for item in sorted(range(len(counts)), key=lambda i: (-counts[i], i)):
        cumulated += counts[item]
        if 3 * cumulated < total or 3 * counts[item] > total:
            expected = 0
        elif 3 * cumulated < 2 * total:
            expected = 1
        else:
            expected = 2
        assert cohorts[item] == expected


def test_thirds_of_large_totals_are_exact():
    # float64 would round the total to 3 * 2^55, a third of which is no more than third - 1.
    third = 2**55 + 1
    counts = [third - 1, 1, third - 1, 1, third - 1, 1]
    # Sorted: the three large ones first; third - 1 < third is head, 2 third - 2 is mid.
    assert popularity_cohorts(counts).tolist() == [0, 2, 1, 2, 2, 2]


@pytest.mark.parametrize("counts", [[1, -1], [0.5], [[1]]])
def test_impossible_counts(counts):
    with pytest.raises(ValueError, match="counts"):
        popularity_cohorts(counts)


def test_sizes_by_hand():
    # Item 1 four times by three users, 2 and 3 twice each, 4 once, 5 never: 9 interactions.
    # Cumulated 4, 6, 8, 9, 9 against 3 and 6: 1 holds 4/9 > 1/3, so it is head all the same;
    # 2 reaches 6, so it is tail like the rest.
    user = np.array([0, 0, 1, 2, 0, 1, 2, 2, 0])
    item = np.array([1, 1, 1, 1, 2, 2, 3, 3, 4])
    head, mid, tail = cohort_sizes(user, item, 5)
    assert head == Cohort(items=1, share=0.2, interactions=4 / 9, median_users=1.0)
    assert (mid.items, mid.share, mid.interactions) == (0, 0, 0)
    assert np.isnan(mid.median_users)
    # Users of 2, 3, 4, 5: 2, 1 (who took it twice), 1, 0; the median is 1 of 3 users.
    assert tail == Cohort(4, 0.8, 5 / 9, 1 / 3)


def test_sizes_of_three_equal_thirds():
    # 1: 6 interactions of 20, 2 and 3: 4 and 3 more, 4 to 10: one each.
    counts = [6, 4, 3, 1, 1, 1, 1, 1, 1, 1]
    item = np.repeat(np.arange(1, 11), counts)
    user = np.concatenate([np.arange(n) for n in counts])  # each once
    head, mid, tail = cohort_sizes(user, item, 10)
    # Cumulated 6, 10, 13, 14, ... against 20/3 = 6.7 and 13.3.
    assert [each.items for each in (head, mid, tail)] == [1, 2, 7]
    # Of 6 users: 6; the median of 4 and 3; 1.
    assert [each.median_users for each in (head, mid, tail)] == [1, 3.5 / 6, 1 / 6]
