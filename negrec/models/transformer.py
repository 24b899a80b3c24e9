"""Transformer blocks on jagged tokens (T, D), and the encoder that stacks them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negrec.kernels import prenorm
from negrec.kernels.gelu import gelu
from negrec.models.layers import Dropout, RowAttention
from negrec.packing import Rows

Layout = Literal["prenorm", "sasrec", "s3rec", "ligr"]
Init = Literal["normal", "xavier"]


@dataclass(frozen=True)
class Start:
    """How every matrix starts; biases start at 0.

    Attributes:
        init: "normal": N(0, std^2); "xavier": N(0, 2 / (rows + columns)) (Glorot & Bengio, 2010).
        normal_std: standard deviation of "normal".
    """

    init: Init = "normal"
    normal_std: float = 0.02

    def __post_init__(self) -> None:
        if self.init not in ("normal", "xavier"):
            raise ValueError(f"init must be normal or xavier, got {self.init!r}")

    def std(self, rows: int, columns: int) -> float:
        """The standard deviation of a matrix of this shape."""
        return self.normal_std if self.init == "normal" else math.sqrt(2 / (rows + columns))

    def apply(self, parent: nn.Module) -> None:
        """Starts the linear layers and embeddings of a module."""
        for module in parent.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=self.std(*module.weight.shape))
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)


class Encoder(nn.Module):
    r"""Self-attention over embedded tokens, with learnt positions.

    .. math:: x_t = e_t + p_{n - t}, \quad h = \mathrm{Block}_L(\dots \mathrm{Block}_1(x))

    Positions are counted from the end of the sequence, which is the usual left-padded window
    without its padding. The layouts of a block are told at ``SASRec``.

    Args:
        length: the longest sequence, in tokens.
        dim: D, hidden size.
        blocks: number of blocks.
        heads: attention heads, divides ``dim``.
        dropout: probability, in [0, 1), on embeddings, attention weights and block outputs.
        layout: of the blocks.
        feed_forward: inner width of the feed-forward net in multiples of D; the layout's own by
            default.
        start: how the matrices start.
    """

    def __init__(
        self,
        length: int,
        dim: int,
        blocks: int,
        heads: int,
        dropout: float,
        layout: Layout = "prenorm",
        feed_forward: int | None = None,
        start: Start | None = None,
    ) -> None:
        super().__init__()
        if layout not in BLOCKS:
            raise ValueError(f"layout must be one of {', '.join(BLOCKS)}, got {layout!r}")
        for name, value in (("dim", dim), ("blocks", blocks), ("heads", heads)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        block = BLOCKS[layout]
        width = dim * (feed_forward or block.feed_forward)
        self.positions = nn.Embedding(length, dim)
        self.blocks = nn.ModuleList(block(dim, heads, width, dropout) for _ in range(blocks))
        self.first = nn.LayerNorm(dim) if block.norm_first else nn.Identity()
        self.final = nn.LayerNorm(dim) if block.norm_last else nn.Identity()
        self.dropout = Dropout(dropout)
        (start or Start()).apply(self)

    def forward(self, embedded: Tensor, from_end: Tensor, rows: Rows) -> Tensor:
        """The hidden state of every token, (T, D).

        Args:
            embedded: (T, D).
            from_end: how many tokens of the same sequence follow each token, (T,).
            rows: the tokens packed; its masks say who may look at whom.
        """
        x = self.dropout(self.first(embedded + self.positions(from_end)))
        for block in self.blocks:
            x = block(x, rows)
        out: Tensor = self.final(x)
        return out


class Block(nn.Module):
    """What the layouts share: attention, feed-forward net, two norms, dropout."""

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

    def attend(self, x: Tensor, rows: Rows, onto: Tensor | None = None) -> Tensor:
        """A(x), added to ``onto`` where that is given."""
        attended: Tensor = self.dropout(self.out(self.attention(self.qkv(x), rows)), onto)
        return attended

    def feed(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """f(x), added to ``onto`` where that is given."""
        fed: Tensor = self.dropout(self.down(gelu(self.up(x))), onto)
        return fed


class PreNorm(Block):
    """x + A(norm(x)), then x + f(norm(x)), GELU."""

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        layers = (self.norm1, self.qkv, self.out, self.norm2, self.up, self.down)
        weights = [weight for layer in layers for weight in (layer.weight, layer.bias)]
        if prenorm.serves(x, rows, weights):  # the same, faster
            p = self.dropout.p if self.training else 0.0
            return prenorm.block(x, rows, self.attention.heads, p, self.norm1.eps, weights)
        x = self.attend(self.norm1(x), rows, onto=x)
        return self.feed(self.norm2(x), onto=x)


class PostNorm(Block):
    """norm(x + A(x)), then norm(x + f(x)), GELU, as S3-Rec's code."""

    norm_first = True
    norm_last = False

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        x = self.norm1(self.attend(x, rows, onto=x))
        y: Tensor = self.norm2(self.feed(x, onto=x))
        return y


class Original(Block):
    """SASRec as its authors' code has it: queries from norm(x), keys and values from x; ReLU."""

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
        out: Tensor = self.dropout(self.down(inner), onto=y)
        return out


class LiGR(Block):
    """x + sigmoid(G x) * A(norm(x)), then x + sigmoid(G' x) * f(norm(x)), f SwiGLU."""

    norm_last = False

    def __init__(self, dim: int, heads: int, width: int, dropout: float) -> None:
        super().__init__(dim, heads, width, dropout)
        self.up = nn.Linear(dim, 2 * width, bias=False)  # both sides of the product
        self.down = nn.Linear(width, dim, bias=False)
        self.gate1 = nn.Linear(dim, dim)
        self.gate2 = nn.Linear(dim, dim)

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        x = x + self.gate1(x).sigmoid() * self.attend(self.norm1(x), rows)
        out: Tensor = x + self.gate2(x).sigmoid() * self.feed(self.norm2(x))
        return out

    def feed(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        swish, linear = self.up(x).chunk(2, 1)
        fed: Tensor = self.dropout(self.down(self.dropout(F.silu(swish) * linear)), onto)
        return fed


BLOCKS: dict[Layout, type[Block]] = {
    "prenorm": PreNorm,
    "sasrec": Original,
    "s3rec": PostNorm,
    "ligr": LiGR,
}
