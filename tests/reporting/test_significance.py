"""Statistics against hand-computed values, scipy, enumeration, published ones and simulation."""

import itertools
import math
import time
import tracemalloc

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from negrec.errors import InputError
from negrec.evaluation.evaluator import Evaluation, accuracy
from negrec.reporting.significance import (
    bootstrap,
    bootstrap_each,
    compare,
    critical_difference,
    describe,
    gain,
    holm,
)


def of_seeds(values):
    return dict(enumerate(values))


# ---- one cell


def test_a_cell_by_hand():
    # Mean 2.5, squares around it 2.25 + .25 + .25 + 2.25 = 5, sd = sqrt(5 / 3);
    # t(.975, 3) = 3.18245, half = 3.18245 * 1.29099 / 2 = 2.05426.
    found = describe([1, 2, 3, 4])
    assert (found.n, found.mean) == (4, 2.5)
    assert found.sd == pytest.approx(math.sqrt(5 / 3))
    assert (found.low, found.high) == pytest.approx((0.44574, 4.55426), abs=1e-5)


def test_one_run_has_no_spread_and_equal_runs_have_none_either():
    one = describe([0.3])
    assert (one.n, one.mean) == (1, 0.3)
    assert all(map(math.isnan, (one.sd, one.low, one.high)))
    # numpy's mean of three 0.1 is 0.10000000000000002 and their standard deviation not 0.
    same = describe([0.1] * 3)
    assert (same.mean, same.sd, same.low, same.high) == (0.1, 0, 0.1, 0.1)


def test_what_is_no_number_is_not_counted():
    assert describe([1.0, math.nan, 3.0]).n == 2
    assert describe([1.0, math.nan, 3.0]).mean == 2
    assert math.isnan(describe([math.nan]).mean)
    assert describe([]).n == 0


# ---- two methods over seeds


def test_pairs_by_hand():
    # Differences 2, 3, 1: mean 2, sd 1, t = 2 sqrt(3), 2 degrees of freedom, for which
    # p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(12 / 14); t(.975, 2) = 4.30265, half = 4.30265 / sqrt(3).
    found = compare({7: 3, 8: 5, 9: 4}, {9: 3, 8: 2, 7: 1})
    assert (found.n, found.test, found.difference) == (3, "paired t", 2)
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert (found.low, found.high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-5)
    assert found.effect == pytest.approx(2)  # d_z = mean / sd
    assert (found.wilcoxon_p, found.reason, found.note) == (None, None, None)


def test_welch_by_hand():
    # Variances 1 and 4 of three each: squared error 5/3, degrees of freedom
    # (5/3)^2 / ((1/3)^2 / 2 + (4/3)^2 / 2) = 50 / 17. Pooled variance 2.5,
    # g = -4 / sqrt(2.5) * (1 - 3 / 15).
    found = compare({0: 1, 1: 2, 2: 3}, {10: 4, 11: 6, 12: 8})
    assert (found.n, found.test, found.difference) == (3, "Welch t", -4)
    assert found.p == pytest.approx(2 * stats.t.sf(4 / math.sqrt(5 / 3), 50 / 17))
    half = stats.t.ppf(0.975, 50 / 17) * math.sqrt(5 / 3)
    assert (found.low, found.high) == pytest.approx((-4 - half, -4 + half))
    assert found.effect == pytest.approx(-0.8 * 4 / math.sqrt(2.5))
    assert found.wilcoxon_p is None


@pytest.mark.parametrize("n", [2, 5, 6, 20])
def test_agreement_with_scipy(n):
    generator = np.random.default_rng(n)
    x, y = generator.normal(size=n), generator.normal(0.5, 2, size=n)
    found, theirs = compare(of_seeds(x), of_seeds(y)), stats.ttest_rel(x, y)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval()))
    if n >= 6:
        assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(x, y).pvalue)
    else:
        assert found.wilcoxon_p is None
    z = generator.normal(0.5, 2, size=n + 1)
    found = compare(of_seeds(x), {100 + seed: value for seed, value in enumerate(z)})
    theirs = stats.ttest_ind(x, z, equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval()))


