from dataclasses import replace

import numpy as np
import pytest
import torch

from negrec.evaluation.evaluator import Evaluator
from negrec.evaluation.shuffling import jaccard, order_effect, shuffled_histories
from negrec.models.markov import Markov
from negrec.models.popularity import Popularity
from negrec.types import DatasetInfo, HeldOut
from tests.toy import jagged


def held_out(histories: list[list[int]], targets: list[int]) -> HeldOut:
    rows = jagged(histories)
    return HeldOut(
        torch.arange(len(targets)),
        torch.tensor(targets),
        rows.values,
        rows.offsets[:-1],
        rows.offsets[1:],
    )


def facts(histories: list[list[int]], n_items: int, max_length: int = 10) -> DatasetInfo:
    train = jagged(histories)
    counts = torch.bincount(train.values, minlength=n_items + 1)[1:]
    return DatasetInfo(len(histories), n_items, max_length, counts, train=train)


def test_jaccard_by_hand():
    # 2 items of 4 in common: 2/4... lists of 3 and 3 with 2 in common hold 4 items.
    assert jaccard(np.array([[1, 2, 3]]), np.array([[3, 1, 9]])) == 0.5
    assert jaccard(np.array([[1, 2, 3]]), np.array([[3, 1, 2]])) == 1
    # A 0 is no item: {1} and {1, 2} have 1 of 2 in common; mean with a list of nothing common.
    assert jaccard(np.array([[1, 0], [3, 4]]), np.array([[1, 2], [5, 6]])) == 0.25
    assert np.isnan(jaccard(np.zeros((0, 3), int), np.zeros((0, 3), int)))


def test_the_newest_items_change_their_order_and_nothing_else():
    history = [*range(1, 31), 0]  # 0 is outside of the catalogue: no model sees it
    part = held_out([history, [7]], [31, 8])
    found = shuffled_histories(part, 20, np.random.default_rng(0))
    first, second = found.histories().values[:30].tolist(), found.histories().values[30:].tolist()
    assert first[:10] == history[:10]
    assert first[10:] != history[10:30]
    assert sorted(first[10:]) == history[10:30]
    assert second == [7]
    assert (found.target.tolist(), found.user.tolist()) == ([31, 8], [0, 1])
    assert part.histories().values.tolist() == [*history, 7]  # the argument is as it was


def test_as_many_items_are_shuffled_as_the_model_sees():
    found = shuffled_histories(
        held_out([[1, 2, 3]] * 50, [4] * 50), 2, np.random.default_rng(0)
    ).histories()
    assert {tuple(row.tolist()) for row in found.values.split(3)} == {(1, 2, 3), (1, 3, 2)}


def test_two_targets_after_one_history_are_shuffled_each():
    part = held_out([[1, 2, 3, 4, 5, 6]], [7])
    twice = replace(
        part,
        user=torch.tensor([0, 0]),
        target=torch.tensor([7, 8]),
        start=torch.tensor([0, 0]),
        end=torch.tensor([6, 4]),
    )
    found = shuffled_histories(twice, 10, np.random.default_rng(0)).histories()
    assert [sorted(row.tolist()) for row in found.values.split([6, 4])] == [
        [1, 2, 3, 4, 5, 6],
        [1, 2, 3, 4],
    ]


def test_a_model_of_the_last_item_loses_what_chance_takes():
    # A circle of 40 items: the item after the last one of five comes next. Shuffled, the last one
    # is still last in a fifth of the histories, and its successor is a hit then; the successors of
    # the others are seen items, which are filtered out.
    train = [[(start + step) % 40 + 1 for step in range(6)] for start in range(40)]
    info = facts(train, 40)
    histories = [row[:5] for row in train] * 50
    part = held_out(histories, [row[5] for row in train] * 50)

    def evaluator(targets: HeldOut) -> Evaluator:
        return Evaluator(targets, info, [10], "filter")

    model = Markov(info)
    effect = order_effect(model, part, evaluator, 10, 3, np.random.default_rng(0))
    assert effect.hit_rate.original == 1
    assert effect.ndcg.original == 1
    # Else the target ties with the 34 other unseen items over ranks 1 to 35: a hit in 10/35.
    # 2,000 targets: standard deviation 0.009.
    expected = 1 / 5 + 4 / 5 * 10 / 35
    assert all(abs(each - expected) < 0.04 for each in effect.hit_rate.shuffled)
    assert max(effect.jaccard) < 1


def test_a_model_that_ignores_order_loses_nothing():
    train = [[1, 2, 3, 4], [1, 2, 3], [1, 5, 6]]
    info = facts(train, 6)
    part = held_out([[1, 2, 3], [2, 1], [5, 6]], [4, 3, 1])

    def evaluator(targets: HeldOut) -> Evaluator:
        return Evaluator(targets, info, [10], "filter")

    effect = order_effect(Popularity(info), part, evaluator, 10, 2, np.random.default_rng(0))
    assert effect.ndcg.share == pytest.approx(1)
    assert effect.hit_rate.spread == 0
    assert effect.jaccard == (1, 1)


def test_the_first_items_of_each_target():
    info = facts([[1, 1, 1, 2, 2, 3]], 4)
    part = held_out([[1], [4, 2, 3], [2]], [2, 1, 3])
    # By popularity 1 2 3 4, without the history, in the order of the targets.
    lists = Evaluator(part, info, [1], "filter").first(Popularity(info), 3)
    assert lists.tolist() == [[2, 3, 4], [1, 0, 0], [1, 3, 4]]
