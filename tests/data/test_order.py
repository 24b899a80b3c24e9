from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import given
from hypothesis import strategies as st

from negrec import experiment
from negrec.commandline.configuration import conf_dir
from negrec.data.order import Left, Patterns, patterns, shuffle_test, shuffled
from tests.data.made import interactions


def flat(histories: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    user = np.repeat(np.arange(len(histories)), [len(each) for each in histories])
    item = np.array([i for each in histories for i in each], dtype=np.int64)
    return user, item


def plain(histories: list[list[int]], n: int, support: int, confidence: float) -> Patterns:
    """Counted one by one."""

    def grams(length: int) -> Counter[tuple[int, ...]]:
        return Counter(
            tuple(each[at : at + length])
            for each in histories
            for at in range(len(each) - length + 1)
        )

    often = {gram: times for gram, times in grams(n).items() if times > support}
    before = grams(n - 1)
    rules = [gram for gram, times in often.items() if times / before[gram[:-1]] > confidence]
    return Patterns(len(often), len(rules))


def test_by_hand():
    # Six times 0 1 2: the 2-grams 01 and 12 and the 3-gram 012 are seen 6 > 5 times.
    # 3 follows 0 six times more, but 0 stands at 72 places: 6/72 is below 10%, and so is 01.
    histories = [[0, 1, 2]] * 6 + [[0, 3]] * 6 + [[0]] * 60
    two, three = patterns(*flat(histories))
    assert two == Patterns(frequent=3, rules=1)
    assert three == Patterns(frequent=1, rules=1)  # 01 is always followed by 2


def test_exactly_the_support_and_exactly_the_confidence_are_not_enough():
    assert patterns(*flat([[0, 1]] * 5))[0] == Patterns(0, 0)
    assert patterns(*flat([[0, 1]] * 6 + [[0]] * 54))[0] == Patterns(1, 0)  # 6 of 60
    assert patterns(*flat([[0, 1]] * 6 + [[0]] * 53))[0] == Patterns(1, 1)


def test_no_gram_reaches_over_two_users():
    assert patterns(*flat([[0], [1]] * 20)) == (Patterns(0, 0), Patterns(0, 0))
    assert patterns(*flat([[0, 1], [2]] * 20))[1] == Patterns(0, 0)


@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=12), min_size=1, max_size=25),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.1, 0.5]),
)
def test_as_counted_one_by_one(histories: list[list[int]], support: int, confidence: float):
    found = patterns(*flat(histories), support, confidence)
    assert found == tuple(plain(histories, n, support, confidence) for n in (2, 3))


def test_large_numbers_of_items_do_not_overflow():
    # As 32-bit numbers, as a file may hold them: 3,000,000 squared is beyond them.
    user, item = flat([[2_999_999, 2_999_998]] * 6)
    assert patterns(user, item.astype(np.int32))[0] == Patterns(1, 1)


def test_shuffling_stays_within_runs_and_keeps_what_they_hold():
    runs = np.repeat([0, 1, 2], [50, 1, 30])
    values = np.arange(81)
    found = shuffled(values, runs, np.random.default_rng(0))
    for run in range(3):
        assert sorted(found[runs == run]) == values[runs == run].tolist()
    assert (found != values).sum() > 60
    assert shuffled(values[:0], runs[:0], np.random.default_rng(0)).size == 0


def test_every_order_is_as_likely():
    # 6 orders of 3 values, 6,000 runs: 1,000 each, with a standard deviation of 29.
    runs = np.repeat(np.arange(6000), 3)
    found = shuffled(np.tile([0, 1, 2], 6000), runs, np.random.default_rng(0)).reshape(-1, 3)
    times = Counter(map(tuple, found.tolist()))
    assert len(times) == 6
    assert all(abs(each - 1000) < 4 * 29 for each in times.values())


def test_a_planted_order_is_destroyed():
    # 30 pairs whose second item always follows the first; 150 users take 4 of them, so that each
    # pair is taken 20 times.
    rng = np.random.default_rng(0)
    first = 2 * rng.integers(30, size=(150, 4))
    histories = np.stack([first, first + 1], axis=2).reshape(150, 8).tolist()
    two, _ = shuffle_test(*flat(histories), 5, rng)
    assert two.rules.original == 30
    # Shuffled, the items of a pair are neighbours in either order in 1/8 of its histories: 2.5
    # times. A Poisson number with this mean is above 5 in 4.2%: of the 60 orders, 2.5.
    assert two.rules.share == pytest.approx(2.5 / 30, abs=0.08)


def test_without_order_as_many_are_left():
    rng = np.random.default_rng(1)
    weight = 1 / np.arange(1, 201)
    item = rng.choice(200, size=20_000, p=weight / weight.sum())
    two, three = shuffle_test(np.repeat(np.arange(1000), 20), item, 5, rng)
    assert two.frequent.original > 100
    assert two.frequent.share == pytest.approx(1, abs=0.1)
    assert three.frequent.share == pytest.approx(1, abs=0.3)


def test_only_equal_times_are_shuffled():
    # The order 0 1 is told by time, 2 3 by the file alone.
    rows = [row for u in range(40) for row in ((u, 0, 1), (u, 1, 2), (u, 2, 3), (u, 3, 3))]
    data = interactions(rows)
    runs = np.repeat(np.arange(120), np.tile([1, 1, 2], 40))
    two, _ = shuffle_test(data.user, data.item, 4, np.random.default_rng(0), runs)
    # 01, 12 and 23 before; after it 13 and 32 come about, and 01 is left.
    assert two.rules.original == 3
    assert two.rules.shuffled == (5, 5, 5, 5)


def test_left():
    left = Left(20, (2, 4))
    assert (left.mean, left.share) == (3, 0.15)
    assert left.spread == pytest.approx(2**0.5)
    assert (Left(0, (1,)).share, Left(0, (1,)).spread) == (None, None)


def test_the_same_seed_shuffles_alike():
    user, item = flat([[0, 1, 2, 3, 4, 5]] * 30)
    first, again, other = (shuffle_test(user, item, 2, np.random.default_rng(s)) for s in (7, 7, 8))
    assert first == again != other


@pytest.mark.parametrize(("name", "two", "three"), [("beauty", 443, 131), ("sports", 129, 16)])
def test_published_rules(name: str, two: int, three: int, real_data: Path, tmp_path: Path):
    """The table of arXiv:2408.12008 (its repository), before shuffling; after it 11.6 and 7.4."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        words = [f"dataset={name}", f"paths.cache_dir={tmp_path}", f"paths.data_dir={real_data}"]
        data = experiment.read(compose("train", words))
    found = shuffle_test(data.user, data.item, 5, np.random.default_rng(0))
    assert [each.rules.original for each in found] == [two, three]
    assert found[0].rules.mean == pytest.approx({443: 11.6, 129: 7.4}[two], abs=3)
    assert found[1].rules.mean < 1
