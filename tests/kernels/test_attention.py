"""Attention: PyTorch against the definition, and compiled code against PyTorch."""

import pytest
import torch

from negrec.kernels import native
from negrec.kernels.attention import attend
from negrec.packing import pack

# Rows of both widths, sequences of one token, full rows, and more than one vector of keys.
LENGTHS = (1, 3, 16, 17, 1, 7, 40, 2, 16, 33, 1, 5)


def rows_of(lengths, causal=True):
    return pack(torch.tensor([0, *lengths]).cumsum(0), causal)


def answers(qkv, rows, heads, p, upstream):
    """The values, the gradient, and what the generator says next."""
    torch.manual_seed(5)
    qkv = qkv.clone().requires_grad_()
    out = attend(qkv, rows, heads, p)
    out.backward(upstream)
    return out.detach(), qkv.grad, torch.rand(1)


def alone(qkv, heads, causal):
    """One sequence, written as the equation stands there: (n, 3 D) to (n, D)."""
    q, k, v = qkv.unflatten(1, (3, heads, -1)).permute(1, 2, 0, 3)
    score = torch.einsum("hid,hjd->hij", q, k) / q.shape[-1] ** 0.5
    if causal:
        score = score.masked_fill(torch.ones_like(score).triu(1).bool(), -torch.inf)
    return torch.einsum("hij,hjd->ihd", score.softmax(-1), v).flatten(1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("plain", [True, False])
def test_each_sequence_is_as_if_it_were_alone(causal, plain):
    torch.manual_seed(0)
    qkv = torch.randn(sum(LENGTHS), 3 * 24)
    if plain:
        with native.plain():
            found = attend(qkv, rows_of(LENGTHS, causal), 2)
    else:
        found = attend(qkv, rows_of(LENGTHS, causal), 2)
    expected = torch.cat([alone(part, 2, causal) for part in qkv.split(LENGTHS)])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("dim", "heads"), [(64, 2), (64, 1), (24, 3), (10, 2), (3, 3)])
@pytest.mark.parametrize("p", [0.0, 0.5, 0.2])
def test_compiled_code_equals_pytorch(causal, dim, heads, p):
    torch.manual_seed(0)
    qkv, upstream = torch.randn(sum(LENGTHS), 3 * dim), torch.randn(sum(LENGTHS), dim)
    rows = rows_of(LENGTHS, causal)
    found = answers(qkv, rows, heads, p, upstream)
    with native.plain():
        expected = answers(qkv, rows, heads, p, upstream)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(found[2], expected[2])  # as many numbers were drawn


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("causal", [True, False])
def test_the_same_weights_are_dropped(causal):
    # The value of a sequence's token u is the unit vector u: what comes out are the weights.
    heads, width, lengths = 2, 40, LENGTHS
    torch.manual_seed(0)
    qk = torch.randn(sum(lengths), 2 * heads * width)
    unit = torch.cat([torch.eye(width)[:n] for n in lengths]).repeat(1, heads)
    qkv, rows = torch.cat([qk, unit], 1), rows_of(lengths, causal)
    torch.manual_seed(1)
    found = attend(qkv, rows, heads, 0.3) != 0
    torch.manual_seed(1)
    with native.plain():
        expected = attend(qkv, rows, heads, 0.3) != 0
    assert torch.equal(found, expected)
    there = torch.cat([torch.ones(n, n).tril() if causal else torch.ones(n, n) for n in [40]])
    kept = found.unflatten(1, (heads, width))[sum(lengths[:6]) : sum(lengths[:7])].sum()
    n = heads * there.sum().item()
    rate = 1 - round(256 * 0.3) / 256
    assert abs(kept.item() - n * rate) < 4 * (n * rate * (1 - rate)) ** 0.5


@pytest.mark.usefixtures("compiled")
def test_the_bytes_of_each_width_begin_with_a_word():
    # A row of 3 with one head has 9 weights, which take 16 bytes; those of the row of 17 follow.
    lengths = (3, 17)
    torch.manual_seed(0)
    qkv, upstream = torch.randn(20, 24), torch.randn(20, 8)
    found = answers(qkv, rows_of(lengths), 1, 0.5, upstream)
    with native.plain():
        expected = answers(qkv, rows_of(lengths), 1, 0.5, upstream)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("compiled")
def test_large_and_broken_scores():
    torch.manual_seed(0)
    qkv = torch.randn(sum(LENGTHS), 24)
    qkv[:, :16] *= 100  # weights of nearly 0 and 1
    rows, upstream = rows_of(LENGTHS), torch.randn(sum(LENGTHS), 8)
    found = answers(qkv, rows, 1, 0.0, upstream)
    with native.plain():
        expected = answers(qkv, rows, 1, 0.0, upstream)
    assert found[0].isfinite().all()
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=2e-5)
    qkv[2] = torch.nan  # the second token of the second sequence
    broken = attend(qkv, rows, 1).isnan().any(1).nonzero().flatten().tolist()
    assert {2, 3} <= set(broken) <= {1, 2, 3}  # no other sequence


@pytest.mark.usefixtures("compiled")
def test_a_number_of_threads_changes_no_bit():
    torch.manual_seed(0)
    lengths = LENGTHS * 6
    qkv, upstream = torch.randn(sum(lengths), 96), torch.randn(sum(lengths), 32)
    threads = torch.get_num_threads()
    found = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        found.append(answers(qkv, rows_of(lengths), 2, 0.5, upstream))
    torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("p", [0.0, 0.5])
@pytest.mark.parametrize("causal", [True, False])
def test_the_gradient_is_that_of_finite_differences(p, causal):
    torch.manual_seed(0)
    lengths = (1, 4, 18, 2)
    qkv = torch.randn(sum(lengths), 12, dtype=torch.double, requires_grad=True)
    rows = rows_of(lengths, causal)

    def function(x):
        torch.manual_seed(3)  # the same weights are dropped every time
        return attend(x, rows, 2, p)

    assert torch.autograd.gradcheck(function, (qkv,))


def test_what_dropout_expects_is_attention():
    torch.manual_seed(0)
    rows, qkv = rows_of((3, 2, 20)), torch.randn(25, 24)
    exact = attend(qkv, rows, 2)
    mean = torch.stack([attend(qkv, rows, 2, 0.5) for _ in range(4_000)]).mean(0)
    # A weight of at most 1 varies by at most its own size: sqrt(20) * 3 / sqrt(4000) at the most.
    torch.testing.assert_close(mean, exact, atol=0.15, rtol=0)


def test_an_empty_batch():
    assert attend(torch.empty(0, 12), rows_of((0, 0)), 2, 0.5).shape == (0, 4)


def test_half_precision_is_pytorchs():
    qkv = torch.randn(sum(LENGTHS), 12).bfloat16()
    assert attend(qkv, rows_of(LENGTHS), 2, 0.5).dtype == torch.bfloat16


def test_a_second_derivative_is_refused_not_wrong():
    qkv = torch.randn(3, 12, requires_grad=True)
    out = attend(qkv, rows_of((3,)), 2)
    (first,) = torch.autograd.grad(out.square().sum(), qkv, create_graph=True)
    if native.available():
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()
