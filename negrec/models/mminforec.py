"""MMInfoRec: a SASRec with a memory, which foretells several items (Qiu et al., 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from negrec.models.layers import Dropout
from negrec.models.sasrec import SASRec
from negrec.models.transformer import Init, Layout, Start
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo


class MMInfoRec(SASRec):
    r"""SASRec whose states c read a memory of M slots before they ask for the next item.

    .. math:: \hat z_{t+1} = R(c_t), \quad
       R(c) = \mathrm{dropout}(c + \mathrm{softmax}(W c + b) \, M)

    From the state for the next item, a recurrent cell foretells those for the items after it:

    .. math:: g_1 = \mathrm{GRU}(\hat z_{t+1}, 0), \quad \hat z_{t+2} = R(g_1), \quad
       g_2 = \mathrm{GRU}(\hat z_{t+2}, g_1), \quad \dots

    (Qiu et al., ICDM 2021, arXiv:2109.00368, the memory-augmented prediction; details such as the
    sum with c from the authors' code.) The cell serves ``objective=mminforec`` with more than one
    step; recommendations read the first state. Limits: a memory of zeros and no memory dropout is
    SASRec.

    Where we differ: items are ids without attributes, so there is no encoder of items; the encoder
    of sequences is SASRec's, and weights start as its weights do, the cell's as torch has it.
    The cell reads states as they are scored: normalised where ``scorer.similarity`` is cosine.

    Args:
        info: facts of the training split.
        dim: D, hidden size.
        blocks: number of blocks.
        heads: attention heads, divides ``dim``.
        dropout: probability, in [0, 1), on embeddings, attention weights and block outputs.
        slots: of the memory, M, at least 1.
        memory_dropout: probability, in [0, 1), on what is read.
        layout: of the blocks, see ``SASRec``.
        feed_forward: see ``SASRec``.
        tied: see ``SASRec``.
        init: see ``SASRec``.
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
        slots: int = 64,
        memory_dropout: float = 0.2,
        layout: Layout = "prenorm",
        feed_forward: int | None = None,
        tied: bool = True,
        init: Init = "normal",
        init_std: float = 0.02,
        scorer: Callable[..., ItemScorer] = ItemScorer,
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, got {slots}")
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
        self.address = nn.Linear(dim, slots)  # W, b
        self.memory = nn.Embedding(slots, dim)
        self.memory_dropout = Dropout(memory_dropout)
        self.cell = nn.GRUCell(self.scorer.width, dim)
        start = Start(init, init_std)
        start.apply(self.address)
        start.apply(self.memory)

    def states(self, batch: Batch, causal: bool = True) -> Tensor:
        return self.read(super().states(batch, causal))

    def read(self, states: Tensor) -> Tensor:
        """What states become by reading the memory, (N, D)."""
        recalled = self.address(states).softmax(-1) @ self.memory.weight
        out: Tensor = self.memory_dropout(states + recalled)
        return out

    def following(self, hidden: Tensor, steps: int) -> list[Tensor]:
        """The states that ask for the items after the next one.

        Args:
            hidden: states that ask for the next item, as they are scored, (N, D).
            steps: how many items after the next one.

        Returns:
            ``steps`` tensors as they are scored, (N, D).
        """
        inner = torch.zeros_like(hidden[:, : self.cell.hidden_size])
        states = []
        for _ in range(steps):
            inner = self.cell(hidden, inner)
            hidden = self.scorer.query(self.read(inner))
            states.append(hidden)
        return states