def test_the_direction():
    # The first is better by about .02 in each of ten seeds.
    generator = np.random.default_rng(0)
    worse = generator.normal(0.05, 0.01, size=10)
    better = worse + generator.normal(0.02, 0.005, size=10)
    found = compare(of_seeds(better), of_seeds(worse))
    assert 0 < found.low < found.difference < found.high
    assert found.p < 1e-4
    assert found.wilcoxon_p == pytest.approx(2 / 2**10)  # all ten have one sign
    assert found.effect > 1
    mirrored = compare(of_seeds(worse), of_seeds(better))
    assert mirrored.difference == -found.difference
    assert (mirrored.low, mirrored.high) == (-found.high, -found.low)
    assert (mirrored.p, mirrored.wilcoxon_p) == (found.p, found.wilcoxon_p)
    assert mirrored.effect == -found.effect
    # A published script asks whether the better one is "less", and gets a p near 1.
    one_sided = stats.ttest_rel(better, worse, alternative="less").pvalue
    assert one_sided > 0.9999
    assert found.p == pytest.approx(2 * (1 - one_sided), rel=1e-6)


def test_seeds_in_common_are_paired_and_the_rest_is_left_out_aloud():
    found = compare({0: 3, 1: 5, 2: 4, 3: 100}, {0: 1, 1: 2, 2: 3})
    assert (found.test, found.n, found.difference) == ("paired t", 3, 2)
    assert found.note == "paired over the 3 seeds in common; left out: 1 of a and 0 of b"
    # One seed in common is no variation of pairs: all runs, unpaired.
    found = compare({0: 3, 1: 5}, {0: 1, 2: 2})
    assert (found.test, found.difference, found.note) == ("Welch t", 2.5, None)


def test_a_value_that_is_no_number_is_a_missing_run():
    found = compare({0: 3, 1: 5, 2: 4, 3: math.nan}, {0: 1, 1: 2, 2: 3, 3: 1})
    assert (found.n, found.difference) == (3, 2)
    assert found.note is not None


@pytest.mark.parametrize("other", [{0: 1.0}, {5: 1.0}, {0: 1.0, 1: 2.0}])
def test_one_seed_has_no_p_and_says_so(other):
    found = compare({0: 2.5}, other)
    assert (found.n, found.p, found.test, found.effect) == (1, None, "none", None)
    assert found.difference == pytest.approx(2.5 - np.mean(list(other.values())))
    assert "n = 1" in found.reason
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_no_run_has_no_p_either():
    assert "no run" in compare({}, {0: 1.0, 1: 2.0}).reason


@pytest.mark.parametrize("shift", [0, 100])
def test_equal_runs_have_p_1(shift):
    a = {0: 0.1, 1: 0.2, 2: 0.4} if shift == 0 else {0: 0.1, 1: 0.1}
    found = compare(a, {seed + shift: value for seed, value in a.items()})
    assert (found.difference, found.p, found.low, found.high) == (0, 1, 0, 0)
    assert found.test == ("paired t" if shift == 0 else "Welch t")


@pytest.mark.parametrize("shift", [0, 100])
def test_a_constant_difference_has_no_p(shift):
    # Two rankers without randomness: a t test would divide by zero.
    found = compare({0: 0.3, 1: 0.3, 2: 0.3}, {shift + seed: 0.1 for seed in range(3)})
    assert (found.p, found.test) == (None, "none")
    assert found.difference == pytest.approx(0.2)
    assert "the same for every seed" in found.reason


def test_rounding_is_no_variation():
    # .3 - .1 = 0.19999999999999998 and .4 - .2 = 0.2.
    assert compare({0: 0.3, 1: 0.4}, {0: 0.1, 1: 0.2}).p is None


