from collections import Counter
from random import Random

import polars as pl
import pytest

from negrec.data.preparation import Least, Preparation


def prepared(rows, tmp_path, names=("user_id", "item_id", "timestamp"), **steps):
    table = pl.LazyFrame(rows, schema=list(names), orient="row")
    Preparation(**steps).run(table, tmp_path / "out.parquet")
    return pl.read_parquet(tmp_path / "out.parquet").rows()


def test_by_user_and_time_and_of_equal_times_as_the_file_has_them(tmp_path):
    rows = [("b", 1, 5), ("a", 2, 9), ("b", 3, 4), ("a", 4, 9), ("a", 5, 8), ("b", 6, 4)]
    # user, item, time, position in the user's order
    assert prepared(rows, tmp_path) == [
        ("a", 5, 8, 0),
        ("a", 2, 9, 1),
        ("a", 4, 9, 2),
        ("b", 3, 4, 0),
        ("b", 6, 4, 1),
        ("b", 1, 5, 2),
    ]


def test_many_equal_times_stay_as_the_file_has_them(tmp_path):
    # More than a sort takes one by one: a few rows stay in order by themselves.
    rows = [(n % 3, n, n // 7 % 2) for n in range(20_000)]
    kept = prepared(rows, tmp_path)
    assert [row[:3] for row in kept] == sorted(rows, key=lambda row: (row[0], row[2], row[1]))


def test_of_duplicates_of_one_time_the_first_of_the_file_stays(tmp_path):
    rows = [(n % 3, 7, 5, n) for n in range(20_000)]
    names = ("user_id", "item_id", "timestamp", "rating")
    for duplicates in ("exact", "first"):
        kept = prepared(rows, tmp_path, names, duplicates=duplicates)
        assert [row[3] for row in kept] == [0, 1, 2]


def test_without_times_the_file_has_the_order(tmp_path):
    rows = [(2, 9), (1, 8), (2, 7)]
    assert prepared(rows, tmp_path, ("user_id", "item_id")) == [(1, 8, 0), (2, 9, 0), (2, 7, 1)]


def test_bounds_of_time_are_inclusive(tmp_path):
    day = 86_400
    rows = [(1, item, item * day) for item in range(5)]
    kept = prepared(rows, tmp_path, since="1970-01-02", until="1970-01-04T00:00:00")
    assert [item for _, item, _, _ in kept] == [1, 2, 3]


@pytest.mark.parametrize(
    ("duplicates", "times"),
    [("keep", [1, 3, 3, 5]), ("exact", [1, 3, 5]), ("first", [1])],
)
def test_duplicates(tmp_path, duplicates, times):
    rows = [(1, 7, 5), (1, 7, 3), (1, 7, 1), (1, 7, 3)]
    assert [row[2] for row in prepared(rows, tmp_path, duplicates=duplicates)] == times


# Users 1 and 2 took items 1, 2 and 3, and user 3 items 3 and 4.
SMALL = [(u, i, 0) for u in (1, 2) for i in (1, 2, 3)] + [(3, 3, 0), (3, 4, 0)]


@pytest.mark.parametrize(
    ("least", "pairs"),
    [
        ([], {(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 3), (3, 4)}),
        ([Least(users=3)], {(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)}),
        # Item 4 goes; user 3 had two rows when it was counted and stays with one.
        ([Least(2, 2)], {(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3), (3, 3)}),
        ([Least(2, 2, repeat=True)], {(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)}),
        ([Least(items=2), Least(users=2)], {(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)}),
        ([Least(4, 4, repeat=True)], set()),
    ],
)
def test_users_and_items_with_few_rows(tmp_path, least, pairs):
    assert {row[:2] for row in prepared(SMALL, tmp_path, least=least)} == pairs


def test_the_core_against_a_plain_loop(tmp_path):
    draw = Random(0)
    rows = [(int(draw.expovariate(0.05)), int(draw.expovariate(0.05)), 0) for _ in range(600)]
    left = rows
    while True:
        users, items = (Counter(row[i] for row in left) for i in (0, 1))
        kept = [row for row in left if users[row[0]] >= 5 and items[row[1]] >= 5]
        if kept == left:
            break
        left = kept
    assert 0 < len(left) < len(rows) - 50
    found = prepared(rows, tmp_path, least=[Least(5, 5, repeat=True)])
    assert sorted(row[:2] for row in found) == sorted(row[:2] for row in left)
