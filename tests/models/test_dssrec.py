from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from negrec.models.dssrec import DSSRec
from negrec.models.sasrec import SASRec
from tests import toy

V, L, D, K = 20, 40, 8, 3
# Narrow and wide rows of the packing, and a sequence of one token.
HISTORIES = [[1, 2], *toy.random_histories(6, V, 6), [i % V + 1 for i in range(30)]]


def build(**settings):
    torch.manual_seed(0)
    settings = {"dim": D, "dropout": 0.0, "intentions": K, "init_std": 0.3, **settings}
    model = DSSRec(toy.info(V, max_length=L), **settings).double()
    with torch.no_grad():  # everything away from the values at which errors cancel
        for name, parameter in model.disentangle.named_parameters():
            if name != "prototypes":
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def vectors_of(model, z, later=False):
    """Phi_k after the newest of the states z (n, D), item by item as the paper has it, (K, D)."""
    m = model.disentangle

    def norm(x, layer):
        return F.layer_norm(x, (D,), layer.weight, layer.bias)

    n = len(z)
    alpha = [m.positions[model.from_end[i]] for i in range(n)]
    query = norm(alpha[-1] + z[-1] + m.query_bias, m.query_norm)
    weight = []
    for i in range(n):
        key = norm(alpha[i] + z[i], m.key_norm)
        key = key + torch.relu(m.transform.weight @ key + m.transform.bias)
        weight.append(torch.exp(key @ query / D**0.5))
    total = sum(weight)
    vectors = []
    for k in range(K):
        out = (m.later_bias if later else m.bias)[k]
        for i in range(n):
            out = out + weight[i] / total * belief_of(model, z[i])[k] * z[i]
        vectors.append(norm(out, m.vector_norm))
    return torch.stack(vectors)


def belief_of(model, z):
    m = model.disentangle
    likeness = [
        F.layer_norm(z, (D,), m.token_norm.weight, m.token_norm.bias)
        @ F.layer_norm(c, (D,), m.prototype_norm.weight, m.prototype_norm.bias)
        / D**0.5
        for c in m.prototypes
    ]
    total = sum(torch.exp(x) for x in likeness)
    return [torch.exp(x) / total for x in likeness]


@torch.no_grad()
def test_the_equations_token_by_token():
    model = build()
    batch = toy.batch(HISTORIES, max_length=L)
    z = SASRec.states(model, batch)
    states = model.states(batch)
    whole, later = model.intentions(batch), model.intentions(batch, later=True)
    for b, (start, end) in enumerate(zip(batch.offsets[:-1], batch.offsets[1:], strict=True)):
        model.from_end = batch.from_end[start:end]
        for t in range(start, end):
            phi = vectors_of(model, z[start : t + 1])
            expected = sum(p * v for p, v in zip(belief_of(model, z[t]), phi, strict=True))
            torch.testing.assert_close(states[t], expected, atol=1e-10, rtol=1e-10)
        torch.testing.assert_close(whole[b], phi, atol=1e-10, rtol=1e-10)
        newest = vectors_of(model, z[start:end], later=True)
        torch.testing.assert_close(later[b], newest, atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_the_vectors_of_a_sequence_do_not_depend_on_the_batch():
    model = build()
    together = model.intentions(toy.batch(HISTORIES, max_length=L))
    for b, history in enumerate(HISTORIES):
        alone = model.intentions(toy.batch([history], max_length=L))
        torch.testing.assert_close(together[b], alone[0], atol=1e-10, rtol=1e-10)


@torch.no_grad()
def test_the_future_does_not_change_the_state_of_a_token():
    model = build()
    batch = toy.batch([[1, 2, 3, 4, 5]], max_length=L)
    other = replace(batch, items=torch.tensor([1, 2, 9, 8]))
    one, two = model.states(batch), model.states(other)
    torch.testing.assert_close(one[:2], two[:2])
    assert (one[2:] - two[2:]).abs().amax(1).min() > 1e-3
    past = replace(batch, items=torch.tensor([9, 2, 3, 4]))
    assert (one - model.states(past)).abs().amax(1).min() > 1e-3


@torch.no_grad()
def test_with_sharp_intentions_the_state_is_the_vector_of_the_best():
    model = build()
    batch = toy.batch(HISTORIES, max_length=L)
    model.disentangle.token_norm.weight.mul_(1e6)  # cosines far apart: p is 0 or 1
    belief = model.disentangle.clusters(SASRec.states(model, batch))[batch.last]
    assert set(belief.flatten().tolist()) == {0.0, 1.0}
    assert len(belief.argmax(1).unique()) > 1
    best = model.intentions(batch)[torch.arange(len(belief)), belief.argmax(1)]
    torch.testing.assert_close(model.states(batch)[batch.last], best)


def test_matrices_start_as_told_and_what_is_taken_apart_with_lengths_of_about_one():
    torch.manual_seed(0)
    taken = DSSRec(toy.info(9), dim=64, intentions=32, init_std=0.3).disentangle
    # 4096 and 2048 numbers: standard errors of 0.0033 and 0.002.
    assert taken.transform.weight.std().item() == pytest.approx(0.3, abs=0.015)
    assert not taken.transform.bias.any()
    for vectors in (taken.prototypes, taken.bias, taken.later_bias):
        assert vectors.std().item() == pytest.approx(1 / 8, abs=0.01)


def test_number_of_parameters():
    # Prototypes, beta and beta' 3 * 3 * 8; alpha 40 * 8; b' 8; W, b 64 + 8; five norms of 16.
    sasrec = SASRec(toy.info(V, max_length=L), dim=D)
    extra = 72 + 320 + 8 + 72 + 80
    assert sum(p.numel() for p in build().parameters()) == extra + sum(
        p.numel() for p in sasrec.parameters()
    )


def test_ranking_reaches_the_prototypes_and_spares_the_later_biases():
    model = build()
    model(toy.batch([[1, 2, 3], [4, 5]], max_length=L)).hidden[:, 0].sum().backward()
    assert model.disentangle.prototypes.grad.abs().amax(1).min() > 1e-4
    assert model.disentangle.later_bias.grad is None


def test_no_intention_is_refused():
    with pytest.raises(ValueError, match="intentions must be at least 1, got 0"):
        build(intentions=0)
