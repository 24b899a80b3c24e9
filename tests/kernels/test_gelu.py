import math

import pytest
import torch
from torch.nn import functional as F

from negrec.kernels import native
from negrec.kernels.gelu import gelu


@pytest.mark.parametrize("plain", [True, False])
def test_by_hand(plain):
    x = torch.tensor([0.0, 1.0, -1.0, 30.0, -30.0])
    if plain:
        with native.plain():
            out = gelu(x)
    else:
        out = gelu(x)
    phi = 0.5 * (1 + math.erf(1 / 2**0.5))  # of the standard normal distribution at 1
    assert out.tolist() == pytest.approx([0, phi, phi - 1, 30, 0], abs=1e-6)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("n", [1, 15, 16, 17, 200_003])
def test_compiled_code_is_exact_in_value_and_slope(n):
    # Against float64, to what float32 has.
    x = torch.linspace(-12, 12, n).requires_grad_()
    exact = x.detach().double().requires_grad_()
    upstream = torch.linspace(-1, 2, n)
    gelu(x).backward(upstream)
    F.gelu(exact).backward(upstream.double())
    torch.testing.assert_close(gelu(x).double(), F.gelu(exact), rtol=1e-6, atol=5e-7)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("compiled")
def test_what_is_not_finite():
    x = torch.tensor([math.nan, math.inf, -200.0, 200.0])
    x.requires_grad_()
    out = gelu(x)
    assert out.isnan().tolist() == [True, False, False, False]
    assert out[1:].tolist() == [math.inf, 0, 200]
    out.sum().backward()
    assert x.grad[0].isnan()
    assert x.grad[2:].tolist() == [0, 1]


@pytest.mark.usefixtures("compiled")
def test_a_number_of_threads_changes_no_bit():
    torch.manual_seed(0)
    x, threads = torch.randn(301, 257), torch.get_num_threads()
    found = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        found.append(gelu(x))
    torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_the_gradient_is_that_of_finite_differences():
    x = torch.linspace(-3, 3, 20, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(gelu, (x,))
