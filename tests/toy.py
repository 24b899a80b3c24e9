"""Small data that tests share."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from negrec.contracts.toy import chi_square_p as chi_square
from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.kernels import tiles
from negrec.samplers.uniform import Uniform
from negrec.scoring import ItemScorer
from negrec.types import Batch, DatasetInfo, Jagged, Queries, Step


class Labelling(Uniform):
    """A sampler that may relabel candidates as positives, and never does."""

    labels = True


def cut_tiles(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    """Tiles of scores of so many columns and 200 rows, so that a small catalogue has several."""
    monkeypatch.setattr(tiles, "_WIDEST", width)
    monkeypatch.setattr(tiles, "_STRETCH", width)
    monkeypatch.setattr(tiles, "_CELLS", 200 * width)


def jagged(rows: Sequence[Sequence[int]]) -> Jagged:
    """Rows of integers as a jagged tensor."""
    lengths = torch.tensor([0, *(len(row) for row in rows)])
    return Jagged(torch.tensor([x for row in rows for x in row]), lengths.cumsum(0))


def info(
    n_items: int = 20, max_length: int = 8, counts: Sequence[int] | None = None
) -> DatasetInfo:
    """Facts of a training split; counts are 1, 2, 3, ... by default."""
    counts = list(range(1, n_items + 1)) if counts is None else counts
    return DatasetInfo(
        n_users=50, n_items=n_items, max_length=max_length, counts=torch.tensor(counts)
    )


def batch(histories: Sequence[Sequence[int]], max_length: int = 8) -> Batch:
    """The training batch of whole histories, user 0 first."""
    sequences = Sequences(jagged(histories), max_length, NextItem())
    return Loader(sequences, len(histories), seed=0).batch(torch.arange(len(sequences)), (0, 0))


def queries(source: Batch, dim: int = 4, seed: int = 0) -> Queries:
    """Queries of a batch with random states."""
    generator = torch.Generator().manual_seed(seed)
    return Queries.of(source, torch.randn(len(source.items), dim, generator=generator))


def scorer(n_items: int = 20, dim: int = 4, seed: int = 0) -> ItemScorer:
    """A scorer with random item vectors of unit scale."""
    made = ItemScorer(n_items, dim)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        made.weight.copy_(torch.randn(n_items, dim, generator=generator))
    return made


def step(seed: int = 0, epoch: int = 0) -> Step:
    """A step with a seeded generator."""
    return Step(epoch, 0, torch.Generator().manual_seed(seed))


def random_histories(n: int, n_items: int, longest: int, seed: int = 0) -> list[list[int]]:
    """n histories of 2..longest items without repeats."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, longest + 1, (n,), generator=generator).tolist()
    return [
        (torch.randperm(n_items, generator=generator)[:length] + 1).tolist() for length in lengths
    ]


def chi_square_p(drawn: Tensor, expected: Tensor) -> float:
    """p-value of draws 0..n - 1 against expected probabilities (n,), rare cells merged."""
    observed = torch.bincount(drawn.flatten(), minlength=len(expected))
    return chi_square(observed, expected.double() * drawn.numel())
