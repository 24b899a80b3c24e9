"""Run by test_attention_triton.py, in Triton's interpreter."""

import logging

import numpy as np
import pytest
import torch
from triton import language as tl
from triton.runtime import interpreter

from negrec.kernels import attention_triton, gpu, native
from negrec.kernels.attention import attend
from negrec.kernels.attention_triton import attention
from negrec.packing import pack

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def bf16_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter (3.7) keeps bf16 as its bits, and multiplies those as whole numbers."""
    given = interpreter.InterpreterBuilder.create_dot

    def create_dot(self, a, b, *args):
        if a.dtype == tl.bfloat16:
            wide = [(x.data.astype(np.uint32) << 16).view(np.float32) for x in (a, b)]
            a, b = (interpreter.TensorHandle(x, tl.float32) for x in wide)
        return given(self, a, b, *args)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@pytest.mark.parametrize(
    ("dtype", "width", "block", "causal", "limit"),
    [
        (torch.float32, 16, 16, True, 1e-5),
        (torch.float32, 25, 32, True, 1e-5),  # a head that is no power of two
        (torch.float32, 32, 32, False, 1e-5),
        (torch.float32, 128, 16, True, 1e-5),
        (torch.float16, 32, 64, True, 1e-2),
        (torch.bfloat16, 64, 64, False, 5e-2),
    ],
)
def test_it_agrees_with_float64(
    dtype: torch.dtype, width: int, block: int, causal: bool, limit: float
):
    assert attention_triton._error(CPU, dtype, width, block, causal) < limit


def test_hand_computed():
    # One head of width 1; keys are 0, so weights are equal: the mean of the values so far.
    qkv = torch.tensor([[3.0, 0.0, 1.0], [5.0, 0.0, 3.0], [1.0, 0.0, 8.0], [2.0, 0.0, 7.0]])
    offsets = torch.tensor([0, 3, 4])
    causal = attention(qkv, offsets, 3, heads=1)
    assert causal.flatten().tolist() == pytest.approx([1, 2, 4, 7])
    whole = attention(qkv, offsets, 3, heads=1, causal=False)
    assert whole.flatten().tolist() == pytest.approx([4, 4, 4, 7])


def test_no_tokens():
    qkv = torch.zeros(0, 12, requires_grad=True)
    out = attention(qkv, torch.tensor([0, 0]), 1, heads=2)
    out.sum().backward()
    assert out.shape == (0, 4)


def test_dropout():
    # Equal weights over L = 64 keys and values of 1: an output is the share that is kept, over
    # 1 - p. Over 2 heads of 64 queries that is a mean of 8,192 draws: 1 +- 5 sqrt(p / (1 - p) / n).
    tokens, heads, p = 64, 2, 0.25
    qkv = torch.cat([torch.zeros(tokens, 4), torch.ones(tokens, 2)], 1)
    offsets = torch.tensor([0, tokens])

    def run(seed: int) -> torch.Tensor:
        return attention(qkv, offsets, tokens, heads, False, p, seed)

    out = run(1)
    spread = (p / (1 - p) / (tokens * tokens * heads)) ** 0.5
    assert out.mean().item() == pytest.approx(1, abs=5 * spread)
    kept = (out * (1 - p) * tokens).round()  # whole numbers of keys
    assert torch.allclose(kept, out * (1 - p) * tokens, atol=1e-3)
    # Binomial(64, 3/4): variance 12, in each head, and the heads draw apart.
    assert kept.var(0).tolist() == pytest.approx([12, 12], rel=0.6)
    assert abs(torch.corrcoef(kept.T)[0, 1].item()) < 0.5
    assert torch.equal(run(1), out)
    assert not torch.equal(run(2), out)
    assert not torch.equal(run(1 + 2**40), out)  # the upper half of a seed counts


def test_a_head_too_wide_is_refused():
    with pytest.raises(ValueError, match="more than 128"):
        attention(torch.zeros(1, 3 * 129), torch.tensor([0, 1]), 1, heads=1)
    assert not attention_triton.works(torch.zeros(1, 3 * 129), 1, 1, True)


def test_the_model_s_attention_goes_through_it(monkeypatch: pytest.MonkeyPatch):
    rows = pack(torch.tensor([0, 3, 24, 25, 30]))
    qkv = torch.randn(30, 48, generator=torch.Generator().manual_seed(0))
    with native.plain():
        expected = attend(qkv, rows, heads=2)
    monkeypatch.setattr(native, "serves", lambda *_: False)
    monkeypatch.setattr(gpu, "serves", lambda *_: True)
    monkeypatch.setattr(attention_triton, "works", lambda *_: True)
    torch.testing.assert_close(attend(qkv, rows, heads=2), expected)
    whole = pack(torch.tensor([0, 3, 24, 25, 30]), causal=False)
    assert not torch.allclose(attend(qkv, whole, heads=2), expected)
    # Dropout follows from the global generator, as everywhere in a model.
    torch.manual_seed(1)
    dropped = attend(qkv, rows, heads=2, p=0.5)
    assert not torch.allclose(dropped, expected)
    assert not torch.equal(attend(qkv, rows, heads=2, p=0.5), dropped)
    torch.manual_seed(1)
    assert torch.equal(attend(qkv, rows, heads=2, p=0.5), dropped)


def test_what_does_not_agree_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    arguments = (torch.zeros(4, 96), 2, 3, True)
    assert attention_triton.works(*arguments)
    attention_triton._works.cache_clear()
    # Keys and values swapped.
    wrong = attention_triton.attention

    def swapped(qkv: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        q, k, v = qkv.chunk(3, 1)
        return wrong(torch.cat([q, v, k], 1), *args, **kwargs)

    monkeypatch.setattr(attention_triton, "attention", swapped)
    with caplog.at_level(logging.WARNING, logger="negrec"):
        assert not attention_triton.works(*arguments)
        assert not attention_triton.works(*arguments)
    assert len(caplog.messages) == 1
    assert "PyTorch computes it" in caplog.text
    attention_triton._works.cache_clear()


def test_what_does_not_run_is_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def failing(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such GPU\nmore lines")

    monkeypatch.setattr(attention_triton, "attention", failing)
    assert not attention_triton.works(torch.zeros(4, 96), 2, 50, True)
    assert "(no such GPU)" in caplog.text
    attention_triton._works.cache_clear()
