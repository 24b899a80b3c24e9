import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from negrec.losses.bce import BCE
from negrec.losses.softmax import Softmax
from negrec.models.sse_pt import SSEPT, exchanged
from negrec.types import Negatives, Queries
from tests import toy

D, U, V, L = 6, 4, 20, 12  # sizes of items' and users' vectors
W = D + U


def build(info=None, **settings):
    torch.manual_seed(0)
    settings = {"dim": D, "user_dim": U, "dropout": 0.0, "init_std": 0.4, **settings}
    model = SSEPT(info or toy.info(V, max_length=L), **{"p_user": 0.0, "p_item": 0.0, **settings})
    with torch.no_grad():  # biases and norms away from the values at which errors cancel
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def plain_scores(model, user, history):
    """The second implementation: one history, the paper's layout, all scores after each item."""
    n, encoder = len(history), model.encoder
    u = model.users.table.weight[user]
    x = torch.stack([torch.cat([model.scorer.weight[item - 1], u]) for item in history])
    x = x + encoder.positions.weight[:n].flip(0)
    for block in encoder.blocks:
        query = block.norm1(x)
        w, b = block.qkv.weight.chunk(3), block.qkv.bias.chunk(3)
        q, k, v = (F.linear(y, w[i], b[i]) for i, y in enumerate((query, x, x)))
        heads = []
        for part in (slice(0, W // 2), slice(W // 2, W)):
            score = q[:, part] @ k[:, part].T / math.sqrt(W // 2)
            visible = torch.ones(n, n).tril().bool()
            heads.append(score.masked_fill(~visible, -torch.inf).softmax(1) @ v[:, part])
        y = block.norm2(query + torch.cat(heads, 1))
        x = y + block.down(F.relu(block.up(y)))
    items = torch.cat([model.scorer.weight, u.expand(V, U)], 1)  # [e_i; u]
    return encoder.final(x) @ items.T


@given(
    histories=st.lists(st.lists(st.integers(1, V), min_size=2, max_size=L), min_size=1, max_size=6)
)
@settings(deadline=None, max_examples=15)
def test_packed_and_plain_scores_agree(histories):
    model = build(layout="sasrec").double()
    readout = torch.randn(V, generator=torch.Generator().manual_seed(0)).double()

    def run(scores):
        model.zero_grad()
        (scores @ readout).sin().sum().backward()
        return scores.detach(), {n: p.grad.clone() for n, p in model.named_parameters()}

    queries = model(toy.batch(histories, max_length=L))
    packed, packed_gradients = run(model.scorer.every(queries.hidden))
    parts = [plain_scores(model, user, history[:-1]) for user, history in enumerate(histories)]
    plain, plain_gradients = run(torch.cat(parts))
    torch.testing.assert_close(packed, plain, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(packed_gradients, plain_gradients, atol=1e-9, rtol=1e-9)


def test_number_of_parameters():
    # Items 20 * 6, users 50 * 4, positions 12 * 10; a block: qkv 10 * 30 + 30, out 10 * 10 + 10,
    # two norms of 20, feed-forward 10 * 40 + 40 + 40 * 10 + 10; the last norm 20.
    expected = 120 + 200 + 120 + 2 * (330 + 110 + 40 + 850) + 20
    assert sum(p.numel() for p in build().parameters()) == expected


def test_a_state_does_not_depend_on_later_items():
    model = build()
    one = model.states(toy.batch([[1, 2, 3, 4, 5], [6, 7, 8]]))
    other = model.states(toy.batch([[1, 2, 9, 7, 5], [6, 7, 8]]))
    torch.testing.assert_close(one[[0, 1, 4, 5]], other[[0, 1, 4, 5]])
    assert (one[[2, 3]] - other[[2, 3]]).abs().amax() > 1e-4


def test_exchanges_are_as_frequent_as_told_and_uniform():
    torch.manual_seed(0)
    ids = torch.full((20_000,), 3)
    assert torch.equal(exchanged(ids, 0.0, 1, 6), ids)
    drawn = exchanged(ids, 1.0, 1, 6)
    assert toy.chi_square_p(drawn - 1, torch.full((5,), 0.2)) > 1e-4
    some = exchanged(ids, 0.3, 1, 6)
    # Of the exchanged, 30 %, a fifth is 3 again: 0.7 + 0.3 / 5 and four times 0.3 / 5.
    expected = torch.tensor([0.06, 0.06, 0.76, 0.06, 0.06])
    assert toy.chi_square_p(some - 1, expected) > 1e-4


@pytest.mark.parametrize(("p_user", "p_item"), [(1.0, 0.0), (0.0, 1.0), (0.5, 0.5)])
def test_training_sees_exchanged_users_and_items_with_their_own_targets(p_user, p_item):
    model = build(p_user=p_user, p_item=p_item)
    batch = toy.batch(toy.random_histories(6, V, L), max_length=L)
    torch.manual_seed(5)
    queries = model(batch)
    torch.manual_seed(5)
    user = exchanged(batch.user, p_user, 0, 50)
    items = exchanged(batch.items, p_item, 1, V + 1)
    assert torch.equal(user, batch.user) is (p_user == 0)
    assert torch.equal(items, batch.items) is (p_item == 0)
    model.eval()
    torch.testing.assert_close(queries.hidden, model.states(replace(batch, user=user, items=items)))
    assert torch.equal(queries.target, batch.target)
    assert torch.equal(queries.user, batch.user[queries.sequence])


def test_nothing_is_exchanged_outside_training():
    batch = toy.batch([[1, 2, 3, 4], [5, 6, 7]])
    certain, never = build(p_user=1.0, p_item=1.0).eval(), build().eval()
    assert torch.equal(certain.represent(batch), never.represent(batch))


def test_bce_depends_on_the_user_part_of_a_score_and_softmax_does_not():
    model = build(init_std=1.0)
    batch = toy.batch([[1, 2, 3, 4], [5, 6, 7]])
    queries = model(batch)
    without = Queries.of(batch, F.pad(queries.hidden[:, :-1], (0, 1)))
    assert not torch.allclose(queries.hidden, without.hidden)
    negatives = Negatives(torch.tensor([[8, 9, 10]]))
    every = Negatives(torch.arange(1, V + 1)[None], exhaustive=True)
    bce, softmax = BCE(), Softmax()
    one, other = (bce(q, negatives, model.scorer).loss for q in (queries, without))
    assert (one - other).abs().amin() > 1e-3
    one, other = (softmax(q, every, model.scorer).loss for q in (queries, without))
    torch.testing.assert_close(one, other)


def test_unknown_users_have_zeros():
    trained = torch.arange(50) != 1
    model = build(replace(toy.info(V, max_length=L), trained_users=trained))
    batch = replace(toy.batch([[1, 2]] * 3), user=torch.tensor([0, 1, -1]))
    states = model.states(batch)
    with torch.no_grad():
        model.users.table.weight.zero_()
    of_zeros = model.states(batch)
    torch.testing.assert_close(states[1:], of_zeros[1:])
    assert states[1:, -1].tolist() == [0, 0]  # the part of the user in the score
    assert (states[0] - of_zeros[0]).abs().amax() > 1e-3


def test_dropout_differs_from_call_to_call_in_training_only():
    model = build(dropout=0.5)
    batch = toy.batch([[1, 2, 3, 4]])
    assert not torch.equal(model.states(batch), model.states(batch))
    model.eval()
    assert torch.equal(model.states(batch), model.states(batch))


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"p_user": 1.5}, r"p_user must be in \[0, 1\], got 1.5"),
        ({"p_item": -0.1}, r"p_item must be in \[0, 1\], got -0.1"),
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"user_dim": 0}, "user_dim must be at least 1, got 0"),
        ({"heads": 3}, r"heads must divide dim \+ user_dim, got heads=3 and"),
    ],
)
def test_bad_settings_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        build(**chosen)
