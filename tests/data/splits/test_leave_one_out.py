import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.errors import InputError
from tests.data import made

# User 1 has four interactions, user 2 three, user 3 two, user 4 one.
ROWS = [
    *((1, item, time) for time, item in enumerate([10, 11, 12, 13])),
    *((2, item, time) for time, item in enumerate([11, 10, 14], start=10)),
    *((3, item, time) for time, item in enumerate([12, 15], start=20)),
    (4, 16, 30),
]


def split(rows=ROWS, seed=0, **settings):
    data = made.interactions(rows)
    return data, LeaveOneOut(**settings)(data, max_length=50, seed=seed)


def test_hand_computed():
    data, parts = split()
    assert made.trained(data, parts) == {1: [10, 11], 2: [11], 3: [12, 15], 4: [16]}
    assert made.held(data, parts, parts.valid) == [(1, [10, 11], 12), (2, [11], 10)]
    assert made.held(data, parts, parts.test) == [(1, [10, 11, 12], 13), (2, [11, 10], 14)]
    # All seven items 10..16; 13 and 14 are held out only.
    assert data.item_ids.gather(parts.catalogue).to_list() == [10, 11, 12, 13, 14, 15, 16]
    assert parts.info.counts.tolist() == [1, 2, 1, 0, 0, 1, 1]
    assert (parts.info.n_users, parts.info.n_items, parts.info.max_length) == (4, 7, 50)


def test_the_catalogue_of_training():
    data, parts = split(catalogue="train")
    # 13 and 14 are in no training row: as targets they are outside.
    assert data.item_ids.gather(parts.catalogue).to_list() == [10, 11, 12, 15, 16]
    assert made.held(data, parts, parts.test) == [(1, [10, 11, 12], None), (2, [11, 10], None)]
    assert parts.info.counts.tolist() == [1, 2, 1, 1, 1]
    assert parts.leak.test_cold == 2


def test_items_outside_the_catalogue_leave_the_histories():
    # Item 8 occurs only as user 1's validation target.
    data, parts = split([(1, 5, 0), (1, 8, 1), (1, 6, 2), (2, 6, 3)], catalogue="train")
    assert made.held(data, parts, parts.valid) == [(1, [5], None)]
    assert made.held(data, parts, parts.test) == [(1, [5], 6)]


def test_a_planted_item_counts_nothing():
    # Everybody takes 99 as test or validation target, and nobody before.
    histories = {1: [1, 2, 3, 99], 2: [2, 3, 99, 1], 3: [3, 1, 99, 99]}
    rows = [(user, item, t) for user, items in histories.items() for t, item in enumerate(items)]
    data, parts = split(rows)
    counts = dict(
        zip(data.item_ids.gather(parts.catalogue), parts.info.counts.tolist(), strict=True)
    )
    # Training is 1 2, 2 3, 3 1.
    assert counts == {1: 2, 2: 2, 3: 2, 99: 0}


def test_counts_of_distinct_users():
    rows = [(1, item, t) for t, item in enumerate([5, 5, 6, 7, 7])] + [(2, 5, 9)]
    # Training rows: 5 5 6 of user 1, 5 of user 2.
    assert split(rows)[1].info.counts.tolist() == [3, 1, 0]
    assert split(rows, count="users")[1].info.counts.tolist() == [2, 1, 0]


def test_some_validation_users():
    rows = [(user, 10 * user + t, t) for user in range(8) for t in range(4)]
    data, parts = split(rows, validation_users=5)
    chosen = [user for user, _, _ in made.held(data, parts, parts.valid)]
    assert len(set(chosen)) == 5
    assert chosen == sorted(chosen)
    for user, items in made.trained(data, parts).items():
        whole = [10 * user + t for t in range(4)]
        assert items == (whole[:2] if user in chosen else whole[:3])
    for user, history, target in made.held(data, parts, parts.valid):
        assert (history, target) == ([10 * user, 10 * user + 1], 10 * user + 2)
    assert len(parts.test) == 8
    # More than there are: everybody.
    assert len(split(rows, validation_users=100)[1].valid) == 8


