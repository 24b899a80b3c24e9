from collections import Counter
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negrec.data.cleaning import Rules, clean
from negrec.data.columns import Columns, find
from negrec.data.interactions import Cleaning, Counts
from negrec.data.readers.base import ROW
from negrec.errors import InputError
from tests.data import made

PATH = Path("clicks.csv")


def cleaned(frame, columns=None, **rules):
    table = pl.DataFrame(frame).with_row_index(ROW, 1).lazy()
    return clean("clicks", PATH, table, find(PATH, table, columns or Columns()), Rules(**rules))


def test_index_and_order():
    data = cleaned(
        {
            "user": ["b", "a", "a", "a", "a"],
            "item": ["y", "x", "z", "y", "x"],
            "timestamp": [5, 9, 7, 7, 7],
            "position": [0, 0, 2, 1, 2],
        }
    )
    assert data.user_ids.to_list() == ["a", "b"]
    assert data.item_ids.to_list() == ["x", "y", "z"]
    assert data.user.tolist() == [0, 0, 0, 0, 1]
    # By time, then position, then row: y (7, 1), z (7, 2) before x (7, 2), x (9, 0).
    assert data.item.tolist() == [1, 2, 0, 0, 1]
    assert data.timestamp.tolist() == [7 * 10**6] * 3 + [9 * 10**6, 5 * 10**6]
    assert data.offsets.tolist() == [0, 4, 5]
    # x again is the one repeat.
    assert data.cleaning == Cleaning(Counts(2, 3, 5), repeats=1)


def test_equal_times_do_not_hang_on_how_polars_sorts(monkeypatch):
    # A sort that was not asked to keep equal rows in order may do with them what it likes.
    sort = pl.DataFrame.sort

    def unkind(frame, *by, maintain_order=False, **more):
        return sort(frame if maintain_order else frame.reverse(), *by, maintain_order=True, **more)

    monkeypatch.setattr(pl.DataFrame, "sort", unkind)
    rows = [(2, 5, 9), (1, 6, 9), (2, 4, 8), (1, 3, 9), (2, 7, 9), (2, 6, 8)]
    assert made.own_ids(made.interactions(rows)) == [
        (1, 6, 9), (1, 3, 9), (2, 4, 8), (2, 6, 8), (2, 5, 9), (2, 7, 9),
    ]  # fmt: skip


def test_without_times_the_rows_order_counts():
    assert made.own_ids(made.interactions([(2, 5), (1, 6), (2, 4), (1, 3)])) == [
        (1, 6), (1, 3), (2, 5), (2, 4),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ids", "own"),
    [
        (["10", "9", "9"], [9, 10]),
        (["007", "7", "7"], ["007", "7"]),
        (["9", "10", "x"], ["10", "9", "x"]),
        ([10.0, 9.0, 9.0], [9, 10]),
        ([0.5, 9.0, 9.0], [0.5, 9.0]),
        ([2**63 + 1, 7, 7], [7, 2**63 + 1]),
        (["ü ß", '"', "🎈"], ['"', "ü ß", "🎈"]),
    ],
)
def test_ids_of_any_kind(ids, own):
    data = cleaned({"user": ids, "item": ids})
    assert data.user_ids.to_list() == own
    assert data.user_ids.gather(data.user).to_list() == sorted(data.user_ids.gather(data.user))
    assert data.item_ids.to_list() == own


def test_categories_are_ids():
    ids = pl.Series(["b", "a"], dtype=pl.Categorical)
    assert cleaned({"user": ids, "item": ids}).item_ids.to_list() == ["a", "b"]


REPEATED = [(1, 7, 1), (1, 8, 2), (1, 7, 3), (1, 7, 3), (2, 7, 4)]


@pytest.mark.parametrize(
    ("duplicates", "kept", "dropped", "repeats"),
    [
        ("keep", [0, 1, 2, 3, 4], 0, 2),
        ("exact", [0, 1, 2, 4], 1, 1),
        ("first", [0, 1, 4], 2, 0),
        ("last", [1, 3, 4], 2, 0),
        ("consecutive", [0, 1, 2, 4], 1, 1),
    ],
)
def test_duplicates(duplicates, kept, dropped, repeats):
    data = made.interactions(REPEATED, duplicates=duplicates)
    assert made.own_ids(data) == [REPEATED[row] for row in kept]
    assert (data.cleaning.duplicates, data.cleaning.repeats) == (dropped, repeats)
    assert data.cleaning.read == Counts(2, 2, 5)


