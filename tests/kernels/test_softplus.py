from contextlib import nullcontext
from math import log

import pytest
import torch

from negrec.kernels import native
from negrec.kernels.softplus import softplus_sum

NEEDS_COMPILER = pytest.mark.skipif(not native.available(), reason="no C++ compiler here")


@pytest.fixture(params=["compiled", "torch"])
def way(request):
    if request.param == "compiled" and not native.available():
        pytest.skip("no C++ compiler here")
    with nullcontext() if request.param == "compiled" else native.plain():
        yield request.param


def test_by_hand(way):
    # softplus(0) = ln 2, and a label takes its score off: softplus(3) - 3 = softplus(-3).
    score = torch.tensor([[0.0, 3.0, 9.0], [0.0, 0.0, 9.0], [1.0, 2.0, 3.0]], requires_grad=True)
    valid = torch.tensor([[True, True, False], [True, True, False], [False, False, False]])
    label = torch.tensor([[0, 1, 1], [0, 1, 0], [1, 1, 1]])
    total = softplus_sum(score, valid, label)
    assert total.tolist() == pytest.approx([log(2) + 0.0485873516, 2 * log(2), 0])
    total.backward(torch.tensor([1.0, 2.0, 3.0]))
    sigma = 0.9525741268  # of 3
    expected = [0.5, sigma - 1, 0, 2 * 0.5, 2 * -0.5, 0, 0, 0, 0]
    assert score.grad.flatten().tolist() == pytest.approx(expected, abs=1e-7)


@NEEDS_COMPILER
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize(
    ("n", "k"), [(1343, 1), (200, 7), (30, 256), (3, 1024), (4, 2500), (1025, 1), (0, 5), (5, 0)]
)
def test_compiled_code_agrees_with_pytorch(n, k, labelled):
    generator = torch.Generator().manual_seed(k)
    score = (8 * torch.randn(n, k, generator=generator)).requires_grad_()
    valid = torch.rand(n, k, generator=generator) < 0.8
    label = torch.randint(2, (n, k), generator=generator) if labelled else None
    slope = torch.randn(n, generator=generator)

    def run(score):
        total = softplus_sum(score, valid, label)
        return total, *torch.autograd.grad(total, score, slope.to(total.dtype))

    found = run(score)
    exact = run(score.detach().double().requires_grad_())  # PyTorch's: only float32 is compiled
    for a, b in zip(found, exact, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-6, rtol=1e-6)


@NEEDS_COMPILER
def test_values_and_slopes_are_right_to_the_last_digits_everywhere():
    score = torch.linspace(-86.9, 100, 100_001)[:, None].requires_grad_()
    valid = torch.ones_like(score, dtype=torch.bool)
    total = softplus_sum(score, valid)
    (slope,) = torch.autograd.grad(total.sum(), score)
    exact = score.detach().double()
    # Not PyTorch's softplus, which is 0 below -87 and s above 20.
    expected = exact.clamp(min=0) + torch.log1p(torch.exp(-exact.abs()))
    # e^s has the relative error of s / ln 2, the power of two that it is made of.
    for span, digits in ((8, 8e-7), (101, 1e-5)):
        near = exact.abs() < span
        for found, right in ((total[:, None], expected), (slope, torch.sigmoid(exact))):
            torch.testing.assert_close(found[near].double(), right[near], atol=0, rtol=digits)


def test_far_scores_and_what_is_no_number(way):
    score = torch.tensor([[200.0], [-200.0], [torch.inf], [-torch.inf], [torch.nan]])
    score.requires_grad_()
    total = softplus_sum(score, torch.ones(5, 1, dtype=torch.bool))
    torch.testing.assert_close(
        total, torch.tensor([200.0, 0, torch.inf, 0, torch.nan]), equal_nan=True
    )
    (slope,) = torch.autograd.grad(total.sum(), score)
    expected = torch.tensor([[1.0], [0.0], [1.0], [0.0], [torch.nan]])
    torch.testing.assert_close(slope, expected, equal_nan=True)
    nothing = softplus_sum(score, torch.zeros(5, 1, dtype=torch.bool))
    assert nothing.eq(0).all()
    assert torch.autograd.grad(nothing.sum(), score)[0][:4].eq(0).all()  # PyTorch: NaN times 0


@NEEDS_COMPILER
def test_bits_do_not_depend_on_the_number_of_threads():
    score = torch.randn(900, 100, generator=torch.Generator().manual_seed(0))
    valid = score > -1
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(softplus_sum(score, valid))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_gradients_are_those_of_differences():
    generator = torch.Generator().manual_seed(0)
    score = torch.randn(3, 4, generator=generator, dtype=torch.double).requires_grad_()
    valid, label = score.detach() > -0.5, torch.tensor([0, 1, 0, 1]).expand(3, 4)
    assert torch.autograd.gradcheck(lambda s: softplus_sum(s, valid, label), (score,))


@pytest.mark.usefixtures("compiled")
def test_second_derivatives_are_refused():
    score = torch.ones(2, 3, requires_grad=True)
    total = softplus_sum(score, torch.ones(2, 3, dtype=torch.bool))
    (first,) = torch.autograd.grad(total.square().sum(), score, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
