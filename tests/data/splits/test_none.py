import pytest

from negrec.data.splits.none import NothingHeldOut
from tests.data import made

# Item 12 is the last of everybody, and of user 3 the only one.
ROWS = [(1, 10, 0), (1, 11, 1), (1, 10, 2), (1, 12, 3), (2, 11, 5), (2, 12, 6), (3, 12, 9)]


def split(**settings):
    data = made.interactions(ROWS)
    return data, NothingHeldOut(**settings)(data, max_length=50, seed=0)


def test_hand_computed():
    data, parts = split()
    assert made.trained(data, parts) == {1: [10, 11, 10, 12], 2: [11, 12], 3: [12]}
    assert len(parts.valid) == len(parts.test) == 0
    assert data.item_ids.gather(parts.catalogue).to_list() == [10, 11, 12]
    assert parts.info.counts.tolist() == [2, 2, 3]
    assert parts.leak.lines() == ["split: 7 training interactions, nothing held out"]


def test_counts_of_users():
    _, parts = split(count="users")
    assert parts.info.counts.tolist() == [1, 2, 3]


def test_a_count_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="interactions or users, got 'rows'"):
        NothingHeldOut(count="rows")
