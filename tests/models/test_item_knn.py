"""Nearest neighbours between items."""

from dataclasses import replace
from math import sqrt

import pytest
import torch

from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.evaluation.evaluator import Evaluator
from negrec.evaluation.ranks import top
from negrec.models import item_knn
from negrec.models.item_knn import ItemKNN, nearest
from negrec.types import HeldOut
from tests import toy
from tests.data import made

# Users of item 1: a, b, c; of 2: a, b; of 3: c; of 4: d. User b took item 1 twice.
HISTORIES = [[1, 2], [1, 2, 1], [3, 1], [4]]


def facts(histories, n_items, max_length=8):
    train = toy.jagged(histories)
    counts = torch.bincount(train.values - 1, minlength=n_items)
    return replace(toy.info(n_items, max_length, counts.tolist()), train=train)


def pairs(found):
    item, near, value = found
    return dict(zip(zip(item.tolist(), near.tolist(), strict=True), value.tolist(), strict=True))


def dense(histories, n_items, neighbours, shrink):
    """The second implementation: whole matrices."""
    taken = torch.zeros(len(histories), n_items, dtype=torch.double)
    for user, history in enumerate(histories):
        taken[user, torch.tensor(history) - 1] = 1
    users = taken.sum(0)
    similarity = (taken.T @ taken) / ((users[:, None] * users).sqrt() + shrink)
    similarity = similarity.nan_to_num(0.0).fill_diagonal_(0)
    order = similarity.argsort(dim=1, descending=True, stable=True)[:, :neighbours]
    return torch.zeros_like(similarity).scatter(1, order, similarity.gather(1, order))


def test_cosines_by_hand():
    expected = {(1, 2): 2 / sqrt(6), (1, 3): 1 / sqrt(3)}
    expected |= {(j, i): value for (i, j), value in expected.items()}
    assert pairs(nearest(toy.jagged(HISTORIES), 5, 100, 0.0)) == pytest.approx(expected)


def test_shrink_and_neighbours_by_hand():
    # lambda = 1; item 1 keeps item 2 only, the nearest.
    expected = {(1, 2): 2 / (sqrt(6) + 1), (2, 1): 2 / (sqrt(6) + 1), (3, 1): 1 / (sqrt(3) + 1)}
    assert pairs(nearest(toy.jagged(HISTORIES), 5, 1, 1.0)) == pytest.approx(expected)


def test_of_equally_similar_items_the_smallest_ids_are_kept():
    assert set(pairs(nearest(toy.jagged([[5, 4, 3, 2]]), 5, 2, 0.0))) == {
        *((2, 3), (2, 4), (3, 2), (3, 4), (4, 2), (4, 3), (5, 2), (5, 3))
    }


@pytest.mark.parametrize(("neighbours", "shrink"), [(100, 0.0), (3, 0.0), (5, 10.0)])
@pytest.mark.parametrize("cells", [1, 100, 1 << 22])
def test_agrees_with_whole_matrices(neighbours, shrink, cells, monkeypatch):
    monkeypatch.setattr(item_knn, "_CELLS", cells)  # the blocks do not show
    generator = torch.Generator().manual_seed(0)
    length = [1, 3, 8, 20] * 10
    histories = [torch.randint(1, 25, (n,), generator=generator).tolist() for n in length]
    model = ItemKNN(facts(histories, 26), neighbours, shrink)
    matrix = dense(histories, 26, neighbours, shrink)
    batch = toy.batch([h[-9:] for h in histories if len(h) > 1])
    hidden = model(batch).hidden
    for row, token in zip(hidden, batch.query.tolist(), strict=True):
        start = batch.offsets[batch.sequence[token]]
        known = batch.items[start : token + 1].unique()
        torch.testing.assert_close(
            model.scorer.every(row[None])[0].double(),
            matrix[known - 1].sum(0),
            atol=1e-6,
            rtol=1e-6,
        )


def test_items_of_score_zero_are_ranked_by_popularity_and_nothing_else_changes():
    # 300 users make items 1 and 2 alike; 3..6 share nobody with them. Taken: 300, 300, 2, 9, 9, 5.
    histories = [[1, 2]] * 300 + [[3]] * 2 + [[4]] * 9 + [[5]] * 9 + [[6]] * 5
    info = facts(histories, 7)
    flat = toy.jagged([[1]] * 7 + [[]])
    part = HeldOut(
        torch.arange(8),
        torch.tensor([2, 1, 4, 5, 6, 3, 7, 6]),
        flat.values,
        flat.offsets[:-1],
        flat.offsets[1:],
    )
    model = ItemKNN(info)
    result = Evaluator(part, info, seen="keep")(model)
    # Item 1 is similar to item 2 only: it stands among the others, by its popularity.
    assert result.greater.tolist() == [0, 1, 2, 2, 4, 5, 6, 4]
    assert result.ties.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    scores = model.scorer.every(torch.tensor([[1.0] + [0.0] * 7]))
    assert scores[0, 1] == 1  # to the bit: what orders zeros has vanished


def test_the_smallest_popularity_survives_float32():
    # Neighbouring counts near 2^24, next to sums of similarities of about 100.
    n = 1_000
    info = facts([[1, *range(2, 102)]] * 2, n, max_length=100)
    info = replace(info, counts=2**24 - n + 1 + torch.arange(n))
    model = ItemKNN(info)
    hidden = torch.arange(2.0, 102)[None]
    flat = toy.jagged([[*range(2, 102)]])
    part = HeldOut(
        torch.zeros(1).long(),
        torch.ones(1).long(),
        flat.values,
        flat.offsets[:-1],
        flat.offsets[1:],
    )
    items, scores = top(hidden, model.scorer, part, "filter", n - 100)
    assert scores[0, 0] == pytest.approx(100)
    assert items[0].tolist() == [1, *range(n, 101, -1)]
    assert (scores[0].diff() < 0).all()  # no ties


def test_held_out_users_are_not_counted():
    # Both users take 12 in validation and 13 in the test: only 10 and 11 have common users.
    rows = [(user, item, t) for user in (1, 2) for t, item in enumerate([10, 11, 12, 13])]
    split = LeaveOneOut()(made.interactions(rows), max_length=8, seed=0)
    scorer = ItemKNN(split.info).scorer
    assert sorted(scorer.column.tolist()) == [0, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neighbours": 0}, "neighbours must be at least 1, got 0"),
        ({"shrink": -1.0}, "shrink must be finite and not negative, got -1.0"),
        ({"shrink": float("inf")}, "shrink must be finite and not negative, got inf"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        ItemKNN(facts(HISTORIES, 5), **settings)


def test_it_needs_histories():
    with pytest.raises(ValueError, match="model=item_knn compares items: it needs info"):
        ItemKNN(toy.info(5))


def test_nothing_to_train():
    assert list(ItemKNN(facts(HISTORIES, 5)).parameters()) == []
