from functools import partial

import pytest
import torch
from torch import nn

from negrec.losses.bce import BCE
from negrec.losses.bpr import BPR
from negrec.losses.sampled_softmax import SampledSoftmax
from negrec.losses.softmax import Softmax
from negrec.models.sasrec import SASRec
from negrec.objectives.ranking import Ranking
from negrec.samplers.base import Sampler
from negrec.samplers.full import Full
from negrec.samplers.uniform import Uniform
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
        assert not torch.is_grad_enabled()
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


def test_queries_without_a_valid_negative_are_skipped_and_counted():
    # Item 9 is the target of the second sequence's only query.
    ranker = model()
    outcome = objective()(ranker, toy.batch([[1, 2, 3, 4], [5, 9]]), toy.step())
    alone = objective()(ranker, toy.batch([[1, 2, 3, 4]]), toy.step())
    assert outcome.skipped.item() == 1
    torch.testing.assert_close(outcome.loss, alone.loss)
    assert outcome.feedback.loss[3].item() == 0


def test_a_batch_without_any_valid_negative_is_no_nan():
    ranker = model()
    outcome = objective()(ranker, toy.batch([[5, 9]]), toy.step())
    outcome.loss.backward()
    assert outcome.loss.item() == 0
    assert outcome.skipped.item() == 1
    assert ranker.scorer.weight.grad.eq(0).all()


class Labelling(Fixed):
    """May relabel."""

    labels = True


@pytest.mark.parametrize(
    ("sampler", "loss", "reason"),
    [
        (Fixed, Softmax(), "loss Softmax .* sampler Fixed: .* use sampler=full"),
        (Fixed, SampledSoftmax(log_q="standard"), "loss SampledSoftmax .* Fixed: log-Q needs"),
        (Fixed, BCE(log_q="standard"), "loss BCE .* Fixed: log-Q needs"),
        (Labelling, BPR(), "loss BPR .* Labelling: .* the loss cannot honour labels"),
    ],
)
def test_pairs_that_do_not_go_together_are_refused(sampler, loss, reason):
    with pytest.raises(ValueError, match=reason):
        Ranking(toy.info(), None, sampler, loss)


def test_a_loss_that_is_not_built_is_refused():
    with pytest.raises(ValueError, match="leave _partial_ out of its yaml"):
        Ranking(toy.info(), None, Fixed, partial(BCE))


def test_pairs_that_go_together_are_not_refused():
    for loss in (SampledSoftmax(log_q="refined"), BPR()):
        Ranking(toy.info(), None, partial(Uniform, k=2), loss)
    Ranking(toy.info(), None, Full, Softmax())
    Ranking(toy.info(), None, Labelling, BCE())


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
