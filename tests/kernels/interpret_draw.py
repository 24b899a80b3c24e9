"""Run by test_draw_triton.py, in Triton's interpreter."""

import pytest
import torch

from negrec.kernels import draw_triton, gpu, native
from negrec.kernels.draw import draw as plain
from negrec.kernels.draw_triton import draw
from negrec.kernels.tiles import Pairs, Scratch

CPU = torch.device("cpu")
NONE = (torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


def inverse_cdf(
    hidden: torch.Tensor,
    matrix: torch.Tensor,
    ruled_out: tuple[torch.Tensor, torch.Tensor],
    u: torch.Tensor,
) -> torch.Tensor:
    """The same draws in float64, with all scores written out."""
    scores = hidden.double() @ matrix.double().T
    row, column = ruled_out
    scores[row[column >= 0], column[column >= 0]] = -torch.inf
    top = scores.amax(1, keepdim=True)
    cdf = (scores - top.masked_fill(top == -torch.inf, 0)).exp().cumsum(1)
    drawn = torch.searchsorted(cdf, u * cdf[:, -1:], right=True)
    return drawn.masked_fill(cdf[:, -1:] == 0, -1)


def test_it_draws_what_float64_draws():
    # 66 queries are two tiles, 257 items three, 40 numbers a vector and a fourth of one.
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(66, 40, generator=generator) * 0.5
    matrix = torch.randn(257, 40, generator=generator)
    row = torch.randint(66, (90,), generator=generator)
    column = torch.randint(257, (90,), generator=generator)
    column[::9] = -1  # nothing
    # The favourites of some queries: what is left has small weights.
    favourite = (hidden[:9] @ matrix.T).argmax(1)
    ruled_out = (torch.cat([row, torch.arange(9)]), torch.cat([column, favourite]))
    u = torch.rand(66, 1, dtype=torch.double, generator=generator)
    u[0], u[1] = 0, 1 - 2.0**-53
    expected = inverse_cdf(hidden, matrix, ruled_out, u)
    drawn = draw(hidden, matrix, *ruled_out, u, sums=1)
    assert torch.equal(drawn, expected)
    once = draw(hidden, matrix, *ruled_out, u)  # not in two parts
    assert torch.equal(once, expected)


def test_hand_computed():
    # Weights 1, 2, 3 and 4; the third is ruled out: the CDF is 1/7, 3/7, 3/7, 1.
    matrix = torch.tensor([1.0, 2.0, 3.0, 4.0]).log()[:, None]
    u = torch.tensor([[0.0, 0.142, 0.143, 0.428, 0.429, 0.999]], dtype=torch.double)
    drawn = draw(torch.ones(1, 1), matrix, torch.tensor([0]), torch.tensor([2]), u)
    assert drawn.tolist() == [[0, 0, 1, 1, 3, 3]]


def test_all_is_ruled_out_for_some():
    # Query 0 has nothing left; query 1 has the last item of the second tile.
    n_items = 130
    row = torch.tensor([0]).repeat(n_items)
    other = torch.tensor([1]).repeat(n_items - 1)
    ruled_out = (
        torch.cat([row, other]),
        torch.cat([torch.arange(n_items), torch.arange(n_items - 1)]),
    )
    hidden, matrix = torch.ones(3, 2), torch.full((n_items, 2), 30.0)
    drawn = draw(hidden, matrix, *ruled_out, torch.full((3, 1), 0.7, dtype=torch.double))
    assert drawn[:2].tolist() == [[-1], [129]]
    assert drawn[2].item() == 91  # 0.7 * 130: all weigh the same


def test_scores_far_from_zero():
    # Where exp of a score, or of one tile's distance to another, overflows or vanishes.
    matrix = torch.cat([torch.full((128, 1), -2e4), torch.full((2, 1), 2e4)])
    u = torch.tensor([[0.0, 0.4, 0.6, 0.9999]], dtype=torch.double)
    assert draw(torch.ones(1, 1), matrix, *NONE, u).tolist() == [[128, 128, 129, 129]]


def test_the_samplers_draws_go_through_it(monkeypatch: pytest.MonkeyPatch):
    generator = torch.Generator().manual_seed(0)
    hidden, matrix = torch.randn(9, 4, generator=generator), torch.randn(200, 4)
    cells = Pairs.of(torch.arange(9), torch.arange(9) * 3)

    def drawn() -> torch.Tensor:
        return plain(hidden, matrix, cells, 3, torch.Generator().manual_seed(1), Scratch())

    with native.plain():
        expected = drawn()
    monkeypatch.setattr(native, "serves", lambda *_: False)
    monkeypatch.setattr(gpu, "serves", lambda *_, **__: True)
    monkeypatch.setattr(draw_triton, "works", lambda *_: True)
    calls = []
    kernel = draw_triton.draw
    monkeypatch.setattr(draw_triton, "draw", lambda *a: calls.append(1) or kernel(*a))
    assert torch.equal(drawn(), expected)
    assert calls == [1]


def test_no_queries():
    assert draw(torch.zeros(0, 4), torch.zeros(9, 4), *NONE, torch.zeros(0, 2).double()).shape == (
        0,
        2,
    )


@pytest.mark.parametrize("width", [16, 50])
def test_it_is_held_to_pytorch(width: int, monkeypatch: pytest.MonkeyPatch):
    assert draw_triton.works(CPU, width)
    draw_triton.works.cache_clear()
    monkeypatch.setattr(draw_triton, "draw", lambda *_: torch.zeros(3, 8, dtype=torch.int64))
    assert not draw_triton.works(CPU, width)
    draw_triton.works.cache_clear()
