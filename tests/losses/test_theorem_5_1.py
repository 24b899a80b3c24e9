"""Theorem 5.1 of gSASRec (arXiv:2308.07192): what scores trained with gBCE converge to."""

import pytest
import torch

from negrec.losses.gbce import GBCE
from negrec.samplers.uniform import Uniform
from negrec.scoring import ItemScorer
from negrec.types import Batch, Queries, Step
from tests import toy

P = torch.tensor([0.36, 0.24, 0.16, 0.12, 0.12])  # of 5 items
QUERIES = 40_000  # of a step
STEPS = 100
BURN_IN = 20  # steps that are left out of the mean


def queries_for(target: torch.Tensor) -> Queries:
    """Queries that know nothing: a state of 1, so that an item's score is its own parameter."""
    n = len(target)
    index = torch.arange(n)
    batch = Batch(index, target, torch.zeros(n).long(), torch.arange(n + 1), index, target)
    return Queries.of(batch, torch.ones(n, 1))


def trained(t: float, k: int) -> torch.Tensor:
    """sigma(s) of a table of scores after descent along gBCE's sampled gradient, (V,)."""
    scorer = ItemScorer(len(P), 1, std=0.0)
    sampler = Uniform(toy.info(len(P)), k=k, share="query", exclude="target")
    loss = GBCE(t)
    # The curvature of the mean loss is (beta P + alpha (1 - P)) sigma (1 - sigma) / (k + 1),
    # here 0.017 to 0.057: at this rate a step takes away 35% or more of what is left of the start.
    optimizer = torch.optim.SGD(scorer.parameters(), lr=20.0)
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(len(P))
    for index in range(STEPS):
        target = torch.multinomial(P, QUERIES, replacement=True, generator=generator) + 1
        queries = queries_for(target)
        negatives = sampler.sample(queries, scorer, Step(0, index, generator))
        optimizer.zero_grad()
        loss(queries, negatives, scorer).mean().backward()
        optimizer.step()
        if index >= BURN_IN:
            total += scorer.weight.detach()[:, 0]
    return torch.sigmoid(total / (STEPS - BURN_IN))


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_scores_converge_to_what_theorem_5_1_says(t):
    # Redrawn exclusion of the target: each other item is a negative alpha = k / (V - 1) times.
    # The averaged scores are as good as the maximum likelihood from all n = 3.2 million queries
    # of the mean. Of an item P n are positives and alpha (1 - P) n draws are negatives, so the
    # odds have a relative deviation of sqrt(1 / (P n) + 1 / (alpha (1 - P) n)), at most 0.19%
    # for P = 0.12, and a probability (1 - sigma) times that: 1% is more than 5 deviations.
    k = 2
    alpha = k / (len(P) - 1)
    beta = 1 - t * (1 - alpha)
    expected = beta * P / (alpha - alpha * P + beta * P)
    assert alpha < 1
    torch.testing.assert_close(trained(t, k), expected, rtol=0.01, atol=0)
