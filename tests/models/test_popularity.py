"""The popularity ranker."""

import torch

from negrec.evaluation.evaluator import Evaluator
from negrec.models.popularity import Popularity
from negrec.types import HeldOut
from tests import toy


def test_ranks_by_count():
    info = toy.info(4, counts=[3, 7, 0, 3])
    # Histories 2 and 4; targets 1 (behind 2? it is seen; beside 4) and 3 (behind 1 and 2).
    held_out = HeldOut(
        user=torch.tensor([0, 1]),
        target=torch.tensor([1, 3]),
        items=torch.tensor([2, 4]),
        start=torch.tensor([0, 1]),
        end=torch.tensor([1, 2]),
    )
    result = Evaluator(held_out, info)(Popularity(info))
    assert result.greater.tolist() == [0, 2]
    assert result.ties.tolist() == [1, 0]


def test_somebody_without_a_history_is_ranked_for_alike():
    info = toy.info(4, counts=[3, 7, 0, 3])
    nobody = HeldOut(*(torch.tensor([x]) for x in (0, 3, 2, 0, 0)))
    result = Evaluator(nobody, info)(Popularity(info))
    assert (result.greater[0], result.ties[0]) == (3, 0)  # behind 1, 2 and 4


def test_scores_are_counts():
    model = Popularity(toy.info(5, counts=[4, 0, 9, 2**24, 1]))
    queries = model(toy.batch([[1, 2, 3], [4, 5]]))
    assert queries.target.tolist() == [2, 3, 5]
    scores = model.scorer(queries.hidden, torch.tensor([[3, 2, 4]]))
    assert scores.tolist() == [[9, 0, 2**24]] * 3


def test_nothing_to_train():
    model = Popularity(toy.info(5))
    assert list(model.parameters()) == []
    other = Popularity(toy.info(5, counts=[9, 9, 9, 9, 9]))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.scorer.weight, model.scorer.weight)
