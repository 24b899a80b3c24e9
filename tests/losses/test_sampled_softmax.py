from dataclasses import replace
from functools import partial
from math import exp, log

import pytest
import torch

from negrec.losses.sampled_softmax import SampledSoftmax
from negrec.losses.softmax import Softmax
from negrec.samplers.cross_batch import CrossBatch
from negrec.samplers.full import Full
from negrec.samplers.in_batch import InBatch
from negrec.samplers.mixed import Mixture
from negrec.samplers.popularity import Popularity
from negrec.samplers.uniform import Uniform
from negrec.types import Negatives, Scores
from tests import toy

V = 200


def scores():
    """One query: target 1.0 with q = 0.5; negatives 2.0 and 0.3 with q = 0.2 and 0.1."""
    return Scores(
        torch.tensor([1.0]),
        torch.tensor([[2.0, 0.3]]),
        torch.tensor([[True, True]]),
        5,
        log_q=torch.tensor([[0.2, 0.1]]).log(),
        target_log_q=torch.tensor([0.5]).log(),
    )


def test_hand_computed_plain():
    total = exp(1) + exp(2) + exp(0.3)
    assert SampledSoftmax().per_query(scores()).item() == pytest.approx(-log(exp(1) / total))


def test_hand_computed_temperature():
    total = exp(2) + exp(4) + exp(0.6)
    loss = SampledSoftmax(temperature=0.5).per_query(scores())
    assert loss.item() == pytest.approx(-log(exp(2) / total))


def test_hand_computed_standard():
    target = exp(1) / 0.5
    total = target + exp(2) / 0.2 + exp(0.3) / 0.1
    loss = SampledSoftmax(log_q="standard").per_query(scores())
    assert loss.item() == pytest.approx(-log(target / total))


def test_hand_computed_refined():
    # K = 2 draws, also where one of them is ruled out.
    target = exp(1)
    total = target + exp(2) / (2 * 0.2) + exp(0.3) / (2 * 0.1)
    loss = SampledSoftmax(log_q="refined")
    assert loss.per_query(scores()).item() == pytest.approx(-log(target / total))
    masked = replace(scores(), valid=torch.tensor([[True, False]]))
    expected = -log(target / (target + exp(2) / (2 * 0.2)))
    assert loss.per_query(masked).item() == pytest.approx(expected)


@pytest.fixture(scope="module")
def confident():
    """Queries that give their target 0.8 of the softmax on average, and the item vectors."""
    queries = toy.queries(toy.batch(toy.random_histories(400, V, 12), max_length=12), dim=32)
    scorer = toy.scorer(V, dim=32)
    low, high = 0.0, 20.0
    with torch.no_grad():
        own = scorer.vectors(queries.target)
        for _ in range(40):
            scale = (low + high) / 2
            states = scale * own + 0.1 * queries.hidden
            share = (
                scorer.every(states).softmax(1)[torch.arange(len(own)), queries.target - 1]
            ).mean()
            low, high = (scale, high) if share < 0.8 else (low, scale)
    return replace(queries, hidden=states), scorer


def gradient(loss, queries, negatives, scorer):
    """Of the summed loss with respect to the states, (N, D)."""
    queries = replace(queries, hidden=queries.hidden.clone().requires_grad_())
    loss(queries, negatives, scorer).loss.sum().backward()
    return queries.hidden.grad


def full_gradient(queries, scorer):
    negatives = Full(toy.info(V)).sample(queries, scorer, toy.step())
    return gradient(Softmax(), queries, negatives, scorer)


def error(loss, queries, negatives, scorer):
    """Distance to the gradient of the full softmax, relative to its length."""
    exact = full_gradient(queries, scorer)
    return ((gradient(loss, queries, negatives, scorer) - exact).norm() / exact.norm()).item()


def many_draws(sampler, queries, scorer, draws=20_000):
    """Shared draws side by side until there are so many."""
    parts = []
    while sum(part.k for part in parts) < draws:
        parts.append(sampler.sample(queries, scorer, toy.step(len(parts))))
    return replace(
        parts[0],
        items=torch.cat([part.items for part in parts], 1),
        log_q=torch.cat([part.log_q for part in parts], 1),
        present=None,
        exclude="target",
    )


