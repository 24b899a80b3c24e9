"""Numbers and names as people read them."""

import math

import pytest

from negrec.reporting import wording


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hr_10", "HR@10"),
        ("ndcg_10_head", "NDCG@10 head"),
        ("mrr", "MRR"),
        ("balance_5", "balance@5"),
        ("loss_10", "loss_10"),  # not one of ours
    ],
)
def test_metrics(name, expected):
    assert wording.metric(name) == expected


@pytest.mark.parametrize(("name", "k"), [("hr_10", 10), ("ndcg_5_tail", 5), ("mrr", None)])
def test_cutoffs(name, k):
    assert wording.cutoff(name) == k


def test_fractions_and_differences():
    assert wording.percent(0.0438, 0.00094) == "4.38 ± 0.09"
    assert wording.percent(0.0438) == "4.38"
    assert wording.percent(math.nan, 0.1) == "–"
    assert wording.points(-0.0123) == "−1.23"
    assert wording.points(0.0123) == "+1.23"
    assert wording.points(math.nan) == "–"
    assert wording.interval(-0.01, 0.02) == "[−1.00, +2.00]"
    assert wording.interval(math.nan, math.nan) == "–"


@pytest.mark.parametrize(
    ("p", "expected"), [(None, "–"), (0.0, "< 0.001"), (0.001, "0.001"), (0.0742, "0.074")]
)
def test_a_p_value_is_never_zero(p, expected):
    assert wording.p_value(p) == expected


def test_times():
    assert [wording.seconds(x) for x in (0.351, 4.93, 148.2)] == ["0.35 s", "4.9 s", "148 s"]
    assert [wording.duration(x) for x in (8.0, 12.0, 252.0, 9000.0)] == [
        *("8.0 s", "12 s", "4.2 min", "2.5 h"),
    ]
    assert wording.duration(math.nan) == wording.seconds(math.nan) == "–"


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (0.5, "half"),
        (1 / 3, "a third"),
        (0.25, "a quarter"),
        (0.8, "80 % of it"),
        (0.001, "less than 1 % of it"),
    ],
)
def test_shares_of_cost(ratio, expected):
    assert wording.share(ratio) == expected


def test_lists_and_counts():
    assert wording.listed(["a"]) == "a"
    assert wording.listed(["a", "b", "c"]) == "a, b and c"
    assert wording.whole([5, 5]) == "5"
    assert wording.whole([5, 3]) == "3 to 5"
    assert wording.counted(1, "trial") == "1 trial"
    assert wording.counted(1000, "run") == "1,000 runs"
    assert wording.negatives(256.0) == "256 negatives"
    assert wording.negatives(math.inf) == "the whole catalogue or batch"
