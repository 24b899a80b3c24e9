"""Metrics against numbers worked out by hand and against all orders of tied items."""

from itertools import pairwise, permutations
from math import inf, isnan, log2, nan

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from negrec.evaluation.metrics import (
    balance,
    gini,
    hit_rate,
    hit_rate_per_target,
    mrr,
    mrr_per_target,
    ndcg,
    ndcg_per_target,
    recall,
)

RANKS = [1, 3, 11]
POSITIONS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 8)), min_size=1, max_size=10)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (lambda ranks: hit_rate(ranks, 1), 1 / 3),
        (lambda ranks: hit_rate(ranks, 3), 2 / 3),
        (lambda ranks: hit_rate(ranks, 11), 1),
        (lambda ranks: ndcg(ranks, 2), 1 / 3),  # 1 / log2(2) = 1 for the first rank
        (lambda ranks: ndcg(ranks, 10), (1 + 1 / log2(4)) / 3),
        (lambda ranks: ndcg(ranks, 11), (1 + 1 / 2 + 1 / log2(12)) / 3),
        (mrr, (1 + 1 / 3 + 1 / 11) / 3),
    ],
)
@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_without_ties(metric, expected, kind):
    assert metric(kind(RANKS)) == pytest.approx(expected, rel=1e-12)


def test_with_ties():
    # One target at rank 2 with 2 ties: positions 2, 3, 4, each with probability 1/3.
    assert hit_rate([2], 1, [2]) == 0
    assert hit_rate([2], 2, [2]) == pytest.approx(1 / 3)
    assert hit_rate([2], 3, [2]) == pytest.approx(2 / 3)
    assert hit_rate([2], 10, [2]) == 1
    assert ndcg([2], 3, [2]) == pytest.approx((1 / log2(3) + 1 / log2(4)) / 3)
    assert ndcg([2], 10, [2]) == pytest.approx((1 / log2(3) + 1 / log2(4) + 1 / log2(5)) / 3)
    assert mrr([2], [2]) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 3)


@pytest.mark.parametrize("n_ties", range(5))
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("k", [1, 3, 5, 20])
def test_ties_are_the_mean_over_all_orders(rank, n_ties, k):
    # Item 0 is the target; every order of the tied items is equally likely.
    found = [rank + order.index(0) for order in permutations(range(n_ties + 1))]
    assert hit_rate([rank], k, [n_ties]) == pytest.approx(hit_rate(found, k))
    assert ndcg([rank], k, [n_ties]) == pytest.approx(ndcg(found, k))
    assert mrr([rank], [n_ties]) == pytest.approx(mrr(found))


@given(POSITIONS)
def test_a_deeper_cutoff_never_loses(positions):
    ranks, ties = zip(*positions, strict=True)
    for metric in (hit_rate, ndcg):
        values = [metric(ranks, k, ties) for k in range(1, 60)]
        assert all(0 <= a <= b + 1e-12 for a, b in pairwise(values))
    assert hit_rate(ranks, 48, ties) == 1  # 40 + 8: behind it is nobody


@given(POSITIONS)
def test_orders_of_magnitude(positions):
    ranks, ties = zip(*positions, strict=True)
    hit, gain = hit_rate_per_target(ranks, 10, ties), ndcg_per_target(ranks, 10, ties)
    assert (gain <= hit + 1e-12).all()
    assert (hit / log2(11) <= gain + 1e-12).all()  # the least that a hit among 10 gains
    assert ndcg(ranks, 1, ties) == pytest.approx(hit_rate(ranks, 1, ties))
    # The mean of 1/r is at least one over the mean position.
    middle = np.array(ranks) + np.array(ties) / 2
    assert (mrr_per_target(ranks, ties) >= 1 / middle - 1e-12).all()


def test_everything_ties():
    # Of V = 1000 equal items each stands among the first 10 with probability 1 %.
    assert hit_rate([1], 10, [999]) == pytest.approx(0.01)
    assert mrr([1], [999]) == pytest.approx(sum(1 / r for r in range(1, 1001)) / 1000)


def test_far_down_the_list():
    rank, n_ties = 1_000_000, 3
    expected = sum(1 / r for r in range(rank, rank + n_ties + 1)) / (n_ties + 1)
    assert mrr([rank], [n_ties]) == pytest.approx(expected, rel=1e-6)
    assert hit_rate([2**53], 10) == 0