def test_a_method_without_variation_against_one_with():
    x = [0.30, 0.32, 0.35]
    found = compare(of_seeds(x), {7: 0.1, 8: 0.1})
    assert found.test == "Welch t"
    # Its variance of zero leaves the degrees of freedom of the other.
    assert found.p == pytest.approx(stats.ttest_1samp(x, 0.1).pvalue)


@pytest.mark.parametrize("paired", [True, False])
def test_p_is_uniform_where_nothing_differs(paired):
    generator = np.random.default_rng(5)
    found = []
    for x, y in generator.normal(size=(2000, 2, 5)):
        b = of_seeds(y) if paired else {seed + 10: value for seed, value in enumerate(y)}
        found.append(compare(of_seeds(x), b).p)
    # 100 of 2000 are expected below .05, with a standard deviation of 9.7. Welch's test is known to
    # be slightly careful for few runs.
    assert np.mean(np.array(found) < 0.05) == pytest.approx(0.05, abs=0.015)
    assert stats.kstest(found, "uniform").pvalue > 0.01


# ---- several comparisons


def test_holm_by_hand():
    # Sorted .01 x 4, .02 x 3, .03 x 2, .9: the third, .06, is not below the second, .06.
    assert holm([0.03, 0.01, 0.9, 0.02]) == pytest.approx([0.06, 0.04, 0.9, 0.06])
    # .02 x 3 = .06, then .025 x 2 = .05 is lifted to it; .6 stays.
    assert holm([0.025, 0.02, 0.6]) == pytest.approx([0.06, 0.06, 0.6])
    assert holm([0.7, 0.8]) == [1, 1]


def test_what_was_not_tested_does_not_count():
    assert holm([None, 0.01, None, 0.04]) == pytest.approx([None, 0.02, None, 0.04])
    assert holm([None]) == [None]
    assert holm([]) == []


@given(st.lists(st.none() | st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p):
    adjusted = holm(p)
    m = sum(value is not None for value in p)
    pairs = sorted((x, y) for x, y in zip(p, adjusted, strict=True) if x is not None)
    for x, y in pairs:
        assert x <= y <= min(1, m * x)
    assert all(one[1] <= other[1] for one, other in itertools.pairwise(pairs))
    assert [x is None for x in p] == [y is None for y in adjusted]


# ---- users


def frame(gains, users=None, targets=None):
    gains = np.asarray(gains, dtype=float)
    users = np.arange(len(gains)) if users is None else users
    targets = np.ones(len(gains), dtype=int) if targets is None else targets
    return pl.DataFrame({"user": users, "target": targets, "gain": gains})


def as_is(targets):
    return targets["gain"].to_numpy()


def nothing(of):
    return {seed: x.with_columns(gain=pl.lit(0.0)) for seed, x in of.items()}


def test_gains_are_what_the_metrics_average():
    # Ties, and a cold target that an item of the catalogue would have beaten by rank 3.
    targets = pl.DataFrame(
        {
            "user": [0, 0, 1, 2],
            "target": [1, 2, 3, 0],
            "greater": [0, 4, 1, 2],
            "ties": [0, 0, 3, 0],
            "cohort": pl.Series([0, 1, 2, 3], dtype=pl.Int8),
        }
    )
    evaluation = Evaluation(*(targets[name].to_numpy() for name in targets.columns), {})
    metrics = accuracy(evaluation, [2])
    # HR@2: 1 + 0 + 1/4 (positions 2, 3, 4, 5) + 0, of 4.
    assert gain("hr", 2)(targets).tolist() == [1, 0, 0.25, 0]
    assert gain("hr", 2)(targets).mean() == metrics["hr_2"]
    assert gain("ndcg", 2)(targets).mean() == pytest.approx(metrics["ndcg_2"])
    assert gain("mrr")(targets).mean() == pytest.approx(metrics["mrr"])


def test_the_distribution_is_that_of_all_possible_draws():
    # Three users, two seeds, users with one to three targets: 3^3 x 2^2 equally likely draws.
    users = np.array([0, 1, 1, 2, 2, 2])
    gains = {4: [3.0, 1, 0, -1, 0, 2], 9: [1.0, 0, 2, 4, 4, 3]}
    a = {seed: frame(x, users, np.arange(6)) for seed, x in gains.items()}
    found = bootstrap(a, nothing(a), as_is, repeats=20_000)
    outcomes = []
    for drawn in itertools.product(range(3), repeat=3):
        for seeds in itertools.product(gains, repeat=2):
            rows = [x for s in seeds for u in drawn for x in np.array(gains[s])[users == u]]
            outcomes.append(np.mean(rows))
    low, high = np.quantile(outcomes, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high))
    assert found.difference == pytest.approx(np.mean([*gains[4], *gains[9]]))
    assert (found.n_users, found.n_seeds) == (3, 2)


