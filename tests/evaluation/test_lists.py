"""Measures of top-k lists, by hand. Item 0 fills a list that has fewer items."""

from math import isnan, log2

import numpy as np
import pytest

from negrec.evaluation.lists import coverage, exposure_gini, novelty, popularity

LISTS = np.array([[1, 2, 3], [1, 3, 0]])
COUNTS = np.array([8, 4, 2, 2])


def test_coverage():
    assert coverage(LISTS, 1, 4) == 1 / 4  # item 1
    assert coverage(LISTS, 2, 4) == 3 / 4
    assert coverage(LISTS, 3, 4) == 3 / 4  # nobody is shown item 4


def test_exposure():
    # Shown 2, 1, 2, 0 times: sum over pairs |difference| = 2 (1 + 0 + 2 + 1 + 1 + 2) = 14.
    assert exposure_gini(LISTS, 3, 4) == pytest.approx(14 / (2 * 16 * 5 / 4))
    assert exposure_gini(np.array([[1, 2], [3, 4]]), 2, 4) == 0
    assert exposure_gini(LISTS, 1, 4) == pytest.approx(1 - 1 / 4)  # one item gets everything


def test_popularity():
    # Means of the lists: (8 + 4 + 2) / 3 and (8 + 2) / 2; a filled place is no item.
    assert popularity(LISTS, 3, COUNTS) == pytest.approx((14 / 3 + 5) / 2)
    assert popularity(LISTS, 1, COUNTS) == 8


def test_novelty():
    # Bits of items 1..4 with 8, 4, 2, 2 of 16 interactions: 1, 2, 3, 3.
    assert novelty(LISTS, 3, COUNTS) == pytest.approx((6 / 3 + 4 / 2) / 2)
    assert novelty(np.array([[1]]), 1, np.ones(32, dtype=int)) == pytest.approx(log2(32))


def test_an_item_never_seen_is_as_novel_as_one_seen_once():
    # With the one counted: 3 + 1 interactions, 1/4 of them are two bits.
    assert novelty(np.array([[2]]), 1, np.array([3, 0])) == pytest.approx(2)


def test_no_lists():
    none = np.zeros((0, 3), dtype=int)
    values = [coverage(none, 3, 4), exposure_gini(none, 3, 4), novelty(none, 3, COUNTS)]
    assert all(isnan(value) for value in values)
    assert isnan(popularity(np.zeros((2, 3), dtype=int), 3, COUNTS))  # nothing left to show
