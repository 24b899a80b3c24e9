"""The blocks and the encoder, through the model that has nothing else around them."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from negrec.kernels import native
from negrec.models.sasrec import SASRec
from negrec.types import Batch
from tests import toy

LAYOUTS = ["prenorm", "sasrec", "s3rec", "ligr"]
D, V, L = 8, 20, 40


def build(layout="prenorm", **settings):
    torch.manual_seed(0)
    settings = {"dim": D, "blocks": 2, "heads": 2, "dropout": 0.0, "init_std": 0.3, **settings}
    model = SASRec(toy.info(V, max_length=L), layout=layout, **settings)
    with torch.no_grad():  # biases and norms away from the values at which errors cancel
        for name, parameter in model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def padded_states(model, layout, items, valid, causal=True):
    """The second implementation: plain, padded, one attention matrix per sequence, (B, L, D)."""
    n = items.shape[1]
    lengths = valid.sum(1, keepdim=True)
    from_end = (lengths - 1 - torch.arange(n)).clamp(min=0)
    table, encoder = (model.input.own or model.scorer).weight, model.encoder
    embedded = table[(items - 1).clamp(min=0)] + encoder.positions.weight[from_end]
    x = encoder.first(embedded)
    visible = torch.ones(n, n).tril().bool() if causal else torch.ones(n, n).bool()

    def attention(block, query, key):
        w, b = block.qkv.weight.chunk(3), block.qkv.bias.chunk(3)
        q, k, v = (
            F.linear(source, w[i], b[i]).unflatten(2, (2, D // 2)).transpose(1, 2)
            for i, source in enumerate((query, key, key))
        )
        score = (q @ k.mT) / math.sqrt(D // 2)
        allowed = visible & valid[:, None, None, :]
        weight = score.masked_fill(~allowed, -torch.inf).softmax(-1)
        return (weight @ v).transpose(1, 2).flatten(2)

    for block in encoder.blocks:
        if layout == "prenorm":
            y = block.norm1(x)
            x = x + block.out(attention(block, y, y))
            x = x + block.down(F.gelu(block.up(block.norm2(x))))
        elif layout == "ligr":
            y = block.norm1(x)
            x = x + torch.sigmoid(block.gate1(x)) * block.out(attention(block, y, y))
            y = block.norm2(x)
            swish, linear = (y @ w.T for w in block.up.weight.chunk(2))
            inner = swish * torch.sigmoid(swish) * linear
            x = x + torch.sigmoid(block.gate2(x)) * (inner @ block.down.weight.T)
        elif layout == "s3rec":
            x = block.norm1(x + block.out(attention(block, x, x)))
            x = block.norm2(x + block.down(F.gelu(block.up(x))))
        else:
            query = block.norm1(x)
            x = query + attention(block, query, x)
            y = block.norm2(x)
            x = y + block.down(F.relu(block.up(y)))
    return encoder.final(x)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@given(
    histories=st.lists(st.lists(st.integers(1, V), min_size=2, max_size=L), min_size=1, max_size=12)
)
@settings(deadline=None, max_examples=25)
def test_packed_and_padded_computation_agree(layout, causal, histories):
    model = build(layout).double()  # in float32, rounding alone reaches 1e-5 on some gradients
    batch = toy.batch(histories, max_length=L)
    readout = torch.randn(D, generator=torch.Generator().manual_seed(0)).double()

    def run(states):
        model.zero_grad(set_to_none=True)
        (states @ readout).sin().sum().backward()
        return states.detach(), [p.grad.to_dense().clone() for p in model.parameters()]

    packed, packed_gradients = run(model.states(batch, causal))
    items, valid = batch.padded()
    padded, padded_gradients = run(padded_states(model, layout, items, valid, causal)[valid])
    torch.testing.assert_close(packed, padded, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(packed_gradients, padded_gradients, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_number_of_parameters(layout):
    # items 20 * 8, positions 40 * 8; a block: qkv 8 * 24 + 24, out 8 * 8 + 8, norms 2 * 16,
    # feed-forward 8 * w + w + w * 8 + 8 with w = 32 (the sasrec layout: no out, w = 8); a norm
    # after the blocks, or on the embeddings in s3rec. In ligr f has 8 * 2w + w * 8 and no biases,
    # two gates 8 * 8 + 8, and no norm stands outside the blocks.
    width = 8 if layout == "sasrec" else 32
    out = 0 if layout == "sasrec" else 72
    feed = 24 * width + 2 * 72 if layout == "ligr" else 17 * width + 8
    block = 216 + out + 32 + feed
    expected = 160 + 320 + 2 * block + (0 if layout == "ligr" else 16)
    assert sum(p.numel() for p in build(layout).parameters()) == expected


def test_dropout_differs_from_call_to_call_in_training_only():
    model = build(dropout=0.5)
    batch = toy.batch([[1, 2, 3, 4]])
    assert not torch.equal(model.states(batch), model.states(batch))
    model.eval()
    assert torch.equal(model.states(batch), model.states(batch))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tied", [True, False])
def test_xavier_is_that_of_torch(layout, tied):
    # Both start a matrix from the same draws of one generator, so only their scale differs:
    # the normal one's by init_std = 1, Xavier's as torch has it.
    def started(init):
        torch.manual_seed(7)
        info = toy.info(V, max_length=L)
        return SASRec(info, dim=D, layout=layout, tied=tied, init=init, init_std=1.0)

    model, drawn = started("xavier"), started("normal")
    for (name, parameter), raw in zip(model.named_parameters(), drawn.parameters(), strict=True):
        if parameter.dim() == 2:
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(parameter)
            torch.testing.assert_close(parameter, raw * math.sqrt(2 / (fan_in + fan_out)))
        elif name.endswith("bias"):
            assert not parameter.any()
    torch.manual_seed(7)
    # The item vectors are drawn first.
    assert torch.equal(model.scorer.weight, nn.init.xavier_normal_(torch.empty(V, D)))


def test_variance_of_xavier_by_hand():
    # V = 3000 items of D = 100: 2 / 3100; qkv (300, 100): 2 / 400; a 5 % margin is over ten
    # standard errors of the variance of 30,000 normal numbers (0.8 % of it).
    model = SASRec(toy.info(3000, max_length=L), dim=100, heads=1, init="xavier")
    assert model.scorer.weight.var().item() == pytest.approx(2 / 3100, rel=0.05)
    assert model.encoder.blocks[0].qkv.weight.var().item() == pytest.approx(2 / 400, rel=0.05)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_compiled_code_trains_as_pytorch_does(layout, causal):
    model = build(layout, dropout=0.5).train()
    generator = torch.Generator().manual_seed(1)
    lengths = (2, 9, 40, 3, 2, 17, 30, 5, 16)
    batch = Batch.of([torch.randint(1, V + 1, (n,), generator=generator).tolist() for n in lengths])
    upstream = torch.randn(len(batch.items), D, generator=generator)

    def trained():
        model.zero_grad()
        torch.manual_seed(2)
        states = model.states(replace(batch), causal)
        (states * upstream).sum().backward()
        return [states.detach(), *(p.grad.clone() for p in model.parameters())]

    found = trained()
    with native.plain():
        expected = trained()
    for ours, theirs in zip(found, expected, strict=True):
        # In units of the largest entry: a sum over the batch has the rounding of its terms.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"layout": "postnorm"},
            "layout must be one of prenorm, sasrec, s3rec, ligr, got 'postnorm'",
        ),
        ({"init": "he"}, "init must be normal or xavier, got 'he'"),
        ({"heads": 3}, "heads must divide dim, got heads=3 and dim=8"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"blocks": 0}, "blocks must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(**settings)
