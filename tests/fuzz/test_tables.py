"""Any table is read as a plain reading has it, or refused in one line."""

from __future__ import annotations

import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import event, note
from hypothesis import strategies as st

from negrec.data.columns import Columns
from negrec.data.interactions import Interactions
from negrec.data.splits.base import Split
from negrec.data.splits.global_temporal import GlobalTemporal
from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.data.tables import load
from negrec.errors import InputError
from tests.data.made import held, trained
from tests.fuzz.examples import few, many
from tests.fuzz.tables import Row, Table, histories, tables

RULES = st.fixed_dictionaries(
    {
        "min_rating": st.none() | st.sampled_from([-5.0, 0.5, 3.0]),
        "duplicates": st.sampled_from(["keep", "exact", "first", "last"]),
        "min_interactions": st.none() | st.integers(1, 4),
    }
)
FRACTIONS = st.sampled_from([(0.9, 0.05, 0.05), (0.6, 0.2, 0.2), (0.34, 0.33, 0.33)])
TEMPORAL = st.fixed_dictionaries(
    {
        "fractions": FRACTIONS,
        "target": st.sampled_from(["last", "first", "random", "successive", "all"]),
        "catalogue": st.sampled_from(["all", "train"]),
        "count": st.sampled_from(["interactions", "users"]),
        "min_history": st.integers(1, 3),
    }
)
LEAVE = st.fixed_dictionaries(
    {
        "catalogue": st.sampled_from(["all", "train"]),
        "count": st.sampled_from(["interactions", "users"]),
        "validation_users": st.none() | st.integers(1, 4),
    }
)
ASKED = {"table": tables(), "rules": RULES, "leave": LEAVE, "temporal": TEMPORAL}


@few(80, **ASKED)
def test_some_tables(table, rules, leave, temporal):
    holds(table, rules, leave, temporal)


@many(1500, **ASKED)
def test_many_tables(table, rules, leave, temporal):
    holds(table, rules, leave, temporal)


