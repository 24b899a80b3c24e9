from math import sqrt

import pytest
import torch
from torch.nn import functional as F

from negrec import scoring
from negrec.evaluation.gradient import (
    full_gradient,
    gradient_error,
    sampled_gradient,
    target_gradient,
)
from negrec.losses.bce import BCE
from negrec.losses.sampled_softmax import SampledSoftmax
from negrec.losses.softmax import Softmax
from negrec.samplers.full import Full
from negrec.samplers.uniform import Uniform
from tests import toy

V = 30


def made():
    batch = toy.batch(toy.random_histories(12, V, 8))
    return toy.queries(batch), toy.scorer(V)


def test_the_full_gradient_is_that_of_cross_entropy():
    queries, scorer = made()
    hidden = queries.hidden.clone().requires_grad_()
    loss = F.cross_entropy(hidden @ scorer.matrix.T / 0.5, queries.target - 1, reduction="sum")
    (expected,) = torch.autograd.grad(loss, hidden)
    found = full_gradient(queries.hidden, queries.target, scorer, temperature=0.5)
    torch.testing.assert_close(found, expected)


def test_hand_computed():
    # g = (3, 1) and (3, -1): mean (3, 0), noise 1 + 1 = 2 of one draw, so |E g|^2 = 9 - 2/2 = 8.
    # f = (4, 3): <E g, f> = 12, scale 12/8, bias^2 = 1 - 12^2 / (8 * 25), variance 1.5^2 * 2 / 25.
    sampled = torch.tensor([[[3.0, 1.0]], [[3.0, -1.0]]])
    found = gradient_error(sampled, torch.tensor([[4.0, 3.0]]))
    assert found.scale == pytest.approx(1.5)
    assert found.bias == pytest.approx(sqrt(1 - 144 / 200))
    assert found.variance == pytest.approx(2.25 * 2 / 25)
    assert found.cosine == pytest.approx((15 / sqrt(250) + 9 / sqrt(250)) / 2)


def test_skipped_queries_do_not_count_for_the_cosine():
    sampled = torch.tensor([[[2.0, 0.0], [0.0, 0.0]]]).expand(2, 2, 2)
    full = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert gradient_error(sampled, full).cosine == pytest.approx(1)


def test_the_noise_of_few_draws_is_no_bias():
    full = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(16, 100, 8, generator=torch.Generator().manual_seed(1))
    found = gradient_error(full + 2 * noise, full)
    # The mean of 16 draws still carries noise of 2^2 / 16 = 1/4 of |f|^2.
    assert found.bias < 0.12
    assert found.variance == pytest.approx(4, rel=0.1)
    assert found.scale == pytest.approx(1, abs=0.05)


def test_pure_noise_has_no_answer():
    sampled = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]])
    assert gradient_error(sampled, torch.tensor([[1.0, 0.0]])) is None


def error(sampler, loss, draws=8):
    queries, scorer = made()
    drawn = [sampler.sample(queries, scorer, toy.step(seed)) for seed in range(draws)]
    full = full_gradient(queries.hidden, queries.target, scorer)
    return gradient_error(sampled_gradient(queries, drawn, loss, scorer), full)


@pytest.mark.parametrize("loss", [SampledSoftmax(), Softmax()])
def test_the_whole_catalogue_is_no_substitute_but_the_thing_itself(loss):
    found = error(Full(toy.info(V)), loss, draws=2)
    assert found.bias < 1e-3
    assert found.variance < 1e-10
    assert found.cosine == pytest.approx(1, abs=1e-5)
    assert found.scale == pytest.approx(1, abs=1e-5)


def test_refined_log_q_with_many_uniform_draws_goes_to_the_full_gradient():
    def of(k, log_q):
        sampler = Uniform(toy.info(V), k=min(k, V))
        sampler.k = k  # more than the catalogue: it draws with replacement
        return error(sampler, SampledSoftmax(log_q=log_q))

    few, many = of(4, "refined"), of(4000, "refined")
    assert many.bias < 0.02 < few.bias
    assert many.variance < 0.01 < few.variance
    assert many.cosine > 0.999 > few.cosine
    # Standard: the same correction on both sides. Among many draws the target's own share fades
    # to 0, where the full softmax keeps p+.
    assert of(4000, "standard").bias > 0.1


def test_the_slope_in_the_target_score_of_bce():
    # L = (softplus(-s+) + ...) / (1 + K): the slope is -sigma(-s+) / (1 + K).
    queries, scorer = made()
    negatives = Uniform(toy.info(V), k=3).sample(queries, scorer, toy.step())
    slope, judged = target_gradient(queries, negatives, BCE(), scorer)
    positive = (queries.hidden * scorer.matrix[queries.target - 1]).sum(1)
    torch.testing.assert_close(slope, (-torch.sigmoid(-positive) / 4).detach())
    assert judged.all()


@pytest.mark.parametrize("loss", [Softmax(), SampledSoftmax()])
@pytest.mark.parametrize("at_once", [1 << 22, 100])
def test_the_slope_in_the_target_score_of_softmax(loss, at_once, monkeypatch):
    # p+ - 1, also where the loss cuts its queries into chunks.
    monkeypatch.setattr(scoring, "_SCORES", at_once)
    queries, scorer = made()
    negatives = Full(toy.info(V)).sample(queries, scorer, toy.step())
    slope, _ = target_gradient(queries, negatives, loss, scorer)
    chance = (queries.hidden @ scorer.matrix.T).softmax(1)
    own = chance.gather(1, queries.target[:, None] - 1)[:, 0]
    torch.testing.assert_close(slope, (own - 1).detach())


def test_parameters_gain_no_gradient():
    queries, scorer = made()
    scorer.weight.grad = torch.zeros_like(scorer.weight)
    negatives = Uniform(toy.info(V), k=3).sample(queries, scorer, toy.step())
    target_gradient(queries, negatives, BCE(), scorer)
    sampled_gradient(queries, [negatives], BCE(), scorer)
    assert not scorer.weight.grad.any()
