import pytest
import torch

from negrec.losses import base
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
        return judgement.loss.detach(), gradient, scorer.weight.grad, judgement.scores

    whole = run()
    monkeypatch.setattr(base, "_AT_ONCE", 40)
    parts = run()
    assert whole[3] is not None
    assert parts[3] is None
    for a, b in zip(whole[:3], parts[:3], strict=True):
        torch.testing.assert_close(a, b)
