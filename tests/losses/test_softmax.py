from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from negrec.losses.softmax import Softmax
from negrec.samplers.full import Full
from negrec.types import Negatives
from tests import toy

V = 70


@pytest.fixture
def made():
    queries = toy.queries(toy.batch(toy.random_histories(30, V, 12), max_length=6))
    scorer = toy.scorer(V).double()
    return replace(queries, hidden=queries.hidden.double().requires_grad_()), scorer


def judged(queries, scorer, exclude="target", **settings):
    negatives = Full(toy.info(V), exclude).sample(queries, scorer, toy.step())
    return Softmax(**settings)(queries, negatives, scorer)


@pytest.mark.parametrize("exclude", ["none", "target"])
@pytest.mark.parametrize("width", [20, 1000])
def test_it_is_torch_s_cross_entropy(made, exclude, width, monkeypatch):
    toy.cut_tiles(monkeypatch, width)
    queries, scorer = made
    weights = torch.linspace(0.1, 2, len(queries.target), dtype=torch.float64)
    inputs = (queries.hidden, scorer.weight)
    ours = judged(queries, scorer, exclude, temperature=0.5).loss
    gradients = torch.autograd.grad((weights * ours).sum(), inputs)
    scores = queries.hidden @ scorer.weight.T / 0.5
    theirs = F.cross_entropy(scores, queries.target - 1, reduction="none")
    expected = torch.autograd.grad((weights * theirs).sum(), inputs)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(gradients, expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("exclude", ["window", "history"])
@pytest.mark.parametrize("width", [20, 1000])
def test_what_is_ruled_out_is_left_out_and_the_target_never(made, exclude, width, monkeypatch):
    toy.cut_tiles(monkeypatch, width)
    queries, scorer = made
    everything = Negatives(torch.arange(1, V + 1)[None], exclude=exclude, exhaustive=True)
    allowed = everything.valid(queries)
    allowed[torch.arange(len(allowed)), queries.target - 1] = True
    scores = (queries.hidden @ scorer.weight.T).masked_fill(~allowed, -torch.inf)
    expected = F.cross_entropy(scores, queries.target - 1, reduction="none")
    torch.testing.assert_close(judged(queries, scorer, exclude).loss, expected)
    assert (~allowed).any()


def test_gradients_are_those_of_finite_differences(made):
    queries, scorer = made
    some = queries.select(slice(0, 4))
    negatives = Full(toy.info(V)).sample(some, scorer, toy.step())

    def value(hidden):
        return Softmax()(replace(some, hidden=hidden), negatives, scorer).loss

    assert torch.autograd.gradcheck(value, (some.hidden.detach().requires_grad_(),))


def test_nothing_left_to_rank_below_is_skipped():
    queries = toy.queries(toy.batch([list(range(1, V + 1)), [3, 4, 5]], max_length=V))
    queries.hidden.requires_grad_()
    scorer = toy.scorer(V)
    judgement = judged(queries, scorer, "history")
    assert judgement.judged.tolist() == [False] * (V - 1) + [True] * 2
    judgement.mean().backward()
    assert judgement.loss[: V - 1].eq(0).all()
    assert queries.hidden.grad.isfinite().all()
    assert queries.hidden.grad[: V - 1].eq(0).all()


@pytest.mark.parametrize("scale", [1e3, 1e4])
def test_extreme_scores_stay_finite(scale):
    queries = toy.queries(toy.batch(toy.random_histories(30, V, 12), max_length=6))
    queries = replace(queries, hidden=(scale * queries.hidden).requires_grad_())
    scorer = toy.scorer(V)
    loss = judged(queries, scorer).loss
    loss.sum().backward()
    assert loss.isfinite().all()
    assert queries.hidden.grad.isfinite().all()


def test_a_score_that_is_not_a_number_shows_in_the_loss():
    queries, scorer = toy.queries(toy.batch([[1, 2, 3]])), toy.scorer(V)
    with torch.no_grad():
        scorer.weight[40] = torch.nan
    assert judged(queries, scorer).mean().isnan()


def test_half_precision_is_scored_in_full():
    queries, scorer = toy.queries(toy.batch([[1, 2, 3]])), toy.scorer(V)
    full = judged(queries, scorer).loss
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(judged(queries, scorer).loss, full)
    rough = replace(queries, hidden=queries.hidden.bfloat16())
    assert judged(rough, scorer).loss.dtype == torch.float32


def test_bad_temperature_is_refused():
    with pytest.raises(ValueError, match="temperature must be positive, got -1"):
        Softmax(temperature=-1.0)
