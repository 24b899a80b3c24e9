"""SSE-PT: a transformer that knows the user (Wu et al., 2020)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from negrec.models.base import SequenceModel
from negrec.models.layers import ItemInput, UserVectors
from negrec.models.transformer import Encoder, Layout, Start
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo, Queries


class SSEPT(SequenceModel):
    r"""SASRec with the user's vector beside every item's, kept from overfitting by exchanges.

    .. math:: x_t = [e_{i_t}; u] + p_{n - t}, \quad h = \mathrm{Block}_L(\dots \mathrm{Block}_1(x)),
       \quad s(h_t, i) = h_t \cdot [e_i; u]

    Stochastic shared embeddings, in training only: u is that of another user, drawn uniformly
    from all, with probability ``p_user``, at the input and in the score alike; each input item is
    one drawn uniformly from the catalogue with probability ``p_item``. Users that training never
    shows have a vector of zeros. Wu et al., 2020 (doi:10.1145/3383313.3412258, section 3).

    The user's part of a score, h's last numbers times u, is the same for all items: a softmax and
    the ranking do not depend on it, BCE does. It is the offset of the scorer's query.

    Where we differ: the paper also exchanges predicted items (its code with the probability of
    the input items); here samplers and losses are given the true targets. Its code draws for an
    exchanged item a new target too, and thereby changes the target of the item before; ours only
    changes the input. Positions are counted from the end, and embeddings are not multiplied by
    the square root of their size, see ``SASRec``. The authors publish probabilities for
    MovieLens-1M only: 0.92 and 0.1, our defaults.

    Args:
        info: facts of the training split.
        dim: size of the item vectors.
        user_dim: size of the user vectors.
        blocks: number of blocks.
        heads: attention heads, divides ``dim + user_dim``.
        dropout: probability, in [0, 1), on embeddings, attention weights and block outputs.
        layout: of the blocks, see ``SASRec``; "sasrec" is that of the paper.
        feed_forward: inner width of the feed-forward net in multiples of ``dim + user_dim``; the
            layout's own by default.
        p_user: probability, in [0, 1], that a sequence is given another user.
        p_item: probability, in [0, 1], that an input item is another.
        init_std: standard deviation of every matrix's normal initialisation.
        scorer: makes the scorer from V, ``dim`` and a standard deviation, with offsets.
    """

    def __init__(
        self,
        info: DatasetInfo,
        dim: int = 64,
        user_dim: int = 32,
        blocks: int = 2,
        heads: int = 2,
        dropout: float = 0.5,
        layout: Layout = "prenorm",
        feed_forward: int | None = None,
        p_user: float = 0.92,
        p_item: float = 0.1,
        init_std: float = 0.02,
        scorer: Callable[..., ItemScorer] = ItemScorer,
    ) -> None:
        super().__init__()
        for name, p in (("p_user", p_user), ("p_item", p_item)):
            if not 0 <= p <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {p}")
        for name, value in (("dim", dim), ("user_dim", user_dim)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if (dim + user_dim) % heads:
            raise ValueError(
                f"heads must divide dim + user_dim, got heads={heads} and {dim} + {user_dim}"
            )
        self.dim, self.p_user, self.p_item = dim, p_user, p_item
        self.n_users = info.n_users
        self.scorer = scorer(info.n_items, dim, init_std, offset=True)
        self.input = ItemInput(info.n_items, dim, init_std)
        self.users = UserVectors(info, user_dim, init_std)
        width = dim + user_dim
        self.encoder = Encoder(
            info.max_length,
            width,
            blocks,
            heads,
            dropout,
            layout,
            feed_forward,
            Start("normal", init_std),
        )

    def forward(self, batch: Batch) -> Queries:
        return Queries.of(batch, self.states(batch))

    def represent(self, batch: Batch) -> Tensor:
        return self.states(batch)[batch.last]

    def states(self, batch: Batch) -> Tensor:
        """The query of every token, (T, dim + 1) without biases: state and user's part."""
        user, items = batch.user, batch.items
        if self.training:
            user = exchanged(user, self.p_user, 0, self.n_users)
            items = exchanged(items, self.p_item, 1, self.scorer.n_items + 1)
        own = self.users(user)[batch.sequence]
        embedded = torch.cat([self.input(items, self.scorer), own], 1)
        hidden = self.encoder(embedded, batch.from_end, batch.rows)
        offset = (hidden[:, self.dim :] * own).sum(1)
        return self.scorer.query(hidden[:, : self.dim], offset)


def exchanged(ids: Tensor, p: float, start: int, stop: int) -> Tensor:
    """Each id with probability p another, uniform on start..stop - 1; it may be the same again.

    Draws from torch's global stream, which the trainer seeds anew for each step.
    """
    other = torch.randint_like(ids, start, stop)
    return torch.where(torch.rand(ids.shape, device=ids.device) < p, other, ids)
