"""The compiled pre-norm block against its layers in PyTorch."""

import pytest
import torch

from negrec.kernels import native, prenorm
from negrec.models.transformer import PreNorm
from negrec.packing import pack

# Tasks of several sequences, and a sequence that is longer than a task; rows of both widths.
LENGTHS = (1, 3, 16, 17, 1, 7, 40, 2, 16, 33, 1, 5, 90, 4)


def rows_of(lengths=LENGTHS, causal=True):
    return pack(torch.tensor([0, *lengths]).cumsum(0), causal)


def build(dim=32, heads=2, width=64, p=0.5):
    torch.manual_seed(0)
    block = PreNorm(dim, heads, width, p)
    with torch.no_grad():  # away from the values at which errors cancel
        for parameter in block.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return block


def answers(block, x, rows, upstream):
    """The values, the gradients, and what the generator says next."""
    block.zero_grad()
    x = x.clone().requires_grad_()
    torch.manual_seed(5)
    out = block(x, rows)
    out.backward(upstream)
    return [out.detach(), x.grad, torch.rand(1), *(p.grad.clone() for p in block.parameters())]


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("dim", "heads", "width"), [(64, 2, 256), (32, 4, 32), (48, 3, 80)])
@pytest.mark.parametrize("p", [0.0, 0.001, 0.5])
def test_it_equals_its_layers(causal, dim, heads, width, p):
    block, rows = build(dim, heads, width, p), rows_of(causal=causal)
    x, upstream = torch.randn(2, sum(LENGTHS), dim)
    found = answers(block, x, rows, upstream)
    with native.plain():
        expected = answers(block, x, rows, upstream)
    for ours, theirs in zip(found, expected, strict=True):
        # In units of the largest entry: a sum over the tokens has the rounding of its terms.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())
    assert torch.equal(found[2], expected[2])  # as many numbers were drawn


@pytest.mark.usefixtures("compiled")
def test_it_is_what_the_model_calls(monkeypatch):
    called = []
    monkeypatch.setattr(prenorm, "block", lambda x, *_: called.append(1) or x)
    block, x = build(), torch.randn(sum(LENGTHS), 32)
    block(x, rows_of())
    assert called == [1]
    with native.plain():
        block(x, rows_of())
    build(dim=24)(torch.randn(sum(LENGTHS), 24), rows_of())
    build(width=40)(x, rows_of())
    with torch.autocast("cpu", torch.bfloat16):
        block(x, rows_of())
    block.double()(x.double(), rows_of())
    assert called == [1]


@pytest.mark.usefixtures("compiled")
def test_outside_of_training_it_keeps_nothing_and_drops_nothing():
    block, x = build().eval(), torch.randn(sum(LENGTHS), 32)
    with torch.no_grad():
        found = block(x, rows_of())
    assert not found.requires_grad
    torch.testing.assert_close(found, block(x, rows_of()).detach(), rtol=0, atol=0)
    with native.plain():
        torch.testing.assert_close(found, block(x, rows_of()).detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("threads", [1, 2, 3, 40])
def test_threads(threads):
    # Values do not depend on their number, gradients of weights are sums in another order; a
    # number of threads gives the same bits every time. There may be more threads than tasks.
    block, rows = build(), rows_of()
    x, upstream = torch.randn(2, sum(LENGTHS), 32)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = answers(block, x, rows, upstream)
    torch.set_num_threads(threads)
    found, again = (answers(block, x, rows, upstream) for _ in range(2))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(found[:3], alone[:3], strict=True))
    for ours, theirs in zip(found, alone, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.usefixtures("compiled")
def test_sequences_do_not_see_each_other():
    block = build().eval()
    x = torch.randn(sum(LENGTHS), 32)
    together = block(x, rows_of())
    for part, found in zip(x.split(LENGTHS), together.split(LENGTHS), strict=True):
        torch.testing.assert_close(block(part, rows_of([len(part)])), found)


@pytest.mark.usefixtures("compiled")
def test_a_gradient_where_only_some_ask():
    block, x = build(p=0.0), torch.randn(sum(LENGTHS), 32)
    block.qkv.requires_grad_(False)
    block(x, rows_of()).sum().backward()
    assert block.qkv.weight.grad is None
    found = block.up.weight.grad.clone()
    block.zero_grad()
    with native.plain():
        block(x, rows_of()).sum().backward()
    torch.testing.assert_close(found, block.up.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("compiled")
def test_an_empty_batch():
    x = torch.zeros(0, 32, requires_grad=True)
    block = build()
    out = block(x, rows_of((0, 0)))
    assert out.shape == (0, 32)
    out.sum().backward()
    assert not block.up.weight.grad.any()