def test_consecutive_repeats_are_those_of_one_user():
    # In order of time user 1 takes 7 7 8 7, user 2 takes 7 7.
    rows = [(1, 7, 1), (2, 7, 9), (1, 7, 2), (1, 7, 4), (1, 8, 3), (2, 7, 8)]
    data = made.interactions(rows, duplicates="consecutive")
    assert made.own_ids(data) == [(1, 7, 1), (1, 8, 3), (1, 7, 4), (2, 7, 8)]
    assert data.cleaning.duplicates == 2


def test_ratings():
    frame = {
        "user": [1, 2, 3, 4, 5],
        "item": [1, 2, 3, 4, 4],
        "rating": [4.0, 3.9, None, float("nan"), 5.0],
    }
    data = cleaned(frame, min_rating=4)
    assert made.own_ids(data) == [(1, 1), (5, 4)]
    assert data.cleaning.below_rating == 3


def test_an_empty_text_is_no_rating():
    # As "" in a CSV file: missing, and so below every threshold.
    frame = {"user": [1, 2, 3], "item": [1, 2, 3], "rating": ["5", "", "4"]}
    data = cleaned(frame, min_rating=4)
    assert made.own_ids(data) == [(1, 1), (3, 3)]


def test_the_core_is_a_fixed_point():
    # Item 9 has one row; without it user 3 has one, without user 3 item 8 has one, and so on:
    # only users 1 and 2 with items 5 and 6 remain.
    rows = [(1, 5), (1, 6), (2, 5), (2, 6), (2, 8), (3, 8), (3, 9)]
    data = made.interactions(rows, min_interactions=2)
    assert made.own_ids(data) == rows[:4]
    assert (data.cleaning.core, data.cleaning.outside_core) == (2, 3)
    assert data.lines() == [
        "read 3 users, 4 items, 7 interactions; dropped 3 outside the 2-core"
    ]  # fmt: skip


def slow_core(rows, k):
    while True:
        users, items = Counter(u for u, _ in rows), Counter(i for _, i in rows)
        kept = [(u, i) for u, i in rows if users[u] >= k and items[i] >= k]
        if kept == rows:
            return kept
        rows = kept


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60),
    st.integers(1, 4),
)
def test_the_core_of_anything(rows, k):
    expected = sorted(slow_core(rows, k), key=lambda row: row[0])
    if len({item for _, item in expected}) < 2:
        with pytest.raises(InputError, match=r"nothing is left|a single item"):
            made.interactions(rows, min_interactions=k)
    else:
        assert made.own_ids(made.interactions(rows, min_interactions=k)) == expected


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("user", ["a", None, "b"], r"clicks.csv, column 'user', row 2: has no value; remove it"),
        ("user", ["a", "", None], "column 'user', row 2 and 1 more: has no value"),
        ("item", [1.0, 2.0, float("nan")], "column 'item', row 3: has no value"),
        ("item", [[1], [2], [3]], "column 'item': ids are single values"),
        ("timestamp", ["5", "soon", "7"], "column 'timestamp', row 2: 'soon' is no time; give"),
        ("timestamp", [5, None, 7], "column 'timestamp', row 2: None is no time"),
        ("position", ["0", "1", "end"], "column 'position', row 3: 'end' is no number"),
        ("rating", ["4", "good", None], "column 'rating', row 2: 'good' is no number"),
    ],
)
def test_values_that_cannot_be_used(column, values, message):
    frame = {
        "user": ["a", "b", "c"],
        "item": ["x", "y", "z"],
        "timestamp": [1, 2, 3],
        "position": [0, 0, 0],
        "rating": [5, 5, 5],
    }
    columns = Columns("user", "item", "timestamp", "position", "rating")
    with pytest.raises(InputError, match=message) as caught:
        cleaned({**frame, column: values}, columns, min_rating=3)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "rules", "message"),
    [
        ({"user": [1, 2], "item": [7, 7]}, {}, "there is a single item, 7, in column 'item'"),
        ({"user": [1, 2], "item": [7, 8]}, {"min_interactions": 2}, "nothing is left of its 2 r"),
        ({"user": [1, 2], "item": [7, 8]}, {"min_rating": 2}, "min_rating needs a column of rat"),
        (
            {"user": pl.Series([], dtype=pl.Int64), "item": pl.Series([], dtype=pl.Int64)},
            {},
            "clicks.csv has a header and no rows",
        ),
    ],
)
def test_too_little(frame, rules, message):
    with pytest.raises(InputError, match=message):
        cleaned(frame, **rules)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            {"duplicates": "drop"},
            "duplicates must be one of keep, exact, first, last, consecutive, got 'drop'",
        ),
        ({"min_interactions": 0}, "min_interactions must be at least 1 or null, got 0"),
    ],
)
def test_rules_are_checked(rules, message):
    with pytest.raises(ValueError, match=message):
        Rules(**rules)
