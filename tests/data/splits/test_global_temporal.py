import pytest
from hypothesis import given
from hypothesis import strategies as st

from negrec.data.splits.global_temporal import GlobalTemporal
from negrec.errors import InputError
from tests.data import made

# Validation from 10 to 19, test from 20. User 4 begins in the test period, user 5 has validation
# alone, user 6 training alone; item 9 occurs after training only.
ROWS = [
    *((1, item, time) for item, time in [(1, 0), (2, 5), (3, 10), (9, 15), (2, 20), (1, 25)]),
    *((2, item, time) for item, time in [(2, 1), (3, 9), (1, 20), (9, 22), (3, 24)]),
    *((4, item, time) for item, time in [(1, 21), (2, 23)]),
    *((5, item, time) for item, time in [(3, 3), (1, 12)]),
    (6, 2, 4),
]
CUTS = (10, 20)
SUCCESSIVE = [
    (1, [1, 2, 3, 9], 2),
    (1, [1, 2, 3, 9, 2], 1),
    (2, [2, 3], 1),
    (2, [2, 3, 1], 9),
    (2, [2, 3, 1, 9], 3),
    (4, [1], 2),
]


def split(rows=ROWS, cuts=CUTS, **settings):
    data = made.interactions(rows)
    return data, GlobalTemporal(cuts=cuts, **settings)(data, max_length=50, seed=0)


@pytest.mark.parametrize(
    ("target", "valid", "test", "left_out"),
    [
        ("last", [(1, [1, 2, 3], 9), (5, [3], 1)], [SUCCESSIVE[i] for i in (1, 4, 5)], 0),
        ("first", [(1, [1, 2], 3), (5, [3], 1)], [SUCCESSIVE[i] for i in (0, 2)], 1),
        ("successive", [(1, [1, 2], 3), (1, [1, 2, 3], 9), (5, [3], 1)], SUCCESSIVE, 1),
        (
            "all",
            [(1, [1, 2], 3), (1, [1, 2], 9), (5, [3], 1)],
            [
                *((1, [1, 2, 3, 9], target) for target in (2, 1)),
                *((2, [2, 3], target) for target in (1, 9, 3)),
            ],
            2,
        ),
    ],
)
def test_targets_by_hand(target, valid, test, left_out):
    data, parts = split(target=target, catalogue="all")
    assert made.trained(data, parts) == {1: [1, 2], 2: [2, 3], 4: [], 5: [3], 6: [2]}
    assert made.held(data, parts, parts.valid) == valid
    assert made.held(data, parts, parts.test) == test
    assert parts.leak.test_left_out == left_out


def test_a_random_target_is_one_of_the_successive():
    seen = set()
    for seed in range(30):
        data = made.interactions(ROWS)
        parts = GlobalTemporal(cuts=CUTS, target="random", catalogue="all", seed=seed)(data, 50, 0)
        held = made.held(data, parts, parts.test)
        users = [user for user, _, _ in held]
        assert users == sorted(set(users))
        assert all(point in SUCCESSIVE for point in held)
        seen |= {(user, target) for user, _, target in held}
    assert seen == {(user, target) for user, _, target in SUCCESSIVE}


def test_the_splits_seed_is_its_own():
    data = made.interactions(ROWS)
    own = GlobalTemporal(cuts=CUTS, target="random")
    assert len({own(data, 50, seed).hash for seed in range(9)}) == 1
    following = GlobalTemporal(cuts=CUTS, target="random", seed=None)
    assert len({following(data, 50, seed).hash for seed in range(9)}) > 1


def test_the_catalogue_of_training():
    data, parts = split()
    assert data.item_ids.gather(parts.catalogue).to_list() == [1, 2, 3]
    assert parts.info.counts.tolist() == [1, 3, 2]
    # 9 is outside: no part of a history, and 0 as a target.
    assert made.held(data, parts, parts.valid) == [(1, [1, 2, 3], None), (5, [3], 1)]
    assert made.held(data, parts, parts.test) == [(1, [1, 2, 3, 2], 1), (2, [2, 3, 1], 3),
                                                  (4, [1], 2)]  # fmt: skip
    assert (parts.leak.valid_cold, parts.leak.test_cold) == (1, 0)


def test_the_leak_report():
    _, parts = split(target="successive", catalogue="all")
    leak = parts.leak
    # Six targets of users 1, 2 and 4; user 4 is new; one target is item 9.
    assert (leak.test_users, leak.test_targets) == (3, 6)
    assert leak.test_users_unseen == pytest.approx(1 / 3)
    assert leak.test_targets_unseen == pytest.approx(1 / 6)
    assert leak.later_than_test == 0.0
    assert (leak.valid_from, leak.test_from) == ("1970-01-01 00:00:10", "1970-01-01 00:00:20")
    assert "test from 1970-01-01 00:00:20 (UTC)" in " ".join(leak.lines())


def test_min_history():
    data, parts = split(min_history=3, catalogue="all")
    assert made.held(data, parts, parts.test) == [SUCCESSIVE[1], SUCCESSIVE[4]]
    assert parts.leak.test_left_out == 1
    assert made.held(data, parts, parts.valid) == [(1, [1, 2, 3], 9)]


def rows_at(times):
    """One user with a new item at each time; the items' ids are the places."""
    return [(1, place, time) for place, time in enumerate(times)]


