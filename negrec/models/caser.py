"""Caser: convolutions over the newest items (Tang & Wang, 2018)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negrec.models.base import SequenceModel
from negrec.models.layers import Dropout, ItemInput, UserVectors
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo, Queries

_WITH_BIASES = partial(ItemScorer, bias=True)


class Caser(SequenceModel):
    r"""Convolutions over the L newest items as over an image, beside a vector of the user.

    .. math:: c^h_a = \mathrm{relu}(F_h \cdot E_{a:a+h} + b_h), \quad
       o = [\max_a c^1_a; \dots; \max_a c^L_a], \quad \tilde o_k = \tilde F_k E + \tilde b_k, \quad
       z = \mathrm{relu}(W [\tilde o; o] + b), \quad s(t, i) = W'_i \cdot [z; p_u] + b'_i

    where the rows of E are the vectors of the L items up to t, oldest first, and zeros before the
    history's start; each horizontal filter F_h spans h rows, 1 <= h <= L, and a runs over the
    L - h + 1 places where it fits; a vertical filter weighs the rows. p_u is zero for users that
    training never shows. Tang & Wang, 2018 (doi:10.1145/3159652.3159656, section 3); L, the numbers
    of filters and the dropout are those of the authors' code, whose D is 50.

    Where we differ: every position is a window of its own, also those with fewer than L items
    before them, and asks for the next item; the paper's windows ask for the T items after them
    (the code's default is 3). ``loss`` and ``sampler`` are free; the paper has BCE with 3
    uniform negatives per target.

    A place of a filter is shared by the windows that contain it, so we compute it once per token.

    Args:
        info: facts of the training split.
        dim: D, size of the item vectors, of z, and of the user vectors.
        window: L, items.
        horizontal: filters of each height.
        vertical: filters.
        dropout: probability, in [0, 1), on the outputs of the convolutions.
        init_std: standard deviation of the normal initialisation of item and user vectors and W'.
            The other layers start uniform within 1 / sqrt(inputs) as in the authors' code; b'
            starts at 0.
        scorer: makes the scorer, W' and b', from V, 2 D and a standard deviation.
    """

    def __init__(
        self,
        info: DatasetInfo,
        dim: int = 64,
        window: int = 5,
        horizontal: int = 16,
        vertical: int = 4,
        dropout: float = 0.5,
        init_std: float = 0.02,
        scorer: Callable[..., ItemScorer] = _WITH_BIASES,
    ) -> None:
        super().__init__()
        sizes = {"dim": dim, "window": window, "horizontal": horizontal, "vertical": vertical}
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.scorer = scorer(info.n_items, 2 * dim, init_std)
        self.input = ItemInput(info.n_items, dim, init_std, own=True)
        self.users = UserVectors(info, dim, init_std)
        self.horizontal = Horizontal(dim, window, horizontal)
        self.vertical = nn.Linear(window, vertical)
        self.full = nn.Linear(vertical * dim + window * horizontal, dim)
        self.window = window
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> Queries:
        return Queries.of(batch, self.scorer.query(self.states(batch)))

    def represent(self, batch: Batch) -> Tensor:
        return self.scorer.query(self.states(batch)[batch.last])

    def states(self, batch: Batch) -> Tensor:
        """The state of every token, (T, 2 D)."""
        before = batch.before
        embedded = self.input(batch.items, self.scorer)
        rows = [shifted(embedded, age, before) for age in range(self.window)]
        vertical = self.vertical(torch.stack(rows, 2)).mT.flatten(1)  # (T, vertical * D)
        found = torch.cat([vertical, self.horizontal(embedded, before)], 1)
        z = F.relu(self.full(self.dropout(found)))
        return torch.cat([z, self.users(batch.user)[batch.sequence]], 1)


class Horizontal(nn.Module):
    """Filters of heights 1..L over the window that ends at each token, and their largest outputs.

    Args:
        dim: D.
        window: L.
        filters: n of each height.
    """

    def __init__(self, dim: int, window: int, filters: int) -> None:
        super().__init__()
        self.window, self.filters = window, filters
        height = torch.arange(1, window + 1).repeat_interleave(filters)
        bound = 1 / (height * dim).sqrt()
        # weight[age]: the row of each filter that meets the item so many steps before its newest;
        # only filters higher than that have one.
        self.weight = nn.ParameterList(
            torch.empty(window * filters - age * filters, dim).uniform_(-1, 1)
            * bound[age * filters :, None]
            for age in range(window)
        )
        self.bias = nn.Parameter(torch.empty(window * filters).uniform_(-1, 1) * bound)

    def forward(self, embedded: Tensor, before: Tensor) -> Tensor:
        """The largest output of each filter in each token's window, (T, L n).

        Args:
            embedded: (T, D).
            before: how many tokens of the same sequence stand before each token, (T,).
        """
        n = self.filters
        sizes = [len(weight) for weight in self.weight]
        products = torch.split(embedded @ torch.cat(list(self.weight)).T, sizes, 1)
        # Each filter with its newest row at each token.
        placed = products[-1]
        for product in reversed(products[:-1]):
            older = shifted(placed, 1, before)
            placed = torch.cat([product[:, :n], product[:, n:] + older], 1)
        # Without the bias: then an alignment that ends before the history is 0.
        largest = placed
        for age in range(1, self.window):
            fits = (self.window - age) * n  # filters of heights up to L - age
            moved = shifted(placed[:, :fits], age, before)
            largest = torch.cat([torch.maximum(largest[:, :fits], moved), largest[:, fits:]], 1)
        return F.relu(largest + self.bias)


def shifted(x: Tensor, steps: int, before: Tensor) -> Tensor:
    """Row t becomes row t - steps where that is of the same sequence, and zeros elsewhere.

    Args:
        x: (T, any).
        steps: at least 0.
        before: how many tokens of the same sequence stand before each token, (T,).
    """
    if steps == 0:
        return x
    # What comes round from the end is masked.
    return x.roll(steps, 0).masked_fill((before < steps)[:, None], 0)