def test_one_seed_agrees_with_the_standard_error():
    gains = np.random.default_rng(3).normal(0.2, 1, size=500)
    a = {0: frame(gains)}
    found = bootstrap(a, nothing(a), as_is, repeats=20_000)
    half = 1.96 * gains.std() / math.sqrt(500)
    assert found.difference == pytest.approx(gains.mean())
    # 20,000 repeats place a 2.5% quantile to 2% of a standard error, half a percent of the width.
    assert found.high - found.low == pytest.approx(2 * half, rel=0.025)
    assert found.low == pytest.approx(gains.mean() - half, abs=0.05 * half)


def test_several_seeds_agree_with_the_variance_of_the_docstring():
    # 200 users, 5 seeds, standard deviations .5 of users, .05 of seeds, 1 of the rest.
    generator = np.random.default_rng(4)
    widths = []
    for _ in range(30):
        user, seed = generator.normal(0, 0.5, 200), generator.normal(0, 0.05, 5)
        a = {s: frame(user + seed[s] + generator.normal(0, 1, 200)) for s in range(5)}
        found = bootstrap(a, nothing(a), as_is, repeats=500)
        widths.append((found.high - found.low) / (2 * 1.96))
    expected = 0.25 / 200 + 0.0025 * 4 / 25 + 13 / (200 * 25)
    assert np.mean(np.square(widths)) == pytest.approx(expected, rel=0.1)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(6)
    held = []
    for repeat in range(300):
        user, seed = generator.normal(0, 1, 200), generator.normal(0, 0.1, 5)
        a = {s: frame(0.3 + user + seed[s] + generator.normal(0, 1, 200)) for s in range(5)}
        found = bootstrap(a, nothing(a), as_is, repeats=400, seed=repeat)
        held.append(found.low <= 0.3 <= found.high)
    # 285 of 300 are expected, with a standard deviation of 3.8.
    assert 0.91 <= np.mean(held) <= 0.99


def test_a_user_with_ten_times_the_targets_is_still_one_user():
    gains = np.random.default_rng(1).normal(size=60)
    once = {0: frame(gains), 1: frame(gains[::-1])}
    often = {seed: pl.concat([x] * 10) for seed, x in once.items()}
    one, ten = (bootstrap(a, nothing(a), as_is) for a in (once, often))
    assert (one.difference, one.low, one.high) == pytest.approx((ten.difference, ten.low, ten.high))
    # As users of their own they would be taken for ten times the evidence.
    fooled = {s: x.with_columns(user=pl.int_range(600)) for s, x in often.items()}
    many = bootstrap(fooled, nothing(fooled), as_is)
    assert many.high - many.low < 0.6 * (one.high - one.low)


