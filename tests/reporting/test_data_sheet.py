"""Tables and sentences of made-up numbers."""

import json
from dataclasses import replace

import pytest

from negrec.data.interactions import Cleaning, Counts
from negrec.data.order import Left, Shuffled
from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.data.statistics import Lengths, Statistics, Times
from negrec.evaluation.shuffling import OrderEffect
from negrec.reporting.data_sheet import Asked, Described, Part, advice, as_dict, markdown, sheets
from tests.data.made import interactions

DAY = 86_400 * 10**6


def order(original: float, *left: float) -> tuple[Shuffled, Shuffled]:
    return tuple(Shuffled(n, Left(original, left), Left(original, left)) for n in (2, 3))


def described(**changes: object) -> Described:
    data = interactions([(u, i) for u in range(3) for i in range(4)])
    part = Part.of(LeaveOneOut()(data, 50, 0))
    return replace(
        Described(
            "shop",
            "0123",
            Counts(100, 50, 1000),
            Cleaning(Counts(100, 50, 1000)),
            "filter",
            Statistics(Lengths(3, 5, 6, 9, 20, 10.0), 0.8, Times(0, 9 * DAY, 0.0, False), 0, 0.0),
            50,
            {"leave_one_out": part, "global_temporal": "shop: it needs timestamps"},
            order(100, 10, 12),
            order(100, 100, 100),
            None,
        ),
        **changes,
    )


def said(**changes: object) -> str:
    return "\n".join(advice(described(**changes)))


def test_nothing_but_order_to_say_of_plain_data():
    assert said() == "shuffling leaves 11.0% of the 2-gram rules: order matters here"


def test_what_a_person_must_decide():
    plain = described()
    cleaning = replace(plain.cleaning, repeats=80)
    assert "8.0% of the interactions repeat an earlier one" in said(cleaning=cleaning, seen="keep")
    assert "evaluation.seen=keep" in said(cleaning=cleaning, seen="keep")
    short = replace(plain.statistics, short=20, cut=0.3)
    assert "20 users (20.0%) have fewer than 3" in said(statistics=short)
    assert "30.0% of the interactions lie before the newest 50" in said(statistics=short)
    part = plain.parts["leave_one_out"]
    leak = replace(part.leak, later_than_test=0.4, test_targets=100, test_cold=7, test_left_out=300)
    text = said(splits={"leave_one_out": replace(part, leak=leak)})
    assert "leave_one_out trains on the future: 40.0%" in text
    assert "7.0% of the test targets of leave_one_out are outside" in text
    assert "leaves out 75.0% of the users of its test period" in text


def test_equal_times_and_whole_days():
    times = Times(0, 9 * DAY, 0.575, True)
    numbers = replace(described().statistics, times=times)
    assert (
        "times are whole days: 57.5% of the interactions share theirs with another of the user, "
        "and the order within a day is the file's; without it 52.0% of the 2-gram rules are left"
    ) in said(statistics=numbers, equal_times=order(100, 50, 54))
    without = replace(numbers, times=None)
    assert "there are no times" in said(statistics=without, equal_times=None)


def test_what_shuffling_says():
    assert "order carries little here" in said(order=order(100, 25, 35))
    assert "too few items follow" in said(order=order(19, 0, 0))
    # Rules are rare, pairs are not.
    few, many = Left(3, (0, 0)), Left(60, (30, 30))
    text = said(order=(Shuffled(2, many, few), Shuffled(3, few, few)))
    assert "shuffling leaves 50.0% of the 2-grams seen > 5 times: order carries little" in text


@pytest.mark.parametrize(
    ("after", "words"), [(0.09, "by -10% only"), (0.05, "by -50%"), (0.11, "by +10% only")]
)
def test_what_a_model_says(after: float, words: str):
    effect = OrderEffect(Left(0.2, (0.2,)), Left(0.1, (after,)), (0.5,))
    text = said(asked=Asked("sasrec", "ab12", effect))
    assert f"shuffled histories change NDCG@10 of sasrec {words}" in text
    nothing = OrderEffect(Left(0.0, (0.0,)), Left(0.0, (0.0,)), (0.5,))
    assert "ranks no target among its first 10" in said(asked=Asked("sasrec", "ab12", nothing))


def test_tables_hold_every_set_and_split():
    other = described(name="other")
    data, leaks, cohorts, rules = sheets([described(), other])
    assert data.header == ["", "shop", "other"]
    assert ["sparsity: empty user-item pairs", "80.00%", "80.00%"] in data.groups[0]
    # 4 items of 3 users; all but the last two are learnt from: 6; 2 of the 4 never occur.
    assert leaks.groups[0] == [
        ["shop", "leave_one_out", "6", "3", "3", "0.0%", "100.0%", "-"],
    ]
    assert "shop: it needs timestamps" in leaks.notes
    # Items 0 and 1 have 3 each: more than a third, so both are head; the others are tail.
    assert cohorts.groups[1][0][:5] == ["other", "leave_one_out", "50.0%", "0.0%", "50.0%"]
    assert cohorts.groups[1][0][5:] == ["100.0%", "-", "0.0%", "0.50"]
    assert rules.groups[0][1] == ["  shuffled", *["11.0 ± 1.4 (11.0%)"] * 2]


def test_the_file_is_json_and_the_page_markdown():
    text = json.dumps(as_dict([described()], seed=3), allow_nan=False)
    (found,) = json.loads(text)["datasets"]
    assert found["counts"] == {"users": 100, "items": 50, "interactions": 1000}
    assert found["splits"]["global_temporal"] == {"refused": "shop: it needs timestamps"}
    # A cohort without items has no median.
    assert found["splits"]["leave_one_out"]["cohorts"]["mid"]["median_users"] is None
    rules = found["order"]["shuffled_histories"][0]["rules"]
    assert (rules["original"], rules["shuffled"], rules["mean"]) == (100, [10, 12], 11)
    assert found["advice"] == list(advice(described()))
    page = markdown([described(name="a|b")], "popularity.svg")
    assert "![Popularity of items](popularity.svg)" in page
    row = next(line for line in page.splitlines() if line.startswith("| users |"))
    assert row == "| users | 100 |"
    assert "|  | a&#124;b |" in page
    assert "| items head | items mid | items tail |" in page
