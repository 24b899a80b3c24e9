from dataclasses import replace

import pytest
import torch

from negrec import scoring
from negrec.losses.bce import BCE
from negrec.samplers.uniform import Uniform
from tests import toy


@pytest.mark.parametrize("share", ["query", "sequence", "batch"])
def test_chunks_give_the_same_losses_and_gradients(share, monkeypatch):
    queries = toy.queries(toy.batch(toy.random_histories(12, 20, 8), max_length=8))
    queries.hidden.requires_grad_()
    sampler = Uniform(toy.info(), k=6, share=share)
    with torch.no_grad():
        negatives = sampler.sample(queries, toy.scorer(), toy.step())

    def run():
        scorer = toy.scorer()
        scorer.weight.grad = torch.zeros_like(scorer.weight)
        judgement = BCE()(queries, negatives, scorer)
        judgement.loss.sum().backward()
        gradient = queries.hidden.grad.clone()
        queries.hidden.grad = None
        assert judgement.judged.all() == (share != "query")
        return judgement.loss.detach(), gradient, scorer.weight.grad, judgement.scores

    # Some candidates count as positives, and some queries have none that is valid.
    n = len(queries.target)
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(2, (n, 6), generator=generator)
    mined = torch.zeros(n, 6, dtype=torch.bool)
    negatives = replace(negatives, label=label, mined=mined)
    if share == "query":
        present = torch.rand(n, 1, generator=generator) < 0.7
        negatives = replace(negatives, present=present.expand(n, 6))
    whole = run()
    monkeypatch.setattr(scoring, "_SCORES", 40)
    parts = run()
    assert whole[3] is not None
    assert parts[3] is None
    for a, b in zip(whole[:3], parts[:3], strict=True):
        torch.testing.assert_close(a, b)