def test_the_splits_seed_is_its_own():
    rows = [(user, 10 * user + t, t) for user in range(40) for t in range(4)]
    hashes = [split(rows, validation_users=9, seed=seed)[1].hash for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] == hashes[2]
    data, follower = made.interactions(rows), LeaveOneOut(validation_users=9, seed=None)
    following = [follower(data, 50, seed) for seed in (0, 1)]
    assert following[0].hash != following[1].hash


def test_the_leak_report():
    _, parts = split()
    leak = parts.leak
    # Test targets: user 1 at 3, user 2 at 12. Not earlier than 3, or than 12 for user 1's own:
    # 11 of user 2 (at 10), 12 and 15 of user 3, 16 of user 4 = 4 of the 6 training rows.
    assert leak.later_than_test == pytest.approx(4 / 6)
    assert leak.test_targets_unseen == 1.0
    assert (leak.test_users, leak.test_users_unseen, leak.core) == (2, 0.0, None)
    assert (leak.train_interactions, leak.valid_targets, leak.test_targets) == (6, 2, 2)
    assert leak.as_dict()["later_than_test"] == leak.later_than_test
    text = " ".join(leak.lines())
    assert "100.0% of the test targets" in text
    assert "after another user's test target (0% is clean): 66.7%" in text


def test_an_own_target_tells_training_nothing():
    # User 1's training row has the time of the own target; user 2's, at 5 and 6, come later.
    rows = [*((1, item, 0) for item in (5, 6, 7)), *((2, item, 5 + item) for item in range(4))]
    assert split(rows)[1].leak.later_than_test == pytest.approx(2 / 3)


def test_without_timestamps_nobody_knows_what_is_later():
    _, parts = split([row[:2] for row in ROWS])
    assert parts.leak.later_than_test is None
    assert "not known without timestamps" in " ".join(parts.leak.lines())


def test_k_core_is_told():
    data = made.interactions([(1, 1), (1, 2), (1, 1), (1, 2)], min_interactions=2)
    assert LeaveOneOut()(data, 50, 0).leak.core == 2


@st.composite
def tables(draw):
    histories = draw(st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=7), min_size=2))
    return [(user, item) for user, items in enumerate(histories) for item in items]


@given(tables(), st.sampled_from([None, 1, 2]))
def test_every_row_is_in_one_part(rows, validation_users):
    if len({item for _, item in rows}) < 2:
        return
    data = made.interactions(rows)
    lengths = np.diff(data.offsets)
    if lengths.max() < 3:
        with pytest.raises(InputError):
            LeaveOneOut()(data, 50, 0)
        return
    parts = LeaveOneOut(validation_users=validation_users)(data, 50, 0)
    whole = {user: [i for u, i in made.own_ids(data) if u == user] for user in data.user_ids}
    again = made.trained(data, parts)
    for user, history, target in made.held(data, parts, parts.valid):
        assert history == again[user]
        again[user] = [*history, target]
    for user, history, target in made.held(data, parts, parts.test):
        assert history == again[user]
        again[user] = [*history, target]
    assert again == whole


def test_other_held_out_rows_have_another_hash():
    hashes = {split(**settings)[1].hash for settings in ({}, {"count": "users"})}
    assert len(hashes) == 1  # nobody repeats: the same numbers
    assert split(validation_users=1)[1].hash not in hashes
    assert split(catalogue="train")[1].hash not in hashes


def test_all_users_too_short():
    with pytest.raises(InputError, match=r"needs users with 3 interactions, and .* has 2: use"):
        split([(1, 5, 0), (1, 6, 1), (2, 5, 2)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"catalogue": "test"}, "split.catalogue must be all or train, got 'test'"),
        ({"count": "items"}, "split.count must be"),
        ({"validation_users": 0}, "split.validation_users must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LeaveOneOut(**settings)