BATCH = {"share": "batch", "exclude": "target"}
SAMPLERS = {
    "uniform": partial(Uniform, k=200, **BATCH),
    "popularity": partial(Popularity, gamma=0.75, k=200, **BATCH),
    "inverse popularity": partial(Popularity, gamma=-1.0, k=200, **BATCH),
    "in-batch": partial(InBatch, k="all", **BATCH),
    "cross-batch": partial(CrossBatch, size=1, k="all", **BATCH),
    "mixed": partial(
        Mixture,
        parts={
            "in_batch": partial(InBatch, k=100, **BATCH),
            "uniform": partial(Uniform, k=100, **BATCH),
        },
    ),
}


@pytest.mark.parametrize("name", SAMPLERS)
def test_refined_goes_to_the_full_softmax_with_many_draws_and_standard_does_not(name, confident):
    queries, scorer = confident
    counts = torch.bincount(queries.target - 1, minlength=V)
    info = replace(toy.info(V, counts=counts.tolist()), target_counts=counts)
    sampler = SAMPLERS[name](info)
    if name == "cross-batch":
        sampler.queue.fill_(int(queries.target[0]))  # one more target among 2,400
    negatives = many_draws(sampler, queries, scorer)
    # 20,000 draws of 200 items: the sum over items has a standard error below 1 percent of
    # itself, except where q is small for an item that scores high.
    assert error(SampledSoftmax(log_q="refined"), queries, negatives, scorer) < 0.05
    # The target is in the denominator without having been drawn: log q+ is out of place there.
    assert error(SampledSoftmax(log_q="standard"), queries, negatives, scorer) > 0.5


def test_the_batch_s_own_frequencies_are_worse_than_those_of_training(confident):
    # 60 targets of 2,400: corrected by the density of training, and by the counts in the batch.
    queries, scorer = confident
    counts = torch.bincount(queries.target - 1, minlength=V)
    info = replace(toy.info(V, counts=counts.tolist()), target_counts=counts)
    generator = torch.Generator().manual_seed(0)
    loss = SampledSoftmax(log_q="refined")
    of_training, of_batch = [], []
    for _ in range(50):
        drawn = queries.target[torch.randperm(len(queries.target), generator=generator)[:60]]
        own = torch.bincount(drawn - 1, minlength=V)[drawn - 1] / 60
        log_q = InBatch(info).log_prob(drawn)
        of_training.append(Negatives(drawn[None], log_q=log_q[None], target_log_q=log_q[:1]))
        of_batch.append(Negatives(drawn[None], log_q=own.log()[None], target_log_q=log_q[:1]))

    def mean_gradient(draws):
        return torch.stack([gradient(loss, queries, n, scorer) for n in draws]).mean(0)

    exact = full_gradient(queries, scorer)
    errors = [
        ((mean_gradient(x) - exact).norm() / exact.norm()).item() for x in (of_training, of_batch)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_an_item_that_is_never_drawn_poisons_no_gradient():
    # The only query's candidates are ruled out, and item 1 has a density of 0.
    queries = toy.queries(toy.batch([[2, 3]]))
    queries.hidden.requires_grad_()
    log_q = torch.tensor([[-torch.inf, -1.0]])
    negatives = Negatives(torch.tensor([[1, 3]]), log_q=log_q, target_log_q=torch.tensor([-1.0]))
    negatives = replace(negatives, present=torch.tensor([[False, True]]))
    judgement = SampledSoftmax(log_q="refined")(queries, negatives, toy.scorer())
    judgement.mean().backward()
    assert judgement.judged.tolist() == [False]
    assert queries.hidden.grad.eq(0).all()


def test_over_all_items_it_is_the_full_softmax(confident):
    queries, scorer = confident
    negatives = Full(toy.info(V)).sample(queries, scorer, toy.step())
    sampled = SampledSoftmax(temperature=0.7)(queries, negatives, scorer).loss
    full = Softmax(temperature=0.7)(queries, negatives, scorer).loss
    torch.testing.assert_close(sampled, full)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"log_q": "both"}, "log_q must be one of none, standard, refined, got 'both'"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SampledSoftmax(**settings)
