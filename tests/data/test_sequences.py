import pytest

from negrec.data.sequences import Sequences
from negrec.data.targets import MaskedItem, NextItem
from negrec.errors import InputError
from tests import toy

TRAIN = [[1, 2, 3, 4, 5, 6, 7, 8], [9], [], [3, 2, 3]]


def windows(window, max_length=3):
    made = Sequences(toy.jagged(TRAIN), max_length, NextItem(), window)
    values = made.train.values
    items = [values[s:e].tolist() for s, e in zip(made.start, made.end, strict=True)]
    return list(zip(made.user.tolist(), made.position.tolist(), items, strict=True))


def test_the_newest_window_of_a_long_history():
    # 3 inputs and the last target; users 1 and 2 have no target to learn from.
    assert windows("last") == [(0, 4, [5, 6, 7, 8]), (3, 0, [3, 2, 3])]


def test_all_windows_hold_every_target_once():
    assert windows("all") == [
        (0, 4, [5, 6, 7, 8]),
        (0, 1, [2, 3, 4, 5]),
        (0, 0, [1, 2]),
        (3, 0, [3, 2, 3]),
    ]


def test_seen_items_are_distinct_and_ascending():
    seen = Sequences(toy.jagged(TRAIN), 3, NextItem()).seen
    assert seen.values.tolist() == [*range(1, 9), 9, 2, 3]
    assert seen.offsets.tolist() == [0, 8, 9, 9, 11]


@pytest.mark.parametrize(
    ("window", "targets", "numbers"),
    [
        # Tokens 4..7 of user 0 come first, then 0..2 of user 3.
        ("last", [6, 7, 8, 2, 3], {(0, 4): 0, (0, 7): 3, (3, 0): 4, (3, 2): 6}),
        ("all", [2, 3, 4, 5, 6, 7, 8, 2, 3], {(0, 0): 0, (0, 7): 7, (3, 0): 8, (3, 2): 10}),
    ],
)
def test_facts_of_the_windows(window, targets, numbers):
    sequences = Sequences(toy.jagged(TRAIN), 3, NextItem(), window)
    info = sequences.facts(toy.info(9))
    assert info.target_counts.tolist() == [targets.count(item) for item in range(1, 10)]
    found = {key: info.token_base[key[0]].item() + key[1] for key in numbers}
    assert found == numbers
    assert info.n_tokens == max(numbers.values()) + 1
    assert toy.info(9).counts.equal(info.counts)


@pytest.mark.parametrize("window", ["last", "all"])
def test_masked_targets_are_counted_as_they_are_expected(window):
    # Windows of up to 4 items with max(1, round(0.3 n)) = 1 hidden, a fifth with the last alone:
    # 0.8 / n each, and 0.2 more for the last. "all" also has [2, 3, 4, 5] and [1, 2].
    sequences = Sequences(toy.jagged(TRAIN), 3, MaskedItem(0.3, last=0.2), window)
    items = [[5, 6, 7, 8], [3, 2, 3]] + ([[2, 3, 4, 5], [1, 2]] if window == "all" else [])
    expected = [0.0] * 10
    for of_window in items:
        for item in of_window:
            expected[item] += 0.8 / len(of_window)
        expected[of_window[-1]] += 0.2
    info = sequences.facts(toy.info(9))
    assert info.target_counts.tolist() == pytest.approx(expected[1:])
    assert info.target_counts.sum().item() == pytest.approx(len(items))  # one target in each
    assert info.n_tokens == (11 if window == "all" else 7)


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(InputError, match="no user has the 2 training interactions"):
        Sequences(toy.jagged([[1], [2]]), 3, NextItem())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"max_length": 0}, "max_length must be"), ({"window": "first"}, "window must be last or")],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises((ValueError, InputError), match=message):
        Sequences(toy.jagged(TRAIN), **{"max_length": 3, "targets": NextItem(), **settings})
