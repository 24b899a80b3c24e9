import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from negrec.models.gru4rec import GRU4Rec
from tests import toy

D, V, L = 6, 20, 12


def build(**settings):
    torch.manual_seed(0)
    settings = {"dim": D, "dropout": 0.0, "init_std": 0.5, **settings}
    model = GRU4Rec(toy.info(V, max_length=L), **settings)
    with torch.no_grad():  # biases away from 0, where errors cancel
        for name, parameter in model.named_parameters():
            if "bias" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def plain_states(model, histories):
    """The second implementation: the equations, one history and one item at a time."""
    table = (model.input.own or model.scorer).weight
    states = []
    for history in histories:
        outputs = [table[item - 1] for item in history]
        for layer in model.layers:
            w_r, w_z, w_n = layer.weight_ih_l0.chunk(3)
            u_r, u_z, u_n = layer.weight_hh_l0.chunk(3)
            b_r, b_z, b_n = layer.bias_ih_l0.chunk(3)
            c_r, c_z, c_n = layer.bias_hh_l0.chunk(3)
            g = w_r.new_zeros(len(w_r))
            inputs, outputs = outputs, []
            for x in inputs:
                r = torch.sigmoid(w_r @ x + b_r + u_r @ g + c_r)
                z = torch.sigmoid(w_z @ x + b_z + u_z @ g + c_z)
                n = torch.tanh(w_n @ x + b_n + r * (u_n @ g + c_n))
                g = z * g + (1 - z) * n
                outputs.append(g)
        states += [model.projection(g) for g in outputs]
    return torch.stack(states)


@pytest.mark.parametrize(
    "chosen", [{}, {"layers": 2}, {"hidden": 4, "layers": 2}, {"tied": False, "hidden": 9}]
)
@given(
    histories=st.lists(st.lists(st.integers(1, V), min_size=2, max_size=L), min_size=1, max_size=8)
)
@settings(deadline=None, max_examples=10)
def test_packed_and_plain_computation_agree(chosen, histories):
    model = build(**chosen).double()
    readout = torch.randn(D, generator=torch.Generator().manual_seed(0)).double()

    def run(states):
        model.zero_grad()
        (states @ readout).sin().sum().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return states.detach(), gradients

    packed, packed_gradients = run(model.states(toy.batch(histories, max_length=L)))
    plain, plain_gradients = run(plain_states(model, [history[:-1] for history in histories]))
    torch.testing.assert_close(packed, plain, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(packed_gradients, plain_gradients, atol=1e-9, rtol=1e-9)


def test_order_of_reading():
    # Inputs of three histories: tokens 0 1 | 2 3 4 | 5. Longest first: the second, the first, the
    # third; so first items are tokens 2 0 5, second items 3 1, third item 4.
    batch = toy.batch([[1, 2, 3], [4, 5, 6, 7], [8, 9]])
    times = batch.times
    assert times.token.tolist() == [2, 0, 5, 3, 1, 4]
    assert times.slot.tolist() == [1, 4, 0, 3, 5, 2]
    assert times.sizes.tolist() == [3, 2, 1]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        # items 20 * 6; a layer: three gates, each 6 * 6 from the input, 6 * 6 from the state and
        # two biases of 6.
        ({}, 120 + 3 * (36 + 36 + 12)),
        ({"layers": 2}, 120 + 2 * 3 * (36 + 36 + 12)),
        ({"tied": False}, 240 + 3 * (36 + 36 + 12)),
        # The first layer reads 6 numbers, the second 4; back from 4 to 6.
        ({"hidden": 4, "layers": 2}, 120 + 3 * (24 + 16 + 8) + 3 * (16 + 16 + 8) + 4 * 6 + 6),
        ({"hidden": 6}, 120 + 3 * (36 + 36 + 12)),  # nothing to project
    ],
)
def test_number_of_parameters(chosen, expected):
    assert sum(p.numel() for p in build(**chosen).parameters()) == expected


def test_each_gate_starts_within_the_bounds_of_the_paper():
    # Rows + columns of a gate: 40 + 10 from the input, 80 from the state; of the projection 50.
    # Of 400 uniform numbers or more, the largest is above 0.9 of the bound but for 1e-18.
    torch.manual_seed(0)
    model = GRU4Rec(toy.info(V), dim=10, hidden=40)
    layer = model.layers[0]
    parts = [(gate, 50) for gate in layer.weight_ih_l0.chunk(3)]
    parts += [(gate, 80) for gate in layer.weight_hh_l0.chunk(3)]
    for matrix, total in [*parts, (model.projection.weight, 50)]:
        bound = (6 / total) ** 0.5
        assert 0.9 * bound < matrix.abs().max().item() <= bound
    assert not any(p.any() for name, p in model.named_parameters() if "bias" in name)


def test_a_state_does_not_depend_on_later_items():
    model = build(layers=2)
    one = model.states(toy.batch([[1, 2, 3, 4, 5], [6, 7, 8]]))
    other = model.states(toy.batch([[1, 2, 9, 7, 5], [6, 7, 8]]))
    torch.testing.assert_close(one[[0, 1, 4, 5]], other[[0, 1, 4, 5]])
    assert (one[[2, 3]] - other[[2, 3]]).abs().amin() > 1e-4


def test_where_dropout_acts():
    # With all embeddings 0 a first dropout would change nothing: there is one after the layers,
    # and one more between them.
    batch = toy.batch([[1, 2, 3, 4]])
    model = build(dropout=0.5, layers=2)
    with torch.no_grad():
        model.scorer.weight.zero_()
    dropped = model.states(batch)
    assert dropped.eq(0).any()  # of the last output, exactly
    # Without that output's zeros, what is left differs by more than the scale of 2.
    exact = model.eval().states(batch)
    kept = dropped != 0
    assert not torch.allclose(dropped[kept], 2 * exact[kept])
    assert torch.equal(exact, model.states(batch))


def test_dropout_acts_on_the_embeddings():
    # The state after one item, its layer's output dropped too: a kept value would be twice the
    # exact one if the input were whole.
    batch = toy.batch([[1, 2]])
    model = build(dropout=0.5)
    dropped, exact = model.states(batch), model.eval().states(batch)
    kept = dropped != 0
    assert kept.any()
    assert not torch.allclose(dropped[kept], 2 * exact[kept])


def test_tied_input_is_the_table_of_the_scorer():
    batch = toy.batch([[1, 2, 3], [4, 5]])
    for tied in (True, False):
        model = build(tied=tied)
        before = model.states(batch)
        with torch.no_grad():
            model.scorer.weight.mul_(2)
        assert torch.equal(before, model.states(batch)) is not tied


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
    ],
)
def test_bad_settings_are_refused(chosen, message):
    with pytest.raises(ValueError, match=message):
        build(**chosen)