@pytest.mark.parametrize(
    ("times", "fractions", "n_train", "n_valid"),
    [
        # 100 rows: 7 and 7, and no eighth for 0.07 * 100 = 7.000000000000001.
        (range(100), (0.86, 0.07, 0.07), 86, 7),
        # 21 rows: 1.05 rounds up to 2.
        (range(21), (0.90, 0.05, 0.05), 17, 2),
        # The cuts stand at rows 6 and 8, on times 5 and 8; what shares their time is later.
        ([0, 1, 2, 3, 5, 5, 5, 6, 8, 9], (0.6, 0.2, 0.2), 4, 4),
    ],
)
def test_fractions_of_the_rows(times, fractions, n_train, n_valid):
    data = made.interactions(rows_at(times))
    parts = GlobalTemporal(fractions, target="successive", catalogue="all")(data, 50, 0)
    assert (len(parts.train.values), len(parts.valid)) == (n_train, n_valid)
    assert len(parts.test) == len(times) - n_train - n_valid


def test_dates_as_cuts():
    day = 86_400
    data = made.interactions(rows_at([day, 2 * day, 3 * day, 4 * day]))
    parts = GlobalTemporal(cuts=("1970-01-04", "1970-01-05"), catalogue="all")(data, 50, 0)
    assert made.held(data, parts, parts.test) == [(1, [0, 1, 2], 3)]


@st.composite
def tables(draw):
    row = st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 12))
    return draw(st.lists(row, min_size=3, max_size=40))


def slow(data, target, since, until):
    """Each user's (time, item) rows, the places of the targets, and where the period begins."""
    users = {}
    for user, item, time in made.own_ids(data):
        users.setdefault(user, []).append((time, item))
    for user, rows in sorted(users.items()):
        inside = [k for k, (time, _) in enumerate(rows) if since <= time < until]
        if inside:
            chosen = {"last": inside[-1:], "first": inside[:1]}.get(target, inside)
            yield user, rows, chosen, inside[0]


@given(
    tables(),
    st.sampled_from(["last", "first", "successive", "all"]),
    st.sampled_from(["train", "all"]),
    st.integers(1, 2),
    st.integers(3, 7),
    st.integers(1, 3),
)
def test_against_a_slow_split(rows, target, catalogue, min_history, cut, gap):
    cuts = (cut, cut + gap)
    splitter = GlobalTemporal(
        cuts=cuts, target=target, catalogue=catalogue, min_history=min_history
    )
    try:
        data = made.interactions(rows)
        parts = splitter(data, 50, 0)
    except InputError:
        return
    everything = made.own_ids(data)
    train = [(user, item) for user, item, time in everything if time < cuts[0]]
    known = {item for _, item in train} if catalogue == "train" else set(data.item_ids)
    assert data.item_ids.gather(parts.catalogue).to_list() == sorted(known)
    assert [(u, i) for u, items in made.trained(data, parts).items() for i in items] == train
    counts = [sum(i == item for _, i in train) for item in sorted(known)]
    assert parts.info.counts.tolist() == counts
    for part, since, until in ((parts.valid, *cuts), (parts.test, cuts[1], 10**9)):
        expected = []
        for user, own, targets, begin in slow(data, target, since, until):
            for k in targets:
                history = [i for _, i in own[: begin if target == "all" else k] if i in known]
                if len(history) >= min_history:
                    item = own[k][1]
                    expected.append((user, history, item if item in known else None))
        assert made.held(data, parts, part) == expected
    assert parts.leak.later_than_test == 0.0


@pytest.mark.parametrize(
    ("rows", "cuts", "message"),
    [
        ([row[:2] for row in ROWS], CUTS, "made: split=global_temporal needs timestamps"),
        (ROWS, (10, 99), r"the test period from 1970-01-01 00:01:39 has no user to evaluate"),
        (ROWS, (6, 7), r"the validation period from 1970-01-01 00:00:06 has no user"),
        (ROWS, (0, 20), "the split leaves no training interactions"),
        (ROWS, (1, 20), "the training part holds a single item"),
        (
            [(1, 1, 0), (1, 2, 1), (2, 1, 10), (2, 3, 20)],
            CUTS,
            r"no user to evaluate \(1 targets w",
        ),
    ],
)
def test_data_that_cannot_be_split(rows, cuts, message):
    with pytest.raises(InputError, match=message) as caught:
        split(rows, cuts)
    assert "\n" not in str(caught.value)


def test_times_that_are_all_the_same():
    with pytest.raises(InputError, match="leaves no training interactions"):
        split(rows_at([7] * 20), cuts=None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fractions": (0.9, 0.1)}, "split.fractions must be three positive"),
        ({"fractions": (0.9, 0.1, 0.1)}, "split.fractions must be three positive"),
        ({"fractions": (1.1, -0.2, 0.1)}, "split.fractions must be three positive"),
        ({"cuts": (5, 5)}, "split.cuts must be"),
        ({"cuts": ("2024-01-01",)}, "split.cuts must be"),
        ({"cuts": ("soon", "later")}, "'soon' is no time"),
        ({"target": "any"}, "split.target must be one of last, first"),
        ({"min_history": 0}, "split.min_history must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GlobalTemporal(**settings)
