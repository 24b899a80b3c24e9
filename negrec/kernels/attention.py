"""Attention inside each sequence of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from negrec.kernels import gpu, native
from negrec.kernels.dropout import draw, drop, n_words, threshold
from negrec.packing import Rows


def attend(qkv: Tensor, rows: Rows, heads: int, p: float = 0.0) -> Tensor:
    r"""Multi-head attention of tokens inside their sequences.

    .. math:: o_t = \sum_u \mathrm{drop}(\mathrm{softmax}_u(q_t \cdot k_u / \sqrt{D / H})) v_u

    The compiled code goes from sequence to sequence and forms the weights once more in the
    backward pass. In C++ it drops the same weights as PyTorch does; Triton on CUDA draws its own,
    from a seed that PyTorch's generator on the CPU gives.

    Args:
        qkv: queries, keys and values side by side, (T, 3 D).
        rows: how the tokens are packed, and who may look at whom.
        heads: H, divides D.
        p: probability of dropping a weight, in [0, 1); 0 outside of training.

    Returns:
        (T, D).
    """
    if rows.offsets is not None and native.serves(qkv):
        attended: Tensor = _Attention.apply(qkv, rows, heads, threshold(p))  # type: ignore[no-untyped-call]
        return attended
    if rows.offsets is not None and rows.blocks and gpu.serves(qkv):
        from negrec.kernels import attention_triton

        longest = max(block.shape[1] for block in rows.blocks)
        causal = all(block.causal for block in rows.blocks)
        if attention_triton.works(qkv, heads, longest, causal):
            seed = int(torch.randint(2**62, ())) if threshold(p) else 0
            return attention_triton.attention(
                qkv, rows.offsets, longest, heads, causal, threshold(p) / 256, seed
            )
    packed = qkv[rows.token]  # (P, 3 D)
    parts = [
        _attend(packed[b.start : b.stop].view(*b.shape, -1), b.mask, heads, p) for b in rows.blocks
    ]
    return torch.cat(parts)[rows.slot]


def _attend(qkv: Tensor, mask: Tensor, heads: int, p: float) -> Tensor:
    """The same for rows of one width, (R, L, 3 D) to (R L, D)."""
    n_rows, width, _ = qkv.shape
    q, k, v = qkv.view(n_rows, width, 3, heads, -1).permute(2, 0, 3, 1, 4)  # (R, H, L, D / H)
    if p > 0 and not qkv.is_cuda:
        # scaled_dot_product_attention's own dropout is slow on a CPU, see `drop`.
        score = (q * q.shape[-1] ** -0.5) @ k.mT
        weight = score.masked_fill(~mask, -torch.inf).softmax(-1)
        out: Tensor = drop(weight, p) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p)
    return out.transpose(1, 2).flatten(2).flatten(0, 1)


def places(rows: Rows, heads: int) -> tuple[Tensor, Tensor, Tensor, int, int, int, int]:
    """What compiled attention is told of packed rows; the last ones are H and who sees whom."""
    assert rows.offsets is not None
    starts = [(block.start, *block.shape) for block in rows.blocks]
    blocks = torch.tensor(starts, dtype=torch.int64)
    causal = all(block.causal for block in rows.blocks)
    n_sequences = len(rows.offsets) - 1
    return rows.offsets, rows.slot, blocks, n_sequences, len(blocks), heads, int(causal)


def packed_words(rows: Rows, heads: int) -> int:
    """How many random words the packed weights (R, H, L, L) of all blocks draw."""
    return sum(n_words(n * heads * width**2) for n, width in (block.shape for block in rows.blocks))


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, rows: Rows, heads: int, least: int) -> Tensor:
        dim = qkv.shape[1] // 3
        words = draw(8 * packed_words(rows, heads), qkv.device) if least else None
        ctx.given = (dim, *places(rows, heads), words, least)
        ctx.save_for_backward(qkv)
        out = qkv.new_empty(len(qkv), dim)
        native.call("attention_forward", qkv, *ctx.given, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (qkv,) = ctx.saved_tensors
        of_qkv = torch.empty_like(qkv)
        native.call("attention_backward", qkv, *ctx.given, gradients[0].contiguous(), of_qkv)
        return of_qkv, None, None, None