def holds(
    table: Table, rules: dict[str, Any], leave: dict[str, Any], temporal: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        path = table.write(folder)
        data = None
        with refusals(table):
            data = read(table, path, folder, rules)
        if data is None:
            assert refusable(table, rules)
            return
        event("read")
        wanted = filtered(table.rows(), rules)
        assert not table.refused
        assert not table.missing or whole_rows_missing(table)
        if table.ordered and not table.missing:
            same(data, wanted, "timestamp" in table.columns and table.columns["timestamp"].moments)
        again = read(table, path, folder, rules)  # from the cache
        assert again.hash == data.hash
        for name in ("leave_one_out", "global_temporal"):
            divided(data, name, leave if name == "leave_one_out" else temporal)


def read(table: Table, path: Path, folder: Path, rules: dict[str, Any]) -> Interactions:
    named = {role: table.names.get(role) for role in ("timestamp", "position", "rating")}
    columns = Columns(table.names["user"], table.names["item"], **named)
    return load(None, str(path), columns, folder / "cache", folder, **rules)


@contextmanager
def refusals(table: Table) -> Iterator[None]:
    """A refusal is one line that names the file, and no other error may come."""
    try:
        yield
    except InputError as error:
        event("refused")
        text = str(error)
        note(text)
        assert "clicks" in text, text
        assert "Traceback" not in text, text


def refusable(table: Table, rules: dict[str, Any]) -> bool:
    """Whether there is a reason to refuse a table."""
    if table.missing or table.refused or not table.ordered:
        return True
    if "timestamp" in table.columns and not table.columns["timestamp"].moments:
        return True
    if rules["min_rating"] is not None and "rating" not in table.columns:
        return True
    left = filtered(table.rows(), rules)
    return len({row.item for row in left}) < 2


def whole_rows_missing(table: Table) -> bool:
    """An empty line of a text file is no row."""
    empty = [
        not any(texts) for texts in zip(*(c.text for c in table.columns.values()), strict=True)
    ]
    return table.as_text and any(empty)


def filtered(rows: Sequence[Row], rules: dict[str, Any]) -> list[Row]:
    """The rules, as their documentation has them."""
    left = [row for own in histories(rows).values() for row in own]
    if rules["min_rating"] is not None:
        left = [r for r in left if isinstance(r.rating, float) and r.rating >= rules["min_rating"]]
    match rules["duplicates"]:
        case "exact":
            left = list(dict.fromkeys((r.user, r.item, r.moment, r.position) for r in left))
            left = [Row(*four, None) for four in left]
        case "first":
            first = {(r.user, r.item): r for r in reversed(left)}
            left = [r for r in left if first[r.user, r.item] is r]
        case "last":
            last = {(r.user, r.item): r for r in left}
            left = [r for r in left if last[r.user, r.item] is r]
    k = rules["min_interactions"] or 0
    while True:
        users, items = Counter(r.user for r in left), Counter(r.item for r in left)
        kept = [r for r in left if users[r.user] >= k and items[r.item] >= k]
        if len(kept) == len(left):
            return left
        left = kept


def same(data: Interactions, rows: Sequence[Row], moments: bool) -> None:
    """The interactions are these rows, in order, at their moments where those are known."""
    wanted = histories(rows)
    users, items = data.user_ids.to_list(), data.item_ids.to_list()
    assert len(set(users)) == len(users)
    assert len(set(items)) == len(items)
    assert users == sorted(users)
    assert items == sorted(items)
    assert set(users) == set(wanted)
    assert set(items) == {row.item for row in rows}
    begin = [*data.offsets.tolist()]
    for user, (a, b) in zip(users, pairwise(begin), strict=True):
        own = wanted[user]
        assert [items[i] for i in data.item[a:b]] == [row.item for row in own], user
        if moments:
            assert data.timestamp is not None
            assert data.timestamp[a:b].tolist() == [row.moment for row in own]


def divided(data: Interactions, name: str, asked: dict[str, Any]) -> None:
    """Nothing of what is held out is learnt from, and nothing is lost."""
    try:
        split: Split = (LeaveOneOut if name == "leave_one_out" else GlobalTemporal)(**asked)(
            data, max_length=5, seed=0
        )
    except InputError:
        event(f"{name} refused")
        return
    event(name)
    items = data.item_ids.to_list()
    ends = list(pairwise(data.offsets.tolist()))
    catalogue = {items[i] for i in split.catalogue}
    learnt = trained(data, split)
    assert catalogue <= set(items)
    for target in (*split.valid.target.tolist(), *split.test.target.tolist()):
        assert 0 <= target <= split.info.n_items
    n_train = sum(map(len, learnt.values()))
    assert n_train == split.leak.train_interactions
    for user, (a, b) in zip(data.user_ids.to_list(), ends, strict=True):
        own = [items[i] for i in data.item[a:b]]
        assert learnt[user] == own[: len(learnt[user])]  # what is learnt comes first
    told = Counter(item for own in learnt.values() for item in own)
    if asked["count"] == "users":
        told = Counter(item for own in learnt.values() for item in set(own))
    counts = dict(zip((items[i] for i in split.catalogue), split.info.counts.tolist(), strict=True))
    assert counts == {item: told[item] for item in catalogue}
    if name == "leave_one_out":
        left_one_out(data, split, learnt, asked["validation_users"])
    else:
        cut_in_time(data, split, learnt, asked)


def left_one_out(
    data: Interactions, split: Split, learnt: dict[Any, list[Any]], validated: int | None
) -> None:
    items, ends = data.item_ids.to_list(), list(pairwise(data.offsets.tolist()))
    known = {items[i] for i in split.catalogue}
    test = {user: (before, target) for user, before, target in held(data, split, split.test)}
    valid = {user: (before, target) for user, before, target in held(data, split, split.valid)}
    n_valid = 0
    for user, (a, b) in zip(data.user_ids.to_list(), ends, strict=True):
        own = [items[i] for i in data.item[a:b]]
        inside = [item if item in known else None for item in own]
        if len(own) < 3:
            assert learnt[user] == own
            assert user not in test
            assert user not in valid
            continue
        held_out = len(own) - len(learnt[user])
        assert held_out in (1, 2)
        n_valid += held_out == 2
        if any(inside[:-1]):
            before = [item for item in inside[:-1] if item is not None]
            assert test[user] == (before, inside[-1])
        if held_out == 2 and any(inside[:-2]):
            before = [item for item in inside[:-2] if item is not None]
            assert valid[user] == (before, inside[-2])
        assert held_out == 2 or user not in valid
    people = sum(b - a >= 3 for a, b in ends)
    assert n_valid == (people if validated is None else min(people, validated))


def cut_in_time(
    data: Interactions, split: Split, learnt: dict[Any, list[Any]], asked: dict[str, Any]
) -> None:
    assert data.timestamp is not None
    n = data.n_interactions
    in_order = sorted(data.timestamp.tolist())
    share_valid, share_test = (math.ceil(round(s * n, 6)) for s in asked["fractions"][1:])
    valid_from = in_order[max(0, n - share_valid - share_test)]
    test_from = in_order[n - share_test]
    items, ends = data.item_ids.to_list(), list(pairwise(data.offsets.tolist()))
    known = {items[i] for i in split.catalogue}
    periods = ((split.valid, valid_from, test_from), (split.test, test_from, math.inf))
    for part, since, until in periods:
        found: dict[Any, list[tuple[list[Any], Any]]] = {}
        for user, before, target in held(data, split, part):
            found.setdefault(user, []).append((before, target))
        for user, (a, b) in zip(data.user_ids.to_list(), ends, strict=True):
            own = [items[i] for i in data.item[a:b]]
            time = data.timestamp[a:b].tolist()
            # Nobody learns from the time of the held-out part or later.
            assert learnt[user] == [i for i, t in zip(own, time, strict=True) if t < valid_from]
            inside = [item if item in known else None for item in own]
            period = [at for at, t in enumerate(time) if since <= t < until]
            begin = period[0] if period else 0
            possible = [
                ([i for i in inside[: begin if asked["target"] == "all" else at] if i], inside[at])
                for at in period
            ]
            if None not in own and "" not in own and 0 not in own:
                possible = [p for p in possible if len(p[0]) >= asked["min_history"]]
                match asked["target"]:
                    case "successive" | "all":
                        assert found.get(user, []) == possible
                    case "last" if period and possible:
                        last = [p for p in possible if p[1] == inside[period[-1]]]
                        assert all(target in last for target in found.get(user, []))
                    case _:
                        assert all(target in possible for target in found.get(user, []))
                        assert len(found.get(user, [])) <= 1


def test_the_plain_reading_by_hand():
    rows = [Row("b", 1, 20, None, 1.0), Row("a", 2, 30, None, 5.0), Row("b", 2, 10, None, None)]
    assert [row.item for row in histories(rows)["b"]] == [2, 1]
    kept = filtered(rows, {"min_rating": 2.0, "duplicates": "keep", "min_interactions": None})
    assert [(row.user, row.item) for row in kept] == [("a", 2)]