def test_infinity_is_a_miss_everywhere():
    assert hit_rate([inf], 10**9, [0]) == 0
    assert ndcg([inf, 1], 10) == 0.5
    assert mrr([inf, 2], [0, 0]) == 0.25


def test_recall_is_a_mean_over_users():
    # User 7 finds 1 of 2 targets, user 3 finds 1 of 1: (1/2 + 1) / 2; the hit rate is 2/3.
    assert recall([1, 30, 2], 10, [7, 7, 3]) == pytest.approx(0.75)
    assert recall([1, 30, 2], 10, [7, 7, 3], [0, 0, 0]) == pytest.approx(0.75)
    assert recall([10, 30], 10, [0, 0], [1, 0]) == pytest.approx(0.25)  # half a hit of two


def test_recall_of_single_targets_is_the_hit_rate():
    ranks, ties = [1, 4, 12, 9], [0, 2, 0, 3]
    assert recall(ranks, 10, [5, 2, 9, 0], ties) == pytest.approx(hit_rate(ranks, 10, ties))


def test_no_targets_have_no_mean():
    assert isnan(hit_rate([], 10))
    assert isnan(ndcg([], 10, []))
    assert isnan(mrr(torch.empty(0)))
    assert isnan(recall([], 10, []))


def test_arguments_are_not_changed():
    ranks, ties = np.array([1.0, 5.0]), np.array([2.0, 0.0])
    mrr(ranks, ties)
    assert ranks.tolist() == [1, 5]
    assert ties.tolist() == [2, 0]


@pytest.mark.parametrize("metric", [hit_rate, ndcg])
@pytest.mark.parametrize(
    ("ranks", "k", "ties", "message"),
    [
        ([1, 0], 10, None, "ranks .* got 0"),
        ([1.5], 10, None, "ranks .* got 1.5"),
        ([nan], 10, None, "ranks .* got nan"),
        ([1, 2], 10, [0, -1], "ties .* got -1"),
        ([1], 10, [inf], "ties .* got inf"),
        ([1, 2], 10, [0], "shape"),
        ([1], 0, None, "k must be at least 1, got 0"),
        ([1], 2.5, None, "k must be a whole number, got 2.5"),
    ],
)
def test_impossible_input(metric, ranks, k, ties, message):
    with pytest.raises(ValueError, match=message):
        metric(ranks, k, ties)


def test_impossible_input_of_the_others():
    with pytest.raises(ValueError, match="got 0"):
        mrr([0])
    with pytest.raises(ValueError, match="got -2"):
        mrr([1], [-2])
    with pytest.raises(ValueError, match="user"):
        recall([1, 2], 10, [0])


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ([0.2, 0.2, 0.2], 1),
        ([0.3, 0, 0], 1 / 3),  # one group gets everything
        ([0, 0.3, 0.3], 2 / 3),  # |differences| 4 * 0.3 over 2 * 9 * 0.2 = 1/3
        ([0.1, 0.2, 0.3], 1 - 2 * (0.1 + 0.2 + 0.1) / (2 * 9 * 0.2)),
        ([3, 2, 1], 1 - 8 / 36),
    ],
)
def test_balance(rates, expected):
    assert balance(rates) == pytest.approx(expected)


@pytest.mark.parametrize("rates", [[0, 0, 0], [0.1, nan, 0.1], [nan, nan, nan]])
def test_no_balance(rates):
    assert isnan(balance(rates))


@pytest.mark.parametrize("rates", [[0.1, -0.1, 0.2], [inf, 0.1, 0.2], []])
def test_impossible_rates(rates):
    with pytest.raises(ValueError, match="rates"):
        balance(rates)


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=3).filter(any))
def test_balance_lies_between_a_third_and_one(hits):
    rates = [h / 1000 for h in hits]
    value = balance(rates)
    assert 1 / 3 - 1e-12 <= value <= 1 + 1e-12
    assert balance(rates[::-1]) == pytest.approx(value)  # order says nothing
    assert balance([100 * r for r in rates]) == pytest.approx(value)  # nor does the unit


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any))
def test_gini_is_the_mean_difference(values):
    x = np.array(values, dtype=float)
    pairs = np.abs(x[:, None] - x[None]).sum()
    assert gini(x) == pytest.approx(pairs / (2 * len(x) ** 2 * x.mean()), abs=1e-12)
