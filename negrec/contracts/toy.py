"""The small world in which contracts are checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo, Jagged, Queries

N_ITEMS = 300
_UNSEEN = 20  # the last items of the catalogue occur nowhere
_USERS = 320
_MAX_LENGTH = 6
_DIM = 4


@dataclass(frozen=True)
class World:
    """A made-up training split.

    Attributes:
        info: its facts.
        sequences: its windows.
    """

    info: DatasetInfo
    sequences: Sequences

    def batches(self, size: int, epochs: int = 1) -> Iterator[Batch]:
        """Shuffled batches of so many sequences."""
        loader = Loader(self.sequences, size, seed=0)
        for epoch in range(epochs):
            yield from loader.epoch(epoch)

    def queries(self, batch: Batch, seed: int = 0) -> Queries:
        """Queries with random states."""
        generator = torch.Generator().manual_seed(seed)
        return Queries.of(batch, torch.randn(len(batch.items), _DIM, generator=generator))

    def scorer(self, seed: int = 0) -> ItemScorer:
        """Random item vectors of unit scale."""
        made = ItemScorer(self.info.n_items, _DIM)
        generator = torch.Generator().manual_seed(seed + 1)
        with torch.no_grad():
            made.weight.copy_(torch.randn(made.weight.shape, generator=generator))
        return made


@lru_cache(maxsize=4)
def world(n_items: int = N_ITEMS, even: bool = False) -> World:
    """Users who take popular items more often than others, none twice.

    Args:
        n_items: size of the catalogue, at least 300; the interactions are always the same.
        even: all histories are of one length, so that all batches have as many targets.
    """
    generator = torch.Generator().manual_seed(0)
    weight = torch.arange(1.0, N_ITEMS - _UNSEEN + 1) ** -0.5
    longest = 2 * _MAX_LENGTH
    taken = torch.multinomial(weight.expand(_USERS, -1), longest, generator=generator) + 1
    length = torch.randint(2, longest + 1, (_USERS,), generator=generator)
    if even:
        length = torch.full_like(length, _MAX_LENGTH)
    values = taken[torch.arange(longest) < length[:, None]]
    train = Jagged(values, torch.cat([length.new_zeros(1), length.cumsum(0)]))
    counts = torch.bincount(values - 1, minlength=n_items)
    sequences = Sequences(train, _MAX_LENGTH, NextItem())
    info = DatasetInfo(_USERS, n_items, _MAX_LENGTH, counts)
    return World(sequences.facts(info), sequences)


def chi_square_p(observed: Tensor, expected: Tensor) -> float:
    """p-value of counts (n,) against expected counts (n,); cells below 5 are merged.

    0 where something happened that cannot.
    """
    from scipy import stats

    observed, expected = observed.double(), expected.double()
    if observed[expected == 0].any():
        return 0.0
    common = expected >= 5
    cells, counts = expected[common], observed[common]
    rest = expected[~common].sum()
    if rest >= 5:
        cells = torch.cat([cells, rest[None]])
        counts = torch.cat([counts, observed[~common].sum()[None]])
    if len(cells) < 2:
        return 1.0  # one outcome is certain, and the impossible was ruled out above
    # What is too rare for a cell is left out on both sides.
    cells = cells * counts.sum() / cells.sum()
    return float(stats.chisquare(counts.numpy(), cells.numpy()).pvalue)