def test_both_methods_see_the_same_draw():
    generator = np.random.default_rng(2)
    a = {seed: frame(generator.normal(size=80)) for seed in range(3)}
    b = {seed: x.with_columns(gain=pl.col("gain") - 0.1) for seed, x in a.items()}
    found = bootstrap(a, b, as_is)
    assert (found.difference, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    mirrored = bootstrap(b, a, as_is)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_the_bootstrap_is_repeatable_and_reads_rows_in_any_order():
    generator = np.random.default_rng(2)
    a = {s: frame(generator.normal(size=50), targets=np.arange(50)) for s in range(2)}
    b = nothing(a)
    found = bootstrap(a, b, as_is, seed=3)
    assert bootstrap(a, {s: x.reverse() for s, x in b.items()}, as_is, seed=3) == found
    assert bootstrap(a, b, as_is, seed=4) != found


def test_seeds_of_one_method_only_are_left_out():
    a = {seed: frame([seed, seed + 1.0]) for seed in range(3)}
    found = bootstrap(a, nothing({1: a[1], 7: a[2]}), as_is)
    assert (found.n_seeds, found.difference) == (1, 1.5)
    with pytest.raises(InputError, match=r"no seed in common: \[0, 1, 2\] and \[7\]"):
        bootstrap(a, {7: a[1]}, as_is)


def test_other_targets_are_refused():
    a = {0: frame([1.0, 2.0]), 3: frame([1.0, 2.0])}
    for other in (frame([1.0, 2.0], targets=[1, 2]), frame([1.0, 2.0], users=[0, 2]), a[0][:1]):
        with pytest.raises(InputError, match="seed 3 have different test targets"):
            bootstrap(a, {0: a[0], 3: other}, as_is)


def test_no_targets_are_no_interval():
    found = bootstrap({0: frame([])}, {0: frame([])}, as_is)
    assert found.n_users == 0
    assert math.isnan(found.difference)


def test_a_real_size_takes_seconds_and_bounded_memory():
    generator = np.random.default_rng(0)
    a = {seed: frame(generator.random(22_363) < 0.1) for seed in range(5)}
    b = nothing(a)
    start = time.perf_counter()
    tracemalloc.start()
    bootstrap(a, b, as_is, repeats=2000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert time.perf_counter() - start < 10  # 0.4 s on two cores, without the tracing
    assert peak < 150e6  # all weights at once would be 358 MB


# ---- data sets

# Demsar (2006), table 6: AUC of C4.5 and its variants with m, cf, and both tuned. The last but one
# has .975 twice in print and the ranks 2 and 3, so the digit that is not printed stands here as 1.
DEMSAR = [
    [0.763, 0.768, 0.771, 0.798],
    [0.599, 0.591, 0.590, 0.569],
    [0.954, 0.971, 0.968, 0.967],
    [0.628, 0.661, 0.654, 0.657],
    [0.882, 0.888, 0.886, 0.898],
    [0.936, 0.931, 0.916, 0.931],
    [0.661, 0.668, 0.609, 0.685],
    [0.583, 0.583, 0.563, 0.625],
    [0.775, 0.838, 0.866, 0.875],
    [1.000, 1.000, 1.000, 1.000],
    [0.940, 0.962, 0.965, 0.962],
    [0.619, 0.666, 0.614, 0.669],
    [0.972, 0.981, 0.9751, 0.975],
    [0.957, 0.978, 0.946, 0.970],
]


def test_demsars_own_example():
    found = critical_difference(np.array(DEMSAR), ["C4.5", "m", "cf", "m+cf"])
    assert found.names == ("m+cf", "m", "cf", "C4.5")
    # Average ranks of his table; CD = 2.569 sqrt(4 x 5 / (6 x 14)) = 1.25.
    assert found.mean_ranks == pytest.approx((1.964, 2.000, 2.893, 3.143), abs=5e-4)
    assert found.cd == pytest.approx(2.569 * math.sqrt(20 / 84), abs=1e-3)
    # His statistic is 9.28 (p = .026); scipy corrects for the ties.
    assert 0.015 < found.p < 0.026
    # Best against worst is 1.18 < 1.25: at 5% nobody differs.
    assert found.groups == (found.names,)
    assert found.n == 14


@pytest.mark.parametrize(
    ("n", "groups"),
    [
        # Ranks 1, 2, 3, 4 on every data set; CD = 2.569 sqrt(20 / (6 n)).
        (5, (("a", "b", "c"), ("b", "c", "d"))),  # 2.10
        (20, (("a", "b"), ("b", "c"), ("c", "d"))),  # 1.05
        (25, ()),  # 0.94
    ],
)
def test_groups_by_hand(n, groups):
    scores = np.tile([0.1, 0.4, 0.2, 0.3], (n, 1))
    found = critical_difference(scores, ["d", "a", "c", "b"])
    assert found.mean_ranks == (1, 2, 3, 4)
    assert found.groups == groups


def test_methods_that_tie_are_one_group():
    found = critical_difference(np.ones((6, 3)), ["a", "b", "c"])
    assert (found.p, found.mean_ranks, found.groups) == (1, (2, 2, 2), (("a", "b", "c"),))


def test_no_pair_differs_where_friedman_does_not_reject():
    ranks = [[2, 3, 4, 1], [3, 4, 2, 1], [2, 4, 3, 1], [2, 4, 1, 3], [4, 3, 2, 1]]
    found = critical_difference(-np.array(ranks), ["a", "b", "c", "d"])
    # Mean ranks 2.6, 3.6, 2.4, 1.4. Friedman's statistic is
    # 12 x 5 / (4 x 5) x (6.76 + 12.96 + 5.76 + 1.96) - 3 x 5 x 5 = 7.32, p = .0624.
    assert found.p == pytest.approx(stats.chi2.sf(7.32, 3))
    # Best and worst are 2.2 apart, and CD = 2.569 sqrt(20 / 30) = 2.10.
    assert found.mean_ranks[-1] - found.mean_ranks[0] > found.cd
    assert found.groups == (("d", "c", "a", "b"),)


@pytest.mark.parametrize("shape", [(4, 3), (5, 2)])
def test_too_few_for_a_critical_difference(shape):
    with pytest.raises(ValueError, match="needs 5 data sets and 3 methods"):
        critical_difference(np.ones(shape), ["a", "b", "c"][: shape[1]])


def test_a_missing_score_is_refused():
    scores = np.ones((5, 3))
    scores[2, 1] = np.nan
    with pytest.raises(ValueError, match="a score on every data set"):
        critical_difference(scores, ["a", "b", "c"])


def test_several_at_once_are_what_each_is_alone():
    generator = np.random.default_rng(3)
    # Two targets of some users; c lacks a seed, d has no seed of the best's.
    users = np.repeat(np.arange(30), 2)[:50]
    targets = np.arange(50)

    def method(seeds):
        return {s: frame(generator.random(50), users, targets) for s in seeds}

    best, several = method([0, 1, 2]), {"a": method([0, 1, 2]), "b": method([2, 1, 0])}
    several |= {"c": method([0, 2]), "d": method([7])}
    # The order of a run's targets does not matter.
    several["b"][1] = several["b"][1].reverse()
    found = bootstrap_each(several, best, as_is, repeats=300, seed=5)
    assert found.keys() == {"a", "b", "c"}
    for name, interval in found.items():
        alone = bootstrap(several[name], best, as_is, repeats=300, seed=5)
        assert (interval.n_users, interval.n_seeds) == (alone.n_users, alone.n_seeds)
        for end in ("difference", "low", "high"):
            assert getattr(interval, end) == pytest.approx(getattr(alone, end), rel=1e-12)
    gains = [several["c"][s]["gain"].to_numpy() - best[s]["gain"].to_numpy() for s in (0, 2)]
    assert found["c"].difference == pytest.approx(np.mean(gains))
