import numpy as np
import pytest

from negrec.data.statistics import Lengths, Times, moments, statistics
from tests.data.made import interactions

DAY = 86_400


def test_lengths_by_hand():
    # Sorted 1, 2, 3, 10: quartiles lie 3/4, 3/2 and 9/4 of a step along.
    found = Lengths.of(np.array([10, 1, 3, 2]))
    assert found == Lengths(shortest=1, lower=1.75, median=2.5, upper=4.75, longest=10, mean=4.0)


def test_a_small_table_by_hand():
    rows = [(1, 1, 0), (1, 2, 60), (1, 2, 60), (1, 3, DAY), (2, 1, 60), (2, 3, 2 * DAY)]
    found = statistics(interactions(rows), max_length=3)
    # 5 different pairs of 2 users and 3 items; user 2 is short; user 1's oldest is cut off.
    assert found.sparsity == pytest.approx(1 - 5 / 6)
    assert (found.short, found.cut) == (1, 1 / 6)
    assert found.times is not None
    # User 1 has two at 60 s; that user 2 has one at 60 s is nothing.
    assert found.times.equal == pytest.approx(2 / 6)
    assert found.times.days == 2
    assert not found.times.whole_days


def test_without_times():
    assert statistics(interactions([(1, 1), (1, 2), (2, 1)]), 50).times is None


def test_whole_days():
    user = np.array([0, 0, 1])
    assert Times.of(user, np.array([0, DAY, DAY]) * 10**6).whole_days
    assert not Times.of(user, np.array([0, DAY, DAY + 1]) * 10**6).whole_days


def test_moments_are_numbered_by_user_and_time():
    # The new user starts a new moment though the time stays.
    assert moments(np.array([0, 0, 0, 1]), np.array([5, 5, 7, 7])).tolist() == [0, 0, 1, 2]
