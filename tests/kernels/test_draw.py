"""Draws: compiled code, tiles and one tile against each other and against the definition."""

import pytest
import torch

from negrec.kernels import native
from negrec.kernels.draw import draw, pick
from negrec.kernels.tiles import Pairs, Scratch, exponentials
from tests import toy


def made(n, n_items, dim, scale=1.0, seed=0):
    """States, items, and for each state some cells that are ruled out."""
    generator = torch.Generator().manual_seed(seed)
    hidden = scale * torch.randn(n, dim, generator=generator)
    matrix = torch.randn(n_items, dim, generator=generator)
    row = torch.arange(n).repeat(3)
    column = torch.randint(0, n_items, (3 * n,), generator=generator)
    return hidden, matrix, Pairs.of(row, column)


def cumulated(hidden, matrix, ruled_out):
    """The exact distribution of each state, cumulated, (n, V)."""
    scores = hidden.double() @ matrix.double().T
    scores[ruled_out.row, ruled_out.column] = -torch.inf
    return scores.softmax(1).cumsum(1)


def drawn(hidden, matrix, ruled_out, k=1, seed=7):
    return draw(hidden, matrix, ruled_out, k, torch.Generator().manual_seed(seed), Scratch())


@pytest.mark.parametrize(
    ("n", "n_items", "dim", "k", "scale"),
    [
        (300, 64, 64, 4, 0.3),
        (300, 65, 3, 4, 1.0),
        (2500, 130, 17, 2, 0.5),  # several tasks of a block
        (7, 1, 5, 3, 1.0),
        (1, 900, 33, 5, 0.2),
        (61, 300_000, 2, 3, 1.0),  # so many blocks that states are taken in turns
        (40, 500, 65, 64, 3.0),  # nearly all of the mass on one item
    ],
)
def test_every_draw_is_the_inverse_of_the_exact_distribution(way, n, n_items, dim, k, scale):
    if way == "tiles" and n_items > 1000:
        pytest.skip("thousands of tiles")
    hidden, matrix, ruled_out = made(n, n_items, dim, scale)
    found = drawn(hidden, matrix, ruled_out, k)
    assert found.shape == (n, k)
    if n_items == 1:
        assert found.eq(-1).all()
        return
    cdf = cumulated(hidden, matrix, ruled_out)
    u = torch.rand(n, k, dtype=torch.double, generator=torch.Generator().manual_seed(7))
    expected = torch.searchsorted(cdf, u, right=True)
    assert (found == expected).double().mean() > 0.999
    # Where it differs, u lies within rounding of the border.
    upper = cdf.gather(1, found)
    lower = torch.where(found > 0, cdf.gather(1, (found - 1).clamp(min=0)), 0)
    assert (lower - 1e-5 <= u).all()
    assert (u <= upper + 1e-5).all()


@pytest.mark.usefixtures("compiler")
def test_compiled_code_makes_the_draws_of_pytorch():
    hidden, matrix, ruled_out = made(4_000, 3_000, 64, 0.4)
    fast = drawn(hidden, matrix, ruled_out, 2)
    with native.plain():
        slow = drawn(hidden, matrix, ruled_out, 2)
    assert (fast == slow).double().mean() > 0.999


@pytest.mark.usefixtures("compiler")
def test_threads_do_not_change_what_is_drawn():
    hidden, matrix, ruled_out = made(3_000, 1_000, 16)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(drawn(hidden, matrix, ruled_out, 2))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("scale", [0.2, 3.0, 40.0])
def test_draws_follow_the_softmax(way, scale):
    hidden, matrix, ruled_out = made(1, 150, 4, scale)
    many = Pairs(torch.arange(2_000).repeat_interleave(3), ruled_out.column.repeat(2_000))
    found = drawn(hidden.repeat(2_000, 1), matrix, many, 20)
    expected = cumulated(hidden, matrix, ruled_out).diff(prepend=torch.zeros(1, 1))[0]
    assert toy.chi_square_p(found, expected) > 1e-4
    assert expected[ruled_out.column].max() < 1e-12
    assert not torch.isin(found, ruled_out.column).any()


