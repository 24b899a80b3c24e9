"""DSSRec: a SASRec whose state is taken apart into intentions (Ma et al., 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negrec.models.sasrec import SASRec
from negrec.models.transformer import Init, Layout, Start
from negrec.packing import Rows
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo


class DSSRec(SASRec):
    r"""SASRec, and on its states z one vector of the history per latent intention.

    .. math:: p_{k|i} = \mathrm{softmax}_k \frac{N_1(z_i) \cdot N_2(c_k)}{\sqrt D}, \quad
       p_{i|t} = \mathrm{softmax}_{i \le t} \frac{\kappa_i \cdot q_t}{\sqrt D}, \quad
       \phi_k(x_{1:t}) = N_5 \Big( \beta_k + \sum_{i \le t} p_{i|t} \, p_{k|i} \, z_i \Big)

    .. math:: \kappa_i = \tilde\kappa_i + \mathrm{ReLU}(W \tilde\kappa_i + b), \quad
       \tilde\kappa_i = N_3(\alpha_i + z_i), \quad q_t = N_4(\alpha_t + z_t + b')

    where N are layer norms, c_k the prototype of intention k, alpha positions, and p_{i|t} how much
    item i matters after item t (Ma et al., KDD 2020, doi:10.1145/3394486.3403091, section 3:
    intention clustering, weighting and aggregation). A later part of a sequence is read with
    biases beta' of its own. The state that asks for the next item is
    h_t = sum_k p_{k|t} phi_k(x_{1:t}). Limits: with one intention p_{k|i} = 1, and what is left is
    attention to the states.

    Where we differ: the paper scores an item by the best of the K vectors,
    max_k phi_k . e_i / sqrt(D). Our scores are dot products of one state, so the vectors are mixed
    by the intentions of the newest item: the vector that the maximum would take where those are
    sharp, and less than the maximum otherwise. The scale is the scorer's (``scorer.temperature``).
    As for SASRec, positions count from the end.

    Args:
        info: facts of the training split.
        dim: D, hidden size.
        blocks: number of blocks.
        heads: attention heads, divides ``dim``.
        dropout: probability, in [0, 1), on embeddings, attention weights and block outputs.
        intentions: K, at least 1.
        layout: of the blocks, see ``SASRec``.
        feed_forward: see ``SASRec``.
        tied: see ``SASRec``.
        init: see ``SASRec``; prototypes and beta start from N(0, 1 / D).
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
        intentions: int = 4,
        layout: Layout = "prenorm",
        feed_forward: int | None = None,
        tied: bool = True,
        init: Init = "normal",
        init_std: float = 0.02,
        scorer: Callable[..., ItemScorer] = ItemScorer,
    ) -> None:
        if intentions < 1:
            raise ValueError(f"intentions must be at least 1, got {intentions}")
        super().__init__(
            info,
            dim,
            blocks,
            heads,
            dropout,
            layout,
            feed_forward,
            tied=tied,
            init=init,
            init_std=init_std,
            scorer=scorer,
        )
        self.disentangle = Disentangle(info.max_length, dim, intentions)
        Start(init, init_std).apply(self.disentangle.transform)

    def states(self, batch: Batch, causal: bool = True) -> Tensor:
        hidden = super().states(batch, causal)
        rows = batch.rows if causal else batch.whole_rows
        vectors = self.disentangle(hidden, batch.from_end, rows)
        return torch.einsum("tk,tkd->td", self.disentangle.clusters(hidden), vectors)

    def intentions(self, batch: Batch, later: bool = False) -> Tensor:
        """The vectors phi_k of whole sequences, (B, K, D).

        Args:
            batch: the sequences.
            later: they are later parts of sequences, newest item first: read with beta'.
        """
        hidden = super().states(batch)
        vectors: Tensor = self.disentangle(hidden, batch.from_end, batch.rows, later)
        return vectors[batch.last]


class Disentangle(nn.Module):
    """Takes states apart into K vectors, one per intention; equations at ``DSSRec``.

    Args:
        length: the longest sequence, in tokens.
        dim: D.
        intentions: K.
    """

    def __init__(self, length: int, dim: int, intentions: int) -> None:
        super().__init__()
        scale = dim**-0.5
        self.prototypes = nn.Parameter(scale * torch.randn(intentions, dim))  # c
        self.positions = nn.Parameter(torch.zeros(length, dim))  # alpha
        self.query_bias = nn.Parameter(torch.zeros(dim))  # b'
        self.transform = nn.Linear(dim, dim)  # W, b
        self.bias = nn.Parameter(scale * torch.randn(intentions, dim))  # beta
        self.later_bias = nn.Parameter(scale * torch.randn(intentions, dim))  # beta'
        self.token_norm = nn.LayerNorm(dim)
        self.prototype_norm = nn.LayerNorm(dim)
        self.key_norm = nn.LayerNorm(dim)
        self.query_norm = nn.LayerNorm(dim)
        self.vector_norm = nn.LayerNorm(dim)

    def clusters(self, hidden: Tensor) -> Tensor:
        """How much each token belongs to each intention, p_{k|i}, (T, K)."""
        similarity = self.token_norm(hidden) @ self.prototype_norm(self.prototypes).T
        belief: Tensor = (similarity * hidden.shape[1] ** -0.5).softmax(-1)
        return belief

    def forward(self, hidden: Tensor, from_end: Tensor, rows: Rows, later: bool = False) -> Tensor:
        """The vectors of the history of every token, (T, K, D).

        Args:
            hidden: z, (T, D).
            from_end: how many tokens of the same sequence follow each token, (T,).
            rows: the tokens packed; its masks say what belongs to a token's history.
            later: with the biases of later parts.
        """
        placed = hidden + self.positions[from_end]
        key = self.key_norm(placed)
        key = key + F.relu(self.transform(key))
        query = self.query_norm(placed + self.query_bias)
        value = (self.clusters(hidden)[:, :, None] * hidden[:, None]).flatten(1)  # (T, K D)
        gathered = self._gather(query, key, value, rows).view(
            *hidden.shape[:1], -1, hidden.shape[1]
        )
        vectors: Tensor = self.vector_norm(gathered + (self.later_bias if later else self.bias))
        return vectors

    def _gather(self, query: Tensor, key: Tensor, value: Tensor, rows: Rows) -> Tensor:
        """The sum over a token's history of its values, weighted by p_{i|t}, (T, K D)."""
        parts = []
        for block in rows.blocks:
            token = rows.token[block.start : block.stop]
            q, k, v = (x[token].view(*block.shape, -1)[:, None] for x in (query, key, value))
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=block.mask)
            parts.append(out.flatten(0, 2))
        return torch.cat(parts)[rows.slot]
