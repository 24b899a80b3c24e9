import pytest
import torch

from negrec.models.mminforec import MMInfoRec
from negrec.models.sasrec import SASRec
from negrec.scoring import ItemScorer
from tests import toy

V, L, D, M = 20, 8, 8, 5
BATCH = toy.batch([[1, 2, 3, 4], [5, 6, 7]])


def build(**settings):
    torch.manual_seed(0)
    settings = {"dim": D, "dropout": 0.0, "slots": M, "init_std": 0.5, **settings}
    model = MMInfoRec(toy.info(V, max_length=L), **settings)
    with torch.no_grad():
        model.address.bias.add_(0.5 * torch.randn(M))
    return model.double().eval()


def read_by_hand(model, c):
    score = [w @ c + b for w, b in zip(model.address.weight, model.address.bias, strict=True)]
    total = sum(torch.exp(s) for s in score)
    return c + sum(
        torch.exp(s) / total * slot for s, slot in zip(score, model.memory.weight, strict=True)
    )


def gru_by_hand(cell, x, h):
    (wr, wz, wn), (ur, uz, un) = cell.weight_ih.chunk(3), cell.weight_hh.chunk(3)
    (br, bz, bn), (cr, cz, cn) = cell.bias_ih.chunk(3), cell.bias_hh.chunk(3)
    r = torch.sigmoid(wr @ x + br + ur @ h + cr)
    z = torch.sigmoid(wz @ x + bz + uz @ h + cz)
    n = torch.tanh(wn @ x + bn + r * (un @ h + cn))
    return (1 - z) * n + z * h


@torch.no_grad()
def test_states_read_the_memory():
    model = build()
    states = model(BATCH).hidden
    for c, state in zip(SASRec.states(model, BATCH), states, strict=True):
        torch.testing.assert_close(state, read_by_hand(model, c))
        assert (state - c).abs().max() > 0.1


@torch.no_grad()
def test_an_empty_memory_is_sasrec():
    model = build()
    model.memory.weight.zero_()
    sasrec = SASRec(toy.info(V, max_length=L), dim=D).double().eval()
    sasrec.load_state_dict(model.state_dict(), strict=False)
    assert torch.equal(model.represent(BATCH), sasrec.represent(BATCH))


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
def test_later_items_are_foretold_one_after_the_other(bias):
    model = build(scorer=lambda *args: ItemScorer(*args, bias=bias))
    hidden = model(BATCH).hidden
    foretold = model.following(hidden, 3)
    assert len(foretold) == 3
    for i, x in enumerate(hidden):
        h = torch.zeros(D).double()
        for state in foretold:
            h = gru_by_hand(model.cell, x, h)
            x = read_by_hand(model, h)
            if bias:  # the number that meets the items' biases
                x = torch.cat([x, torch.ones(1).double()])
            torch.testing.assert_close(state[i], x)
    assert model.following(hidden, 0) == []


def test_what_is_read_is_dropped_out_in_training():
    model = build(memory_dropout=0.5).train()
    states = model.states(BATCH)
    kept = (states != 0).double().mean().item()
    assert 0.2 < kept < 0.8
    twice = 2 * model.eval().states(BATCH)
    torch.testing.assert_close(states, torch.where(states != 0, twice, 0))


def test_the_memory_and_its_addresses_start_as_the_other_matrices():
    torch.manual_seed(0)
    model = MMInfoRec(toy.info(9), dim=64, slots=64, init_std=0.3)
    for layer in (model.memory, model.address):  # 4096 numbers: a standard error of 0.0033
        assert layer.weight.std().item() == pytest.approx(0.3, abs=0.015)
    assert not model.address.bias.any()


def test_number_of_parameters():
    # W, b 8 * 5 + 5; M 5 * 8; the cell: three gates, 8 * 8 + 8 for input and for state each.
    sasrec = SASRec(toy.info(V, max_length=L), dim=D)
    extra = 45 + 40 + 3 * 2 * 72
    assert sum(p.numel() for p in build().parameters()) == extra + sum(
        p.numel() for p in sasrec.parameters()
    )


def test_ranking_reaches_the_memory_and_spares_the_cell():
    model = build()
    model(BATCH).hidden.sum().backward()
    assert model.memory.weight.grad.abs().amax(1).min() > 1e-4
    assert model.address.weight.grad.abs().amax(1).min() > 1e-4
    assert model.cell.weight_ih.grad is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slots": 0}, "slots must be at least 1, got 0"),
        ({"memory_dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
