import pytest
import torch

from negrec.kernels import native
from negrec.kernels.dropout import drop, threshold


def answers(x, onto, p, upstream):
    """Values, gradients, and what the generator says next."""
    torch.manual_seed(7)
    x = x.clone().requires_grad_()
    onto = None if onto is None else onto.clone().requires_grad_()
    out = drop(x, p, onto)
    out.backward(upstream)
    found = [out.detach(), x.grad, torch.rand(1)]
    return found if onto is None else [*found, onto.grad]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("p", [0.0, 0.001, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("shape", [(1,), (7, 3), (100, 301), (300, 256)])
@pytest.mark.parametrize("sum_", [True, False])
def test_compiled_code_equals_pytorch(p, shape, sum_):
    torch.manual_seed(0)
    x, upstream = torch.randn(shape), torch.randn(shape)
    onto = torch.randn(shape) if sum_ else None
    found = answers(x, onto, p, upstream)
    with native.plain():
        expected = answers(x, onto, p, upstream)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert torch.equal(found[2], expected[2])
    if not sum_:
        assert torch.equal(found[0] == 0, expected[0] == 0)


@pytest.mark.parametrize("plain", [True, False])
def test_a_sum_by_hand(plain):
    x, onto = torch.full((4_000,), 3.0), torch.full((4_000,), 10.0)
    torch.manual_seed(0)
    if plain:
        with native.plain():
            out = drop(x, 0.75, onto)
    else:
        out = drop(x, 0.75, onto)
    # Three in four are dropped, the rest is 10 + 3 / (1 - 0.75).
    assert sorted(out.unique().tolist()) == [10, 22]
    assert abs((out == 22).sum().item() - 1_000) < 4 * (4_000 * 0.75 * 0.25) ** 0.5


def test_the_rounding_of_p():
    assert [threshold(p) for p in (0.0, 0.001, 0.002, 0.5, 0.999)] == [0, 0, 1, 128, 255]


@pytest.mark.usefixtures("compiled")
def test_a_number_of_threads_changes_no_bit():
    torch.manual_seed(0)
    x, onto, upstream = torch.randn(3, 500, 301)
    threads = torch.get_num_threads()
    found = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        found.append(answers(x, onto, 0.5, upstream))
    torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_only_what_asks_for_a_gradient_has_one():
    x, onto = torch.randn(5), torch.randn(5, requires_grad=True)
    drop(x, 0.5, onto).sum().backward()
    assert onto.grad.tolist() == [1, 1, 1, 1, 1]
    assert x.grad is None


@pytest.mark.usefixtures("compiled")
def test_a_sum_with_a_smaller_tensor_is_pytorchs():
    summed = drop(torch.zeros(3, 8), 0.5, torch.arange(8.0))
    assert torch.equal(summed, torch.arange(8.0).expand(3, 8))
