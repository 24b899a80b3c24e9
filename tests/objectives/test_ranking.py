import pytest
import torch
from torch import nn

from negrec.losses.bce import BCE
from negrec.models.sasrec import SASRec
from negrec.objectives.ranking import Ranking
from negrec.samplers.base import Sampler
from negrec.types import Negatives, Step
from tests import toy


class Fixed(Sampler):
    """Always answers with item 9, and keeps what it observes."""

    def __init__(self, info):
        super().__init__(info)
        self.observed = []
        self.register_buffer("state", torch.zeros(1))

    def sample(self, queries, scorer, step):
        assert not queries.hidden.requires_grad
        return Negatives(torch.full((len(queries.target), 1), 9))

    def observe(self, feedback):
        self.observed.append(feedback)


def objective():
    return Ranking(toy.info(), None, Fixed, BCE())


def model():
    torch.manual_seed(0)
    return SASRec(toy.info(), dim=8, dropout=0.0, init_std=0.3)


def test_the_loss_is_the_mean_over_queries():
    ranker, batch = model(), toy.batch([[1, 2, 3, 4], [5, 6]])
    outcome = objective()(ranker, batch, toy.step())
    states = ranker.states(batch)
    vectors = ranker.scorer.matrix
    positive = (states * vectors[batch.target - 1]).sum(1)
    expected = nn.functional.softplus(-positive) + nn.functional.softplus(states @ vectors[8])
    torch.testing.assert_close(outcome.loss, expected.mean() / 2)
    assert outcome.loss.requires_grad
    assert outcome.feedback.loss.shape == (4,)


def test_feedback_is_detached_and_reaches_the_sampler():
    made, ranker = objective(), model()
    outcome = made(ranker, toy.batch([[1, 2, 3]]), toy.step())
    assert not outcome.feedback.loss.requires_grad
    assert not outcome.feedback.scores.negative.requires_grad
    made.observe(ranker, outcome.feedback)
    assert made.sampler.observed == [outcome.feedback]


def test_the_sampler_is_checkpointed_with_the_objective():
    assert "sampler.state" in objective().state_dict()


def test_sampling_is_timed():
    booked = []

    class Watch:
        def __enter__(self):
            booked.append("in")

        def __exit__(self, *_):
            booked.append("out")

    step = Step(0, 0, torch.Generator(), timer=lambda name: booked.append(name) or Watch())
    objective()(model(), toy.batch([[1, 2, 3]]), step)
    assert booked == ["sampler", "in", "out"]


def test_evaluation_looks_at_the_model_itself():
    ranker = model()
    assert objective().evaluated(ranker) is ranker
    with pytest.raises(StopIteration):
        next(objective().parameters())
