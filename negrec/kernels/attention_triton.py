"""Multi-head attention over jagged sequences for CUDA, in Triton.

The tiles of a sequence's scores are formed, used and forgotten (online softmax: Dao et al., 2022,
arXiv:2205.14135, algorithm 1); the backward pass forms them once more. Each tile of an output has
one writer, so that the same inputs give the same bits.

Imported where there is Triton only. ``negrec.kernels.attention`` says what is computed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from negrec.kernels.gpu import trusted

_WIDEST = 128  # numbers of a head: more of them want more shared memory than a GPU has


@triton.jit
def _mask(row, column, length, causal: tl.constexpr):
    """Which keys (columns) a query (row) of a sequence looks at."""
    seen = (row[:, None] < length) & (column[None, :] < length)
    if causal:
        seen = seen & (column[None, :] <= row[:, None])
    return seen


@triton.jit
def _kept(seed, row, column, start, head, n_heads, longest, dropout):
    """0 where a weight is dropped, else 1 / (1 - dropout): the same whoever asks."""
    cell = ((start + row).to(tl.int64) * n_heads + head) * longest
    u = tl.rand(seed, cell[:, None] + column[None, :])
    return tl.where(u >= dropout, 1 / (1 - dropout), 0.0)


@triton.jit
def _scores(q, k, scale, seen):
    # "ieee": float32 is no TF32 here; of bfloat16 it asks nothing.
    scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
    return tl.where(seen, scores, float("-inf"))


@triton.jit(do_not_specialize=["seed", "longest"])
def _forward(
    qkv, offsets, out, total, seed, scale, dropout, n_heads, longest,
    width: tl.constexpr, padded: tl.constexpr, block: tl.constexpr,
    causal: tl.constexpr, drops: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head of one sequence."""
    sequence, head = tl.program_id(0) // n_heads, tl.program_id(0) % n_heads
    first = tl.program_id(1) * block
    start = tl.load(offsets + sequence)
    length = (tl.load(offsets + sequence + 1) - start).to(tl.int32)
    if first < length:
        dim = n_heads * width
        lane = tl.arange(0, padded)
        within = lane[None, :] < width
        row = first + tl.arange(0, block)
        at = qkv + (start + row)[:, None] * (3 * dim) + head * width + lane[None, :]
        q = tl.load(at, mask=(row[:, None] < length) & within, other=0.0)
        top = tl.full((block,), float("-inf"), tl.float32)
        sums = tl.zeros((block,), tl.float32)
        attended = tl.zeros((block, padded), tl.float32)
        stop = length
        if causal:
            stop = tl.minimum(first + block, length)
        for other in range(0, stop, block):
            column = other + tl.arange(0, block)
            there = (column[:, None] < length) & within
            at = qkv + (start + column)[:, None] * (3 * dim) + head * width + lane[None, :]
            k = tl.load(at + dim, mask=there, other=0.0)
            v = tl.load(at + 2 * dim, mask=there, other=0.0)
            scores = _scores(q, k, scale, _mask(row, column, length, causal))
            higher = tl.maximum(top, tl.max(scores, 1))
            # A row beyond the sequence sees nothing; -inf - -inf is not a number.
            base = tl.where(higher == float("-inf"), 0.0, higher)
            weight = tl.exp(scores - base[:, None])
            shrink = tl.exp(top - base)
            sums = sums * shrink + tl.sum(weight, 1)
            if drops:
                weight *= _kept(seed, row, column, start, head, n_heads, longest, dropout)
            new = tl.dot(weight.to(v.dtype), v, input_precision="ieee")
            attended = attended * shrink[:, None] + new
            top = higher
        real = row < length
        sums = tl.where(real, sums, 1.0)
        at = out + (start + row)[:, None] * dim + head * width + lane[None, :]
        attended = attended / sums[:, None]
        tl.store(at, attended.to(out.dtype.element_ty), mask=real[:, None] & within)
        tl.store(total + (start + row) * n_heads + head, top + tl.log(sums), mask=real)