def test_a_leader_that_is_ruled_out_does_not_level_the_others(way):
    # Measured against its score of 500 the weights of the others would all be 0.
    hidden, matrix, _ = made(1, 100, 4)
    matrix[40] = 500 * hidden[0] / hidden[0].square().sum()
    rows = torch.arange(2_000)
    found = drawn(hidden.repeat(2_000, 1), matrix, Pairs(rows, torch.full_like(rows, 40)), 20)
    expected = (hidden.double() @ matrix.double().T)[0]
    expected[40] = -torch.inf
    assert toy.chi_square_p(found, expected.softmax(0)) > 1e-4


def test_a_state_with_nothing_left(way):
    hidden, matrix, _ = made(3, 70, 4)
    row = torch.ones(70, dtype=torch.int64)
    found = drawn(hidden, matrix, Pairs(row, torch.arange(70)), 4)
    assert found[1].eq(-1).all()
    assert found[[0, 2]].ge(0).all()


def test_one_item_left(way):
    hidden, matrix, _ = made(2, 70, 4, scale=30.0)
    column = torch.cat([torch.arange(69), torch.arange(1, 70)])
    found = drawn(hidden, matrix, Pairs(torch.tensor([0, 1]).repeat_interleave(69), column), 5)
    assert found.tolist() == [[69] * 5, [0] * 5]


def test_scores_that_overflow_an_exponential(way):
    # Scores of thousands: the best item, to any precision.
    hidden, matrix, ruled_out = made(200, 80, 4, scale=2_000.0)
    scores = hidden @ matrix.T
    scores[ruled_out.row, ruled_out.column] = -torch.inf
    best = scores.topk(2).values
    ahead = best[:, 0] - best[:, 1] > 40
    assert ahead.float().mean() > 0.9
    found = drawn(hidden, matrix, ruled_out)[:, 0]
    assert torch.equal(found[ahead], scores.argmax(1)[ahead])


def test_no_states(way):
    none = torch.zeros(0, dtype=torch.int64)
    found = drawn(torch.empty(0, 4), torch.ones(9, 4), Pairs(none, none), 3)
    assert found.shape == (0, 3)
    assert found.dtype == torch.int64


@pytest.mark.parametrize("width", [20, 1_000])
def test_a_mask_rules_out_what_its_cells_do(width, monkeypatch):
    toy.cut_tiles(monkeypatch, width)
    hidden, matrix, ruled_out = made(50, 90, 4)
    mask = torch.zeros(50, 90, dtype=torch.bool)
    mask[ruled_out.row, ruled_out.column] = True
    with native.plain():
        expected = drawn(hidden, matrix, ruled_out, 8)
    assert torch.equal(drawn(hidden, matrix, mask, 8), expected)


def test_scores_that_are_no_numbers_do_no_harm(way):
    # The loss will show them; a draw only has to come back.
    hidden, matrix, ruled_out = made(20, 100, 4)
    hidden[3, 1], matrix[60, 2] = torch.nan, torch.inf
    found = drawn(hidden, matrix, ruled_out, 2)
    assert found.shape == (20, 2)
    if way == "native":
        assert found.lt(100).all()


def picked(weight, k):
    u = torch.rand(len(weight), k, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    return pick(weight, u)


def test_picks_follow_the_weights():
    weight = torch.zeros(2, 192)
    weight[0, 3], weight[0, 100], weight[0, 191] = 1, 2, 5
    weight[1, 64] = 1e-30  # alone in its row: drawn, however small
    found = picked(weight, 40_000)
    assert toy.chi_square_p(found[0], weight[0] / 8) > 1e-4
    assert found[1].eq(64).all()


def test_a_row_without_weight_gives_no_column():
    out = torch.tensor([[True, True], [False, True]])
    weight, _ = exponentials(torch.ones(2, 4), torch.ones(2, 4), out, Scratch())
    assert picked(weight, 3).tolist() == [[-1, -1, -1], [0, 0, 0]]


def test_picks_reach_the_first_and_the_last_column_and_nothing_of_weight_zero():
    weight = torch.ones(1, 128)
    weight[0, 10:120] = 0
    assert set(picked(weight, 20_000)[0].tolist()) == {*range(10), *range(120, 128)}
