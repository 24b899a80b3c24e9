"""The first-order Markov chain."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.evaluation.evaluator import Evaluator
from negrec.models.markov import Markov, transitions
from negrec.types import HeldOut
from tests import toy
from tests.data import made


def facts(histories, n_items, max_length=8):
    train = toy.jagged(histories)
    counts = torch.bincount(train.values - 1, minlength=n_items)
    return replace(toy.info(n_items, max_length, counts.tolist()), train=train)


def test_transitions_by_hand():
    # 1-2 three times and 1-3 once; 2-1 once; 3-3 once. None from one user to the next (2-1, 3-2).
    train = toy.jagged([[1, 2, 1, 2], [1, 2], [], [1, 3, 3], [2]])
    item, following, share = transitions(train, 4)
    found = dict(zip(zip(item.tolist(), following.tolist(), strict=True), share, strict=True))
    assert found == {(1, 2): 3 / 4, (1, 3): 1 / 4, (2, 1): 1, (3, 3): 1}


def test_scores_by_hand():
    # Counts 4, 4, 2, 0 of 10; beta = 0.2: the base is 0.08, 0.08, 0.04, 0.
    model = Markov(facts([[1, 2, 1, 2], [1, 2], [], [1, 3, 3], [2]], 4), backoff=0.2)
    hidden = model(toy.batch([[2, 1, 3], [4, 2]])).hidden
    assert hidden.tolist() == [[2], [1], [4]]
    expected = [
        [0.8 + 0.08, 0.08, 0.04, 0],  # after 2 came 1
        [0.08, 0.8 * 3 / 4 + 0.08, 0.8 / 4 + 0.04, 0],  # after 1 came 2 and 3
        [0.08, 0.08, 0.04, 0],  # nothing came after 4
    ]
    torch.testing.assert_close(model.scorer.every(hidden), torch.tensor(expected))


def test_agrees_with_dense_counting():
    generator = torch.Generator().manual_seed(0)
    histories = [
        torch.randint(1, 13, (n,), generator=generator).tolist() for n in [1, 2, 9, 30] * 5
    ]
    model = Markov(facts(histories, 12), backoff=0.3)
    n = torch.zeros(12, 12, dtype=torch.double)
    c = torch.zeros(12, dtype=torch.double)
    for history in histories:
        for j in history:
            c[j - 1] += 1
        for i, j in pairwise(history):
            n[i - 1, j - 1] += 1
    expected = 0.7 * n / n.sum(1, keepdim=True) + 0.3 * c / c.sum()
    scores = model.scorer.every(torch.arange(1.0, 13)[:, None])
    torch.testing.assert_close(scores.double(), expected, atol=1e-6, rtol=1e-6)
    # Each row is a distribution.
    torch.testing.assert_close(scores.sum(1), torch.ones(12))


def test_ranks_seen_successors_then_the_popular_ones():
    # Counts 3, 5, 2, 4, 1 of items 1..5; after 1 came 5, once, and 3, once.
    info = facts([[2, 1, 5], [4, 1, 3], [4, 2, 2, 1], [4, 4, 2, 2, 3]], 5)
    assert info.counts.tolist() == [3, 5, 2, 4, 1]
    flat = toy.jagged([[4, 1]] * 5 + [[]])
    part = HeldOut(
        torch.arange(6),
        torch.tensor([3, 5, 2, 4, 1, 4]),
        flat.values,
        flat.offsets[:-1],
        flat.offsets[1:],
    )
    result = Evaluator(part, info, seen="keep")(Markov(info))
    # Without a history item 4 stands behind item 2 alone.
    assert result.greater.tolist() == [0, 1, 2, 3, 4, 1]
    assert not result.ties.any()


def test_a_cycle_is_learnt():
    info = facts([[(start + i) % 30 + 1 for i in range(8)] for start in range(30)], 30)
    model = Markov(info)
    best = model.scorer.every(torch.arange(1.0, 31)[:, None]).argmax(1) + 1
    assert best.tolist() == [*range(2, 31), 1]


def test_held_out_transitions_are_not_counted():
    # 11-12 stands in validation and 12-13 in the test: training has 10-11 alone.
    rows = [(user, item, t) for user in (1, 2) for t, item in enumerate([10, 11, 12, 13])]
    split = LeaveOneOut()(made.interactions(rows), max_length=8, seed=0)
    scorer = Markov(split.info).scorer
    assert scorer.column.tolist() == [1]  # item 11, the second of the catalogue
    assert scorer.every(torch.tensor([[2.0], [3.0]])).tolist() == [scorer.weight[:, 0].tolist()] * 2


@pytest.mark.parametrize("backoff", [0.0, 1.0])
def test_bad_settings_are_refused(backoff):
    with pytest.raises(ValueError, match=rf"backoff must be in \(0, 1\), got {backoff}"):
        Markov(facts([[1, 2]], 2), backoff=backoff)


def test_it_needs_histories():
    with pytest.raises(ValueError, match="model=markov counts transitions: it needs info"):
        Markov(toy.info(4))


def test_nothing_to_train():
    assert list(Markov(facts([[1, 2]], 2)).parameters()) == []
