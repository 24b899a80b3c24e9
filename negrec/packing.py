"""Packing of jagged sequences for attention and recurrence, so that padding is never computed."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from negrec.types import moved

_NARROW = 16  # most histories are short; a row this wide wastes little of its attention matrix


@dataclass(frozen=True)
class Block:
    """Rows of one width.

    Attributes:
        start: first slot of the block among the P slots of its ``Rows``.
        shape: (R, L), rows and their width.
        owner: the sequence in each slot, -1 where it is empty, (R, L).
        causal: a token sees itself and what precedes it; otherwise its whole sequence.
    """

    start: int
    shape: tuple[int, int]
    owner: Tensor
    causal: bool

    @property
    def stop(self) -> int:
        return self.start + self.shape[0] * self.shape[1]

    @cached_property
    def mask(self) -> Tensor:
        """Who may look at whom, (R, 1, L, L) bool: nothing across sequences.

        The empty slots of a row may look at each other: nobody reads them.
        """
        mask = self.owner[:, :, None] == self.owner[:, None, :]
        if self.causal:
            place = torch.arange(self.shape[1], device=mask.device)
            mask &= place[:, None] >= place
        return mask[:, None]


@dataclass(frozen=True)
class Rows:
    """T tokens laid into P >= T slots, in blocks of rows of equal width.

    Attributes:
        token: the token in each slot, (P,); empty slots repeat token 0 and are read by nobody.
        slot: the slot of each token, (T,).
        blocks: consecutive ranges of slots.
        offsets: sequence b has the tokens ``offsets[b]..offsets[b + 1] - 1``, side by side in its
            row, (B + 1,); None where some tokens are padding.
    """

    token: Tensor
    slot: Tensor
    blocks: tuple[Block, ...]
    offsets: Tensor | None = None

    def to(self, device: torch.device | str) -> "Rows":
        """The same rows on another device."""
        blocks = tuple(replace(b, owner=moved(b.owner, device)) for b in self.blocks)
        offsets = None if self.offsets is None else moved(self.offsets, device)
        return Rows(moved(self.token, device), moved(self.slot, device), blocks, offsets)


def pack(offsets: Tensor, causal: bool = True) -> Rows:
    """Lays sequences into rows: short ones share rows 16 wide, the others get the longest's width.

    Args:
        offsets: sequence b has the tokens ``offsets[b]..offsets[b + 1] - 1``, (B + 1,).
        causal: a token sees itself and what precedes it; otherwise its whole sequence.
    """
    device = offsets.device
    offsets = offsets.cpu()
    lengths = offsets.diff()
    n_tokens = int(offsets[-1])
    widest = int(lengths.max()) if len(lengths) else 0
    first = torch.empty_like(lengths)  # slot of each sequence's first token
    shapes: list[tuple[int, int, int]] = []
    start = 0
    narrow = lengths <= _NARROW
    for chosen, width in ((narrow, _NARROW), (~narrow, widest)):
        sequences = chosen.nonzero().squeeze(1)
        if len(sequences) == 0:
            continue
        # Longest first: neighbours have equal lengths, so rows fill evenly.
        size, order = lengths[sequences].sort(descending=True, stable=True)
        width = min(width, int(size[0]))
        row, column = next_fit(size, width)
        first[sequences[order]] = start + row * width + column
        n_rows = int(row[-1]) + 1
        shapes.append((start, n_rows, width))
        start += n_rows * width
    sequence = torch.repeat_interleave(lengths, output_size=n_tokens)
    tokens = torch.arange(n_tokens)
    slot = tokens + (first - offsets[:-1])[sequence]
    token = torch.zeros(start, dtype=torch.int64)
    token[slot] = tokens
    owner = torch.full((start,), -1)
    owner[slot] = sequence
    blocks = tuple(
        Block(at, (n, width), owner[at : at + n * width].view(n, width), causal)
        for at, n, width in shapes
    )
    return Rows(token, slot, blocks, offsets).to(device)


def next_fit(size: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Row and column of each sequence when every row takes the next sequences that still fit.

    Args:
        size: lengths, none above ``width``, (n,).
        width: of the rows.
    """
    end = size.cumsum(0)
    begin = end - size
    # Where the row that starts at sequence i ends: only the rows are walked, not the sequences.
    following = torch.searchsorted(end, begin + width, right=True).tolist()
    firsts = []
    at = 0
    while at < len(following):
        firsts.append(at)
        at = following[at]
    first = torch.tensor(firsts)
    row = torch.searchsorted(first, torch.arange(len(size)), right=True) - 1
    return row, begin - begin[first][row]


@dataclass(frozen=True)
class Times:
    """The order in which a recurrent network reads jagged sequences: all first items, all second.

    At each time the sequences stand in the same order, longest first, so that those that still
    go on are the first ones.

    Attributes:
        token: the token in each slot, (T,).
        slot: the slot of each token, (T,).
        sizes: how many sequences each time has, (longest,), on the CPU, where PyTorch wants them.
    """

    token: Tensor
    slot: Tensor
    sizes: Tensor

    def to(self, device: torch.device | str) -> "Times":
        """The same times on another device."""
        return Times(moved(self.token, device), moved(self.slot, device), self.sizes)

    def run(self, layer: nn.Module, x: Tensor) -> Tensor:
        """The states of a layer such as ``nn.GRU`` over inputs in this order, (T, hidden)."""
        states: Tensor = layer(PackedSequence(x, self.sizes))[0].data
        return states


def by_time(offsets: Tensor, sequence: Tensor, before: Tensor) -> Times:
    """Orders the tokens of B sequences by time.

    Args:
        offsets: see ``pack``.
        sequence: of each token, (T,).
        before: how many tokens of the same sequence precede each token, (T,).
    """
    longest_first = offsets.diff().argsort(descending=True, stable=True)
    rank = torch.empty_like(longest_first)
    rank[longest_first] = torch.arange(len(rank), device=rank.device)
    sizes = torch.bincount(before)
    slot = (sizes.cumsum(0) - sizes)[before] + rank[sequence]
    token = torch.empty_like(slot)
    token[slot] = torch.arange(len(slot), device=slot.device)
    return Times(token, slot, sizes.cpu())
