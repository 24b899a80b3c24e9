"""SASRec: self-attentive sequential recommendation (Kang & McAuley, 2018)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from negrec.models.base import SequenceModel
from negrec.models.layers import ItemInput
from negrec.models.transformer import Encoder, Init, Layout, Start
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo, Queries


class SASRec(SequenceModel):
    r"""Causal self-attention over the history; the state after item t asks for item t + 1.

    .. math:: x_t = e_{i_t} + p_{n - t}, \quad h = \mathrm{Block}_L(\dots \mathrm{Block}_1(x)),
       \quad s(h_t, i) = h_t \cdot e_i

    Kang & McAuley, 2018 (arXiv:1808.09781, section III). Positions are counted from the end of
    the sequence, which is the paper's left-padded window without its padding.

    Four layouts of the block, where f is the feed-forward net and A the attention:

    * ``prenorm`` (default): x + A(norm(x)), then x + f(norm(x)), GELU, 4 D, a last norm.
    * ``sasrec``, as the authors' code: q = norm(x); x = q + A(q; keys and values from x); y =
      norm(x); x = y + f(y), ReLU, 1 D, a last norm; no output projection of the attention. We do
      not multiply the embeddings by sqrt(D).
    * ``s3rec`` (Zhou et al., 2020, arXiv:2008.07873, code): norm(x + A(x)), then norm(x + f(x)),
      GELU, 4 D, the first norm on the embeddings.
    * ``ligr``, gated: x + sigmoid(x G + g) A(norm(x)), then x + sigmoid(x G' + g') f(norm(x)),
      f(y) = (SiLU(y U) * y V) W, 4 D, no biases in f and no last norm. With sampled softmax this
      is eSASRec (2025, arXiv:2508.06450, and RecTools' LiGRLayers, from which the equations
      are; the block is LinkedIn's, arXiv:2502.03417). f drops out its product as well.

    Args:
        info: facts of the training split.
        dim: D, hidden size.
        blocks: number of blocks.
        heads: attention heads, divides ``dim``.
        dropout: probability, in [0, 1), on embeddings, attention weights and block outputs.
        layout: which of the four.
        feed_forward: inner width of f in multiples of D; the layout's own by default.
        hides: the model has a vector for items that are not told (id 0), for objectives that hide
            some.
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
        hides: bool = False,
        tied: bool = True,
        init: Init = "normal",
        init_std: float = 0.02,
        scorer: Callable[..., ItemScorer] = ItemScorer,
    ) -> None:
        super().__init__()
        start = Start(init, init_std)
        table = start.std(info.n_items, dim)
        self.hides = hides
        self.scorer = scorer(info.n_items, dim, table)
        self.input = ItemInput(info.n_items, dim, table, own=not tied, hides=hides)
        self.encoder = Encoder(
            info.max_length, dim, blocks, heads, dropout, layout, feed_forward, start
        )

    def forward(self, batch: Batch) -> Queries:
        return Queries.of(batch, self.scorer.query(self.states(batch)))

    def represent(self, batch: Batch) -> Tensor:
        return self.scorer.query(self.states(batch)[batch.last])

    def states(self, batch: Batch, causal: bool = True) -> Tensor:
        """The hidden state of every token, (T, D).

        Args:
            batch: the sequences.
            causal: a token sees itself and what precedes it; otherwise its whole sequence.
        """
        embedded = self.input(batch.items, self.scorer)
        states: Tensor = self.encoder(
            embedded, batch.from_end, batch.rows if causal else batch.whole_rows
        )
        return states
