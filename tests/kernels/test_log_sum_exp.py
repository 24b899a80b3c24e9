"""The log-sum-exp of a catalogue: compiled code and tiles against torch.logsumexp."""

import pytest
import torch

from negrec.kernels.log_sum_exp import log_sum_exp
from negrec.kernels.tiles import Pairs, Scratch


def made(n, n_items, dim, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    hidden = scale * torch.randn(n, dim, generator=generator)
    matrix = torch.randn(n_items, dim, generator=generator)
    row = torch.arange(n).repeat(2)
    column = torch.randint(0, n_items, (2 * n,), generator=generator)
    return hidden.requires_grad_(), matrix.requires_grad_(), Pairs.of(row, column)


def exact(hidden, matrix, ruled_out):
    """The definition, in float64."""
    scores = hidden.double() @ matrix.double().T
    out = torch.zeros_like(scores, dtype=torch.bool)
    out[ruled_out.row, ruled_out.column] = True
    return scores.masked_fill(out, -torch.inf).logsumexp(1)


@pytest.mark.parametrize(
    ("n", "n_items", "dim", "scale"),
    [
        (300, 64, 64, 0.3),
        (1500, 131, 17, 1.0),
        (1, 900, 70, 0.2),
        (61, 300_000, 2, 1.0),  # so many blocks that states are taken in turns
        (40, 500, 129, 3.0),
    ],
)
def test_value_and_gradients(way, n, n_items, dim, scale):
    if way != "native" and n_items > 1000:
        pytest.skip("what compiled code takes in turns")
    hidden, matrix, ruled_out = made(n, n_items, dim, scale)
    weights = torch.linspace(0.1, 2, n) / n
    ours, theirs = (
        log_sum_exp(hidden, matrix, ruled_out, Scratch()),
        exact(hidden, matrix, ruled_out),
    )
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    found = torch.autograd.grad((weights * ours).sum(), (hidden, matrix))
    expected = torch.autograd.grad((weights.double() * theirs).sum(), (hidden, matrix))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))


def test_what_is_ruled_out_pulls_nothing(way):
    hidden, matrix, _ = made(4, 70, 8)
    everywhere = Pairs(torch.arange(4), torch.full((4,), 33))
    log_sum_exp(hidden, matrix, everywhere, Scratch()).sum().backward()
    assert matrix.grad[33].eq(0).all()
    assert matrix.grad[32].ne(0).all()


def test_nothing_left(way):
    hidden, matrix, _ = made(3, 70, 8)
    ruled_out = Pairs(torch.ones(70, dtype=torch.int64), torch.arange(70))
    found = log_sum_exp(hidden, matrix, ruled_out, Scratch())
    assert found.isinf().tolist() == [False, True, False]
    found.masked_fill(found == -torch.inf, 0).sum().backward()
    assert hidden.grad.isfinite().all()
    assert hidden.grad[1].eq(0).all()


@pytest.mark.parametrize("scale", [1e3, 1e5])
def test_large_scores(way, scale):
    hidden, matrix, ruled_out = made(50, 70, 8, scale)
    found = log_sum_exp(hidden, matrix, ruled_out, Scratch())
    torch.testing.assert_close(found.double(), exact(hidden, matrix, ruled_out), rtol=1e-5, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("column", [3, 69])
def test_a_score_that_is_no_number_shows(way, bad, column):
    hidden, matrix, ruled_out = made(20, 70, 8)
    with torch.no_grad():
        matrix[column] = bad
    found = log_sum_exp(hidden, matrix, Pairs(ruled_out.row[:0], ruled_out.row[:0]), Scratch())
    assert not found.isfinite().any()
    assert found.isnan().any() or bad == torch.inf


def test_a_state_that_is_no_number_shows_in_its_own_result_only(way):
    hidden, matrix, ruled_out = made(20, 70, 8)
    with torch.no_grad():
        hidden[4, 2] = torch.nan
    found = log_sum_exp(hidden, matrix, ruled_out, Scratch())
    assert found.isnan().nonzero().flatten().tolist() == [4]


@pytest.mark.usefixtures("compiler")
def test_the_same_threads_give_the_same_bits():
    hidden, matrix, ruled_out = made(2000, 1000, 64, 0.3)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        results = [
            torch.autograd.grad(
                log_sum_exp(hidden, matrix, ruled_out, Scratch()).sum(), (hidden, matrix)
            )
            for _ in range(5)
        ]
    finally:
        torch.set_num_threads(before)
    assert all(
        torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True)
    )


def test_second_derivatives_are_refused():
    hidden, none = torch.ones(2, 3, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    total = log_sum_exp(hidden, torch.eye(3), Pairs(none, none), Scratch())
    (first,) = torch.autograd.grad(total.square().sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