@triton.jit(do_not_specialize=["seed", "longest"])
def _backward_queries(
    qkv, offsets, total, gradient, delta, of_qkv, seed, scale, dropout, n_heads, longest,
    width: tl.constexpr, padded: tl.constexpr, block: tl.constexpr,
    causal: tl.constexpr, drops: tl.constexpr,
):  # fmt: skip
    """The gradient of one tile of queries."""
    sequence, head = tl.program_id(0) // n_heads, tl.program_id(0) % n_heads
    first = tl.program_id(1) * block
    start = tl.load(offsets + sequence)
    length = (tl.load(offsets + sequence + 1) - start).to(tl.int32)
    if first < length:
        dim = n_heads * width
        lane = tl.arange(0, padded)
        within = lane[None, :] < width
        row = first + tl.arange(0, block)
        real = row < length
        place = (start + row)[:, None] * (3 * dim) + head * width + lane[None, :]
        q = tl.load(qkv + place, mask=real[:, None] & within, other=0.0)
        at = gradient + (start + row)[:, None] * dim + head * width + lane[None, :]
        of_out = tl.load(at, mask=real[:, None] & within, other=0.0)
        own_total = tl.load(total + (start + row) * n_heads + head, mask=real, other=0.0)
        own_delta = tl.load(delta + (start + row) * n_heads + head, mask=real, other=0.0)
        of_q = tl.zeros((block, padded), tl.float32)
        stop = length
        if causal:
            stop = tl.minimum(first + block, length)
        for other in range(0, stop, block):
            column = other + tl.arange(0, block)
            there = (column[:, None] < length) & within
            at = qkv + (start + column)[:, None] * (3 * dim) + head * width + lane[None, :]
            k = tl.load(at + dim, mask=there, other=0.0)
            v = tl.load(at + 2 * dim, mask=there, other=0.0)
            scores = _scores(q, k, scale, _mask(row, column, length, causal))
            weight = tl.exp(scores - own_total[:, None])
            of_weight = tl.dot(of_out, tl.trans(v), input_precision="ieee")
            if drops:
                of_weight *= _kept(seed, row, column, start, head, n_heads, longest, dropout)
            of_scores = weight * (of_weight - own_delta[:, None]) * scale
            of_q += tl.dot(of_scores.to(k.dtype), k, input_precision="ieee")
        tl.store(of_qkv + place, of_q.to(of_qkv.dtype.element_ty), mask=real[:, None] & within)


@triton.jit(do_not_specialize=["seed", "longest"])
def _backward_keys(
    qkv, offsets, total, gradient, delta, of_qkv, seed, scale, dropout, n_heads, longest,
    width: tl.constexpr, padded: tl.constexpr, block: tl.constexpr,
    causal: tl.constexpr, drops: tl.constexpr,
):  # fmt: skip
    """The gradients of one tile of keys and of their values."""
    sequence, head = tl.program_id(0) // n_heads, tl.program_id(0) % n_heads
    first = tl.program_id(1) * block
    start = tl.load(offsets + sequence)
    length = (tl.load(offsets + sequence + 1) - start).to(tl.int32)
    if first < length:
        dim = n_heads * width
        lane = tl.arange(0, padded)
        within = lane[None, :] < width
        column = first + tl.arange(0, block)
        there = (column[:, None] < length) & within
        place = (start + column)[:, None] * (3 * dim) + head * width + lane[None, :]
        k = tl.load(qkv + place + dim, mask=there, other=0.0)
        v = tl.load(qkv + place + 2 * dim, mask=there, other=0.0)
        of_k = tl.zeros((block, padded), tl.float32)
        of_v = tl.zeros((block, padded), tl.float32)
        begin = 0
        if causal:  # earlier queries do not look at these keys
            begin = first
        for other in range(begin, length, block):
            row = other + tl.arange(0, block)
            real = row < length
            at = qkv + (start + row)[:, None] * (3 * dim) + head * width + lane[None, :]
            q = tl.load(at, mask=real[:, None] & within, other=0.0)
            at = gradient + (start + row)[:, None] * dim + head * width + lane[None, :]
            of_out = tl.load(at, mask=real[:, None] & within, other=0.0)
            own_total = tl.load(total + (start + row) * n_heads + head, mask=real, other=0.0)
            own_delta = tl.load(delta + (start + row) * n_heads + head, mask=real, other=0.0)
            scores = _scores(q, k, scale, _mask(row, column, length, causal))
            weight = tl.exp(scores - own_total[:, None])
            of_weight = tl.dot(of_out, tl.trans(v), input_precision="ieee")
            dropped = weight
            if drops:
                kept = _kept(seed, row, column, start, head, n_heads, longest, dropout)
                dropped = weight * kept
                of_weight *= kept
            new = tl.dot(tl.trans(dropped).to(of_out.dtype), of_out, input_precision="ieee")
            of_v += new
            of_scores = weight * (of_weight - own_delta[:, None]) * scale
            of_k += tl.dot(tl.trans(of_scores).to(q.dtype), q, input_precision="ieee")
        kind = of_qkv.dtype.element_ty
        tl.store(of_qkv + place + dim, of_k.to(kind), mask=there)
        tl.store(of_qkv + place + 2 * dim, of_v.to(kind), mask=there)


