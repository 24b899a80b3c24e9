"""Batches of training sequences."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from negrec import seeding
from negrec.data.sequences import Sequences
from negrec.types import Batch, slices


class Loader:
    """Shuffles the training windows anew each epoch and serves them in jagged batches.

    The order of an epoch depends on the seed and the epoch alone, so an epoch can be entered at
    any step.

    Args:
        sequences: the training windows.
        batch_size: windows per batch; the last batch of an epoch may be smaller.
        seed: the run's seed.
    """

    def __init__(self, sequences: Sequences, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.sequences = sequences
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.sequences) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from step ``start`` on."""
        shuffle = seeding.generator(self.seed, "order", epoch)
        order = torch.randperm(len(self.sequences), generator=shuffle)
        for index in range(start, len(self)):
            chosen = order[index * self.batch_size : (index + 1) * self.batch_size]
            yield self.batch(chosen, (epoch, index))

    def batch(self, windows: Tensor, key: tuple[int, ...]) -> Batch:
        """The batch of the given windows."""
        source = self.sequences
        user = source.user[windows]
        window = slices(source.train.values, source.start[windows], source.end[windows])
        generator = seeding.generator(self.seed, "targets", *key)
        inputs, query, target = source.targets(window, generator)
        within = torch.arange(len(inputs.values)) - inputs.offsets[inputs.row]
        seen = source.seen
        return Batch(
            user=user,
            items=inputs.values,
            position=source.position[windows][inputs.row] + within,
            offsets=inputs.offsets,
            query=query,
            target=target,
            seen=slices(seen.values, seen.offsets[user], seen.offsets[user + 1]),
            key=key,
        )
