from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from negrec.models.caser import Caser
from negrec.scoring import ItemScorer
from tests import toy

D, V, N = 6, 20, 12


def build(info=None, **settings):
    torch.manual_seed(0)
    settings = {"dim": D, "horizontal": 3, "vertical": 2, "dropout": 0.0, "init_std": 1, **settings}
    return Caser(info or toy.info(V, max_length=N), **settings)


def filters(model):
    """The horizontal filters of each height as images, oldest row first: [(n, 1, h, D)]."""
    window, n = model.window, model.horizontal.filters
    images = []
    for h in range(1, window + 1):
        rows = [model.horizontal.weight[age][(h - 1 - age) * n :][:n] for age in range(h)]
        images.append(torch.stack(rows[::-1], 1)[:, None])
    return images


def plain_states(model, batch):
    """The second implementation: explicit windows, filled up with zeros, and convolutions."""
    table = model.input.own.weight
    window, n = model.window, model.horizontal.filters
    images, users = [], []
    for b, (start, end) in enumerate(batch.offsets.unfold(0, 2, 1).tolist()):
        history = table[batch.items[start:end] - 1]
        filled = torch.cat([table.new_zeros(window - 1, D), history])
        images += [filled[t : t + window] for t in range(end - start)]
        users += [model.users(batch.user[b : b + 1])] * (end - start)
    image = torch.stack(images)[:, None]  # (T, 1, L, D)
    # Column age of our vertical filters weighs the item so many steps ago.
    column = model.vertical.weight.flip(1)[:, None, :, None]
    parts = [F.conv2d(image, column, model.vertical.bias).flatten(1)]
    for h, weight in enumerate(filters(model), 1):
        out = F.conv2d(image, weight, model.horizontal.bias[(h - 1) * n : h * n]).relu()
        parts.append(F.max_pool2d(out, (window - h + 1, 1)).flatten(1))
    z = F.relu(F.linear(torch.cat(parts, 1), model.full.weight, model.full.bias))
    return torch.cat([z, torch.cat(users)], 1)


@pytest.mark.parametrize("window", [1, 2, 5])
@given(
    histories=st.lists(st.lists(st.integers(1, V), min_size=2, max_size=N), min_size=1, max_size=8)
)
@settings(deadline=None, max_examples=15)
def test_shared_and_plain_convolutions_agree(window, histories):
    model = build(window=window).double()
    batch = toy.batch(histories, max_length=N)
    readout = torch.randn(2 * D, generator=torch.Generator().manual_seed(0)).double()

    def run(states):
        model.zero_grad(set_to_none=False)  # the forward pass may have counted on the buffers
        (states @ readout).sin().sum().backward()
        gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        return states.detach(), gradients

    shared, shared_gradients = run(model.states(batch))
    plain, plain_gradients = run(plain_states(model, batch))
    torch.testing.assert_close(shared, plain, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(shared_gradients, plain_gradients, atol=1e-9, rtol=1e-9)


def test_vectors_and_the_output_matrix_start_as_told():
    model = build(replace(toy.info(2_000), n_users=2_000), init_std=0.3)
    for table in (model.input.own.weight, model.users.table.weight, model.scorer.weight):
        # 12,000 numbers and more: a standard error of 0.002.
        assert table.std().item() == pytest.approx(0.3, abs=0.01)
    assert not model.scorer.bias.any()


def test_number_of_parameters():
    # Input table 20 * 6, users 50 * 6, W' 20 * 12 and b' 20; horizontal filters of heights 1..5,
    # three each: 3 * (1 + 2 + 3 + 4 + 5) * 6, biases 3 * 5; vertical ones 2 * 5 and 2 biases;
    # the full layer reads 2 * 6 + 3 * 5 numbers: 27 * 6 + 6.
    expected = 120 + 300 + 260 + 270 + 15 + 12 + 168
    assert sum(p.numel() for p in build().parameters()) == expected


def test_the_layers_start_like_those_of_torch():
    # Uniform within 1 / sqrt(inputs): h * 10 for a filter of height h. Of 160 numbers or more
    # the largest is above 0.9 of the bound but for 1e-7.
    torch.manual_seed(0)
    model = Caser(toy.info(V), dim=10, horizontal=16)
    for h, weight in enumerate(filters(model), 1):
        bound = (h * 10) ** -0.5
        assert 0.9 * bound < weight.abs().max().item() <= bound
    assert model.horizontal.bias[-16:].abs().max().item() <= 50**-0.5
    assert not model.scorer.bias.any()


def test_a_state_sees_the_items_of_its_window_and_no_others():
    # Tokens 0..7, window 3: token 4 reaches the states 4, 5 and 6.
    model = build(window=3)
    history = [1, 2, 3, 4, 5, 6, 7, 8, 9]
    one = model.states(toy.batch([history], max_length=N))
    history[4] = 20
    other = model.states(toy.batch([history], max_length=N))
    assert (one != other).any(1).tolist() == [False] * 4 + [True] * 3 + [False]


def test_a_history_ends_where_the_next_begins():
    model = build()
    together = model.states(toy.batch([[1, 2, 3, 4], [5, 6]]))
    batch = toy.batch([[5, 6]])
    alone = model.states(replace(batch, user=torch.tensor([1])))
    torch.testing.assert_close(together[3:], alone)


def test_users_have_vectors_of_their_own_and_unknown_ones_zeros():
    trained = torch.arange(50) != 1
    model = build(replace(toy.info(V, max_length=N), trained_users=trained))
    batch = toy.batch([[1, 2], [1, 2], [1, 2]])
    states = model.states(replace(batch, user=torch.tensor([0, 1, -1])))
    assert torch.equal(states[0, D:], model.users.table.weight[0])
    assert torch.equal(states[1:, D:], torch.zeros(2, D))
    torch.testing.assert_close(states[:, :D], states[:1, :D].expand(3, D))  # z knows no users


def test_scores_are_those_of_an_output_matrix_with_biases():
    model = build()
    with torch.no_grad():
        model.scorer.bias.normal_()
    batch = toy.batch([[1, 2, 3], [4, 5]])
    scores = model.scorer.every(model(batch).hidden)
    expected = model.states(batch) @ model.scorer.weight.T + model.scorer.bias.T
    torch.testing.assert_close(scores, expected)
    assert model.input.own.weight.shape == (V, D)


def test_a_scorer_without_biases_is_taken_as_it_is():
    model = build(scorer=ItemScorer)
    assert model.represent(toy.batch([[1, 2]])).shape == (1, 2 * D)


def test_dropout_acts_on_what_the_convolutions_found():
    batch = toy.batch([[1, 2, 3, 4]])
    model = build(dropout=0.5)
    one, other = model.states(batch), model.states(batch)
    assert not torch.equal(one[:, :D], other[:, :D])
    assert torch.equal(one[:, D:], other[:, D:])  # not on the user's vector
    model.eval()
    assert torch.equal(model.states(batch), model.states(batch))


@pytest.mark.parametrize("name", ["dim", "window", "horizontal", "vertical"])
def test_bad_sizes_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        build(**{name: 0})
