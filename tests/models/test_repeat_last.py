"""The repeat ranker."""

import pytest
import torch

from negrec.evaluation.evaluator import Evaluator
from negrec.evaluation.ranks import top
from negrec.models.repeat_last import RepeatLast
from negrec.types import HeldOut
from tests import toy

COUNTS = [5, 9, 1, 9, 0, 2]


def held_out(histories, targets):
    flat = toy.jagged(histories)
    user = torch.arange(len(histories))
    return HeldOut(user, torch.tensor(targets), flat.values, flat.offsets[:-1], flat.offsets[1:])


def test_scores_by_hand():
    # Back from the newest: item 5, 3, 1, and 3 again; L = 4. Popularity is c / 18.
    model = RepeatLast(toy.info(6, max_length=4, counts=COUNTS))
    hidden = model(toy.batch([[3, 1, 3, 5, 6]])).hidden
    assert hidden.tolist() == [[3, 0, 0, 0], [1, 3, 0, 0], [3, 1, 0, 0], [5, 3, 1, 0]]
    expected = [2 + 5 / 18, 9 / 18, 3 + 1 / 18, 9 / 18, 4, 2 / 18]
    torch.testing.assert_close(model.scorer.every(hidden)[3], torch.tensor(expected))


@pytest.mark.parametrize(
    ("seen", "greater", "ties"),
    [
        # History 3, 1: 1 first, then 3, then 2 and 4 as one, then 6, then 5.
        ("keep", [0, 1, 2, 5], [0, 0, 1, 0]),
        # Without the history, but for the target: 1 or 3 stands first, 5 behind 2, 4 and 6.
        ("filter", [0, 0, 0, 3], [0, 0, 1, 0]),
    ],
)
def test_recent_items_then_popular_ones(seen, greater, ties):
    info = toy.info(6, counts=COUNTS)
    result = Evaluator(held_out([[3, 1]] * 4, [1, 3, 4, 5]), info, seen=seen)(RepeatLast(info))
    assert result.greater.tolist() == greater
    assert result.ties.tolist() == ties


def test_without_a_history_the_popular_ones():
    info = toy.info(6, counts=COUNTS)
    part = held_out([[], [3]], [1, 1])
    result = Evaluator(part, info)(RepeatLast(info))
    assert result.greater.tolist() == [2, 2]


def test_the_order_is_exact_in_float32():
    # Neighbouring counts up to 2^24, and a long history whose older items are the more popular.
    n, length = 2_000, 200
    counts = 2**24 - n + 1 + torch.arange(n)
    info = toy.info(n, length, counts.tolist())
    model = RepeatLast(info)
    part = held_out([list(range(length, 0, -1))], [1])
    hidden = torch.arange(1.0, length + 1)[None]  # item 1 is the newest and the least popular
    items, scores = top(hidden, model.scorer, part, "keep", n)
    assert items[0].tolist() == [*range(1, length + 1), *range(n, length, -1)]
    assert (scores[0].diff() < 0).all()  # no ties


def test_nothing_to_train():
    assert list(RepeatLast(toy.info(6)).parameters()) == []
