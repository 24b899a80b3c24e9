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

    With ``osf`` the batches of the first epochs are a buffer, as in Prakash et al., 2024
    (arXiv:2410.17276, section 5.1 and appendix A): from epoch ``osf`` on each step replays one of
    them, drawn uniformly with replacement. What is kept is not the batch but its key, from which
    the same windows and the same model-free negatives follow; a selecting sampler ranks them anew.

    Args:
        sequences: the training windows.
        batch_size: windows per batch; the last batch of an epoch may be smaller.
        seed: the run's seed.
        osf: oversampling factor: epochs whose batches are kept, at least 1; None: every epoch is
            shuffled anew.
    """

    def __init__(
        self, sequences: Sequences, batch_size: int, seed: int, osf: int | None = None
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if osf is not None and osf < 1:
            raise ValueError(f"osf must be at least 1 or null, got {osf}")
        self.sequences = sequences
        self.batch_size = batch_size
        self.seed = seed
        self.osf = osf
        self._orders: dict[int, Tensor] = {}  # of the kept epochs, once they are replayed

    def __len__(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.sequences) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch from step ``start`` on."""
        orders = self._orders if self._replays(epoch) else {}
        for first, index in self._keys(epoch)[start:]:
            if first not in orders:
                orders[first] = self._order(first)
            chosen = orders[first][index * self.batch_size : (index + 1) * self.batch_size]
            yield self.batch(chosen, (first, index))

    def _replays(self, epoch: int) -> bool:
        return self.osf is not None and epoch >= self.osf

    def _keys(self, epoch: int) -> list[tuple[int, int]]:
        """Of each step, the epoch and the step at which its batch came first."""
        steps = len(self)
        if not self._replays(epoch):
            return [(epoch, index) for index in range(steps)]
        assert self.osf is not None
        generator = seeding.generator(self.seed, "replay", epoch)
        drawn = torch.randint(self.osf * steps, (steps,), generator=generator)
        return [divmod(number, steps) for number in drawn.tolist()]

    def _order(self, epoch: int) -> Tensor:
        """The windows in the order of an epoch that is shuffled, (W,)."""
        shuffle = seeding.generator(self.seed, "order", epoch)
        return torch.randperm(len(self.sequences), generator=shuffle)

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
