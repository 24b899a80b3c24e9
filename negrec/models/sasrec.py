"""SASRec: self-attentive sequential recommendation (Kang & McAuley, 2018)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negrec.models.base import SequenceModel
from negrec.models.layers import Dropout, RowAttention
from negrec.packing import Rows
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo, Queries

Layout = Literal["prenorm", "sasrec", "s3rec"]
Init = Literal["normal", "xavier"]


class SASRec(SequenceModel):
    r"""Causal self-attention over the history; the state after item t asks for item t + 1.

    .. math:: x_t = e_{i_t} + p_{n - t}, \quad h = \mathrm{Block}_L(\dots \mathrm{Block}_1(x)),
       \quad s(h_t, i) = h_t \cdot e_i

    Kang & McAuley, 2018 (arXiv:1808.09781, section III). Positions are counted from the end of
    the sequence, which is the paper's left-padded window without its padding.

    Three layouts of the block, where f is the feed-forward net and A the attention:

    * ``prenorm`` (default): x + A(norm(x)), then x + f(norm(x)), GELU, 4 D, a last norm.
    * ``sasrec``, as the authors' code: q = norm(x); x = q + A(q; keys and values from x); y =
      norm(x); x = y + f(y), ReLU, 1 D, a last norm; no output projection of the attention. We do
      not multiply the embeddings by sqrt(D).
    * ``s3rec`` (Zhou et al., 2020, arXiv:2008.07873, code): norm(x + A(x)), then norm(x + f(x)),
      GELU, 4 D, the first norm on the embeddings.

    Args:
        info: facts of the training split.
        dim: D, hidden size.
        blocks: number of blocks.
        heads: attention heads, divides ``dim``.
        dropout: probability, in [0, 1), on embeddings, attention weights and block outputs.
        layout: which of the three.
        feed_forward: inner width of f in multiples of D; the layout's own by default.
        tied: the input embeddings are the scorer's item vectors; False gives the input a table
            of its own (as gSASRec's code does).
        init: how every matrix starts. "normal": N(0, init_std^2); "xavier": N(0, 2 / (rows +
            columns)) (Glorot & Bengio, 2010), as the PyTorch port of the authors' code that
            UFNRec builds on. Biases start at 0.
        init_std: standard deviation of ``init="normal"``.
        scorer: makes the scorer from V, D and a standard deviation.
    """

    def __init__(
        self,
        info: DatasetInfo,
        dim: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        layout: Layout = "prenorm",
        feed_forward: int | None = None,
        tied: bool = True,
        init: Init = "normal",
        init_std: float = 0.02,
        scorer: Callable[..., ItemScorer] = ItemScorer,
    ) -> None:
        super().__init__()
        if layout not in _BLOCKS:
            raise ValueError(f"layout must be one of {', '.join(_BLOCKS)}, got {layout!r}")
        if init not in ("normal", "xavier"):
            raise ValueError(f"init must be normal or xavier, got {init!r}")
        for name, value in (("dim", dim), ("blocks", blocks), ("heads", heads)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        block = _BLOCKS[layout]
        width = dim * (feed_forward or block.feed_forward)

        def std(rows: int, columns: int) -> float:
            return init_std if init == "normal" else math.sqrt(2 / (rows + columns))

        table = std(info.n_items, dim)
        self.scorer = scorer(info.n_items, dim, table)
        self.input = None if tied else ItemScorer(info.n_items, dim, table)
        self.positions = nn.Embedding(info.max_length, dim)
        self.blocks = nn.ModuleList(block(dim, heads, width, dropout) for _ in range(blocks))
        self.first = nn.LayerNorm(dim) if block.norm_first else nn.Identity()
        self.final = nn.LayerNorm(dim) if block.norm_last else nn.Identity()
        self.dropout = Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=std(*module.weight.shape))
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, batch: Batch) -> Queries:
        return Queries.of(batch, self.scorer.query(self.states(batch)))

    def represent(self, batch: Batch) -> Tensor:
        return self.scorer.query(self.states(batch)[batch.last])

    def states(self, batch: Batch) -> Tensor:
        """The hidden state after every token, (T, D)."""
        embedded = (self.input or self.scorer).embed(batch.items)
        x = self.dropout(self.first(embedded + self.positions(batch.from_end)))
        for block in self.blocks:
            x = block(x, batch.rows)
        out: Tensor = self.final(x)
        return out


class _Block(nn.Module):
    """What the three layouts share: attention, feed-forward net, two norms, dropout."""

    feed_forward = 4
    norm_first = False  # a norm on the embeddings
    norm_last = True  # a norm after the last block

    def __init__(self, dim: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.attention = RowAttention(dim, heads, dropout)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.up = nn.Linear(dim, width)
        self.down = nn.Linear(width, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.dropout = Dropout(dropout)

    def attend(self, x: Tensor, rows: Rows) -> Tensor:
        attended: Tensor = self.dropout(self.out(self.attention(self.qkv(x), rows)))
        return attended

    def feed(self, x: Tensor) -> Tensor:
        fed: Tensor = self.dropout(self.down(F.gelu(self.up(x))))
        return fed


class _PreNorm(_Block):
    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        x = x + self.attend(self.norm1(x), rows)
        return x + self.feed(self.norm2(x))


class _PostNorm(_Block):
    norm_first = True
    norm_last = False

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        x = self.norm1(x + self.attend(x, rows))
        y: Tensor = self.norm2(x + self.feed(x))
        return y


class _Original(_Block):
    feed_forward = 1

    def __init__(self, dim: int, heads: int, width: int, dropout: float) -> None:
        super().__init__(dim, heads, width, dropout)
        self.out = nn.Identity()  # type: ignore[assignment]  # the paper projects no output

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        query = self.norm1(x)
        dim = x.shape[1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(query, weight[:dim], bias[:dim])
        kv = F.linear(x, weight[dim:], bias[dim:])
        x = query + self.attention(torch.cat([q, kv], 1), rows)
        y = self.norm2(x)
        inner = self.dropout(F.relu(self.up(y)))
        out: Tensor = y + self.dropout(self.down(inner))
        return out


_BLOCKS: dict[Layout, type[_Block]] = {
    "prenorm": _PreNorm,
    "sasrec": _Original,
    "s3rec": _PostNorm,
}
