"""GRU4Rec: a recurrent network over the history (Hidasi et al., 2016)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from negrec.models.base import SequenceModel
from negrec.models.layers import Dropout, ItemInput
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo, Queries


class GRU4Rec(SequenceModel):
    r"""A gated recurrent network; its state after item t asks for item t + 1.

    .. math:: z = \sigma(W_z x_t + U_z g_{t-1}), \quad r = \sigma(W_r x_t + U_r g_{t-1}), \quad
       n = \tanh(W_n x_t + r \odot U_n g_{t-1}), \quad g_t = z \odot g_{t-1} + (1 - z) \odot n,
       \quad s(g_t, i) = P g_t \cdot e_i

    with x_t = e_{i_t}, biases left out, and P the identity where hidden size and D are equal.
    Hidasi et al., 2016 (arXiv:1511.06939, section 3). With ``sampler=in_batch loss=bpr_max`` it is
    what Hidasi & Karatzoglou, 2018 (arXiv:1706.03847) train, known as GRU4Rec+.

    Where we differ: a batch holds whole histories, and gradients flow back to their first item,
    where the papers run sessions in parallel, one item per step, keep the states between steps
    and cut the gradient there. Scores have no final activation (the papers: tanh, elu), and no
    item bias unless ``scorer.bias=true``. The reset gate acts on U_n g, as in cuDNN, not on g.
    The item vectors are also the input (the 2018 paper's constrained embeddings) unless
    ``tied=false``; the 2016 paper feeds one-hot vectors, which is a table of its own.

    Args:
        info: facts of the training split.
        dim: D, size of the item vectors.
        hidden: size of the recurrent state; None: ``dim``.
        layers: number of recurrent layers.
        dropout: probability, in [0, 1), on the embeddings and on the output of every layer.
        tied: the input embeddings are the scorer's item vectors; False gives the input a table
            of its own.
        init_std: standard deviation of the item vectors' normal initialisation. The other matrices
            start uniform within sqrt(6 / (rows + columns)) as in the paper, each gate by itself,
            and biases at 0.
        scorer: makes the scorer from V, D and a standard deviation.
    """

    def __init__(
        self,
        info: DatasetInfo,
        dim: int = 64,
        hidden: int | None = None,
        layers: int = 1,
        dropout: float = 0.3,
        tied: bool = True,
        init_std: float = 0.02,
        scorer: Callable[..., ItemScorer] = ItemScorer,
    ) -> None:
        super().__init__()
        size = dim if hidden is None else hidden
        for name, value in (("dim", dim), ("hidden", size), ("layers", layers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.scorer = scorer(info.n_items, dim, init_std)
        self.input = ItemInput(info.n_items, dim, init_std, own=not tied)
        # One by one, for a dropout that is fast on a CPU between them.
        self.layers = nn.ModuleList(nn.GRU(dim if i == 0 else size, size) for i in range(layers))
        self.projection = nn.Identity() if size == dim else nn.Linear(size, dim)
        self.dropout = Dropout(dropout)
        for layer in (*self.layers, self.projection):
            for matrix in layer.parameters():
                if matrix.dim() == 1:
                    nn.init.zeros_(matrix)
                    continue
                # Of a recurrent layer the matrices of the three gates stand below each other.
                for gate in matrix.chunk(3 if layer is not self.projection else 1):
                    nn.init.xavier_uniform_(gate)

    def forward(self, batch: Batch) -> Queries:
        return Queries.of(batch, self.scorer.query(self.states(batch)))

    def represent(self, batch: Batch) -> Tensor:
        return self.scorer.query(self.states(batch)[batch.last])

    def states(self, batch: Batch) -> Tensor:
        """The state after every token, (T, D)."""
        times = batch.times
        x = self.dropout(self.input(batch.items[times.token], self.scorer))
        for layer in self.layers:
            x = self.dropout(times.run(layer, x))
        states: Tensor = self.projection(x)[times.slot]
        return states
