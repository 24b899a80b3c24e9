"""BERT4Rec: bidirectional self-attention, asked for hidden items (Sun et al., 2019)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from negrec.models.base import SequenceModel
from negrec.models.layers import ItemInput
from negrec.models.transformer import Encoder, Init, Layout, Start
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo, Queries


class BERT4Rec(SequenceModel):
    r"""Self-attention over the whole sequence; the state of a hidden item asks what it was.

    .. math:: h = \mathrm{Block}_L(\dots \mathrm{Block}_1(e_{i_t} + p_{n - t})), \quad
       s(h_t, i) = \mathrm{GELU}(h_t W + b) \cdot e_i + b_i

    Sun et al., 2019 (arXiv:1904.06690, section 3; the scores are equation 7, where b_i is the
    scorer's ``bias``). At inference a hidden item stands after the history, and its state asks.

    The layout ``s3rec`` is that of the paper's equations, norm(x + A(x)), with a norm on the
    embeddings as in the authors' code. Where we differ: the code has another norm after the GELU,
    and a dropout of its own for attention weights (0.2); positions are counted from the end of
    the sequence, with one more for the hidden item, so a history keeps ``max_length`` items.

    Args:
        info: facts of the training split.
        dim: D, hidden size.
        blocks: number of blocks.
        heads: attention heads, divides ``dim``.
        dropout: probability, in [0, 1), on embeddings, attention weights and block outputs.
        layout: of the blocks, see ``SASRec``.
        feed_forward: inner width of the feed-forward net in multiples of D; the layout's own by
            default.
        init: how every matrix starts, see ``SASRec``; "xavier" is ours, the paper's is "normal".
            A hidden item says nothing of itself: its state has to learn first where to look, and
            from small matrices binary losses (BCE) may never get there.
        init_std: standard deviation of ``init="normal"``.
        scorer: makes the scorer from V, D and a standard deviation.
    """

    causal: ClassVar[bool] = False
    hides = True

    def __init__(
        self,
        info: DatasetInfo,
        dim: int = 64,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        layout: Layout = "s3rec",
        feed_forward: int | None = None,
        init: Init = "xavier",
        init_std: float = 0.02,
        scorer: Callable[..., ItemScorer] = ItemScorer,
    ) -> None:
        super().__init__()
        start = Start(init, init_std)
        table = start.std(info.n_items, dim)
        self.scorer = scorer(info.n_items, dim, table)
        self.input = ItemInput(info.n_items, dim, table, hides=True)
        self.encoder = Encoder(
            info.max_length + 1, dim, blocks, heads, dropout, layout, feed_forward, start
        )
        self.head = nn.Linear(dim, dim)
        start.apply(self.head)

    def forward(self, batch: Batch) -> Queries:
        queries = Queries.of(batch, self.states(batch))
        return replace(queries, hidden=self._ask(queries.hidden))

    def represent(self, batch: Batch) -> Tensor:
        asking = batch.with_hidden_end()
        return self._ask(self.states(asking)[asking.last])

    def states(self, batch: Batch) -> Tensor:
        """The hidden state of every token, (T, D)."""
        embedded = self.input(batch.items, self.scorer)
        states: Tensor = self.encoder(embedded, batch.from_end, batch.whole_rows)
        return states

    def _ask(self, states: Tensor) -> Tensor:
        return self.scorer.query(F.gelu(self.head(states)))