def launch(head_width: int, longest: int, dtype: torch.dtype) -> dict[str, int]:
    """The compile-time sizes of the kernels and how they are launched.

    Args:
        head_width: D / H, at most 128.
        longest: sequence, in tokens.
        dtype: of the inputs.
    """
    padded = max(16, triton.next_power_of_2(head_width))  # the least that tl.dot takes
    # Most histories are short, and a tile is computed in full.
    block = 16 if longest <= 16 else 32
    # Tiles of 64 in float32, which no tensor core takes, compile for half a minute.
    if longest > 64 and padded <= 64 and dtype != torch.float32:
        block = 64
    return {
        "width": head_width,
        "padded": padded,
        "block": block,
        "num_warps": 4,
        "num_stages": 1,
    }


class Attention(torch.autograd.Function):
    """Attention inside each sequence, (T, 3 D) to (T, D); see ``attention``."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        offsets: Tensor,
        longest: int,
        heads: int,
        causal: bool,
        dropout: float,
        seed: int,
    ) -> Tensor:
        qkv = qkv.contiguous()
        dim = qkv.shape[1] // 3
        sizes = launch(dim // heads, longest, qkv.dtype)
        ctx.grid = ((len(offsets) - 1) * heads, triton.cdiv(longest, sizes["block"]))
        ctx.sizes = {**sizes, "causal": causal, "drops": dropout > 0}
        ctx.scalars = (seed, (dim // heads) ** -0.5, dropout, heads, longest)
        out = qkv.new_empty(len(qkv), dim)
        total = torch.empty(len(qkv), heads, dtype=torch.float32, device=qkv.device)
        if len(qkv):
            _forward[ctx.grid](qkv, offsets, out, total, *ctx.scalars, **ctx.sizes)
        ctx.save_for_backward(qkv, offsets, out, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        qkv, offsets, out, total = ctx.saved_tensors
        gradient = gradients[0].to(qkv.dtype).contiguous()
        heads = total.shape[1]
        # What every weight of a query gains from being taken down as a whole, (T, H).
        delta = (gradient.float() * out.float()).view(len(out), heads, ctx.sizes["width"]).sum(2)
        of_qkv = torch.empty_like(qkv)
        if len(qkv):
            given = (qkv, offsets, total, gradient, delta, of_qkv, *ctx.scalars)
            _backward_queries[ctx.grid](*given, **ctx.sizes)
            _backward_keys[ctx.grid](*given, **ctx.sizes)
        return of_qkv, None, None, None, None, None, None


def attention(
    qkv: Tensor,
    offsets: Tensor,
    longest: int,
    heads: int,
    causal: bool = True,
    dropout: float = 0.0,
    seed: int = 0,
) -> Tensor:
    r"""Multi-head attention inside each sequence.

    .. math:: o_t = \sum_u \mathrm{drop}(\mathrm{softmax}_u(q_t \cdot k_u / \sqrt{D / H})) v_u

    Sums are float32 whatever the inputs are. A weight is dropped by a number that follows from
    the seed, its query, head and key alone, so nothing is kept for the backward pass.

    Args:
        qkv: queries, keys and values side by side, float32, bfloat16 or float16, (T, 3 D).
        offsets: of the sequences, (B + 1,); they cover all T tokens.
        longest: at least the longest sequence, in tokens.
        heads: H, divides D; D / H is at most 128.
        causal: a token sees itself and what precedes it; otherwise its whole sequence.
        dropout: probability of dropping a weight, in [0, 1).
        seed: of the dropout, in 0..2^63 - 1.

    Returns:
        (T, D).
    """
    if qkv.shape[1] // 3 // heads > _WIDEST:
        raise ValueError(f"a head of more than {_WIDEST} numbers: {qkv.shape[1]} / 3 / {heads}")
    out: Tensor = Attention.apply(  # type: ignore[no-untyped-call]
        qkv, offsets, longest, heads, causal, dropout, seed
    )
    return out


def works(qkv: Tensor, heads: int, longest: int, causal: bool) -> bool:
    """Whether the kernels take what ``attention`` would, and give what PyTorch gives.

    That is tried on a small case, once for all tensors of a kind; if not, it is said.
    """
    width = qkv.shape[1] // 3 // heads
    if width > _WIDEST:
        return False
    block = launch(width, longest, qkv.dtype)["block"]
    return _works(qkv.device, qkv.dtype, width, block, causal)


@cache
def _works(device: torch.device, dtype: torch.dtype, width: int, block: int, causal: bool) -> bool:
    return trusted("attention", lambda: _error(device, dtype, width, block, causal), dtype)


def _error(device: torch.device, dtype: torch.dtype, width: int, block: int, causal: bool) -> float:
    """The largest difference to PyTorch in float64, of outputs and gradients of about 1."""
    # The longest is one for which tiles have this size: more than one of them, but for 16.
    heads, lengths = 2, [13 if block == 16 else 2 * block - 13, 0, 1, 5]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    generator = torch.Generator().manual_seed(0)
    n = sum(lengths)
    given = torch.randn(n, 3 * heads * width, generator=generator).to(dtype)
    gradient = torch.randn(n, heads * width, generator=generator).to(dtype)

    def run(qkv: Tensor, dropout: float) -> Tensor:
        x = qkv.to(device)
        return attention(x, offsets.to(device), max(lengths), heads, causal, dropout, seed=1)

    def kept() -> list[Tensor]:
        """Which weights of each sequence are not dropped, (H, L, L)."""
        place = torch.arange(n) - torch.repeat_interleave(offsets[:-1], offsets.diff())
        columns = []
        for first in range(0, max(lengths), width):
            # Equal weights; number j of an output is the weight of key first + j.
            one = (place[:, None] == first + torch.arange(width)).to(dtype)
            values = one.repeat(1, heads)
            qkv = torch.cat([torch.zeros(n, 2 * heads * width, dtype=dtype), values], 1)
            columns.append(run(qkv, 0.5).cpu().view(n, heads, width) > 0)
        seen = torch.cat(columns, 2).transpose(0, 1)
        return [x[..., : x.shape[1]] for x in torch.split(seen, lengths, dim=1)]

    errors = []
    for dropout in (0.0, 0.5):
        x = given.to(device).detach().requires_grad_()
        out = run(x, dropout)
        (of_x,) = torch.autograd.grad(out, x, gradient.to(device))
        exact = given.double().requires_grad_()
        scale = [k.double() * 2 for k in kept()] if dropout else [torch.ones(())] * len(lengths)
        parts = torch.split(exact, lengths)
        plain = torch.cat([_plain(x, heads, causal, k) for x, k in zip(parts, scale, strict=True)])
        (of_exact,) = torch.autograd.grad(plain, exact, gradient.double())
        errors.append((out.detach().cpu() - plain.detach()).abs().max())
        errors.append((of_x.cpu() - of_exact).abs().max())
    return float(torch.stack(errors).max())


def _plain(qkv: Tensor, heads: int, causal: bool, scale: Tensor) -> Tensor:
    """Attention inside one sequence with weights times a scale (H, L, L), (L, 3 D) to (L, D)."""
    n = len(qkv)
    q, k, v = qkv.view(n, 3, heads, qkv.shape[1] // 3 // heads).permute(1, 2, 0, 3)
    scores = q @ k.mT * q.shape[-1] ** -0.5
    if causal:
        future = torch.ones(n, n, dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    attended: Tensor = (scores.softmax(-1) * scale @ v).transpose(0, 1).flatten(1)
    return attended
