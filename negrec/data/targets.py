"""Which positions of a training sequence carry targets."""

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from negrec.types import HIDDEN, Jagged


class Targets(Protocol):
    """Turns windows of training items into inputs and targets.

    Attributes:
        extra: how many items a window holds beyond a model's ``max_length`` inputs.
        shortest: windows with fewer items teach nothing and are left out.
        ahead: how many positions after its query's token a target stands in the history.
        hides: a query's token is hidden, and its target is what it was.
    """

    extra: ClassVar[int]
    shortest: ClassVar[int]
    ahead: ClassVar[int]
    hides: ClassVar[bool]

    def __call__(self, window: Jagged, generator: torch.Generator) -> tuple[Jagged, Tensor, Tensor]:
        """Inputs (B rows), indices of the tokens with a target (N,), and the targets (N,)."""
        ...

    def chance(self, window: Jagged) -> Tensor:
        """How likely each item of the windows is to be a target, in [0, 1], float64."""
        ...


class NextItem:
    """Every item but the last is an input, and its target is the item after it."""

    extra: ClassVar[int] = 1
    shortest: ClassVar[int] = 2
    ahead: ClassVar[int] = 1
    hides: ClassVar[bool] = False

    def __call__(self, window: Jagged, generator: torch.Generator) -> tuple[Jagged, Tensor, Tensor]:
        last = torch.zeros(len(window.values), dtype=torch.bool)
        last[window.offsets[1:] - 1] = True
        first = torch.zeros_like(last)
        first[window.offsets[:-1]] = True
        offsets = window.offsets - torch.arange(len(window.offsets))
        inputs = Jagged(window.values[~last], offsets)
        return inputs, torch.arange(len(inputs.values)), window.values[~first]

    def chance(self, window: Jagged) -> Tensor:
        chance = torch.ones(len(window.values), dtype=torch.double)
        chance[window.offsets[:-1]] = 0
        return chance


class MaskedItem:
    r"""Some items are hidden, anew each time, and the model is asked for them (the Cloze task).

    Of a window of n items max(1, round(rho n)) are hidden, each choice of so many being as likely.
    At inference a hidden item stands after the history, so a part of the windows hides its last
    item alone.

    Sun et al., 2019 (BERT4Rec, arXiv:1904.06690, section 3.6). As in the authors' code every
    hidden item gives way to the mask; BERT (Devlin et al., 2019, arXiv:1810.04805, section 3.1)
    keeps a tenth of them and puts random ones in place of another tenth. Where we differ: the
    code draws ten sets of masks once and adds each window with its last item hidden, a share of
    1/11; we draw masks at every visit. It also trains on overlapping windows of longer histories.

    Args:
        probability: rho, share of a window's items that are hidden, in (0, 1].
        last: share of the windows that hide their last item alone, in [0, 1].
    """

    extra: ClassVar[int] = 1  # at inference the hidden item comes on top of a full history
    shortest: ClassVar[int] = 2
    ahead: ClassVar[int] = 0
    hides: ClassVar[bool] = True

    def __init__(self, probability: float = 0.2, last: float = 0.1) -> None:
        if not 0 < probability <= 1:
            raise ValueError(f"probability must be in (0, 1], got {probability}")
        if not 0 <= last <= 1:
            raise ValueError(f"last must be in [0, 1], got {last}")
        self.probability = probability
        self.last = last

    def __call__(self, window: Jagged, generator: torch.Generator) -> tuple[Jagged, Tensor, Tensor]:
        row = window.row
        # The items of each window in random order: the first ones are hidden.
        order = torch.rand(len(row), generator=generator).argsort()
        order = order[row[order].argsort(stable=True)]
        place = torch.empty_like(order)
        place[order] = torch.arange(len(row)) - window.offsets[row]
        hidden = place < self._hidden(window)[row]
        only_last = torch.rand(len(window), generator=generator) < self.last
        newest = torch.zeros_like(hidden)
        newest[window.offsets[1:] - 1] = True
        hidden = torch.where(only_last[row], newest, hidden)
        inputs = Jagged(window.values.masked_fill(hidden, HIDDEN), window.offsets)
        return inputs, hidden.nonzero().squeeze(1), window.values[hidden]

    def chance(self, window: Jagged) -> Tensor:
        share = (1 - self.last) * self._hidden(window).double() / window.lengths
        chance = share[window.row]
        chance[window.offsets[1:] - 1] += self.last
        return chance

    def _hidden(self, window: Jagged) -> Tensor:
        """How many items of each window are hidden unless it is the last one alone, (B,)."""
        return (self.probability * window.lengths.double()).round().long().clamp(min=1)


class EveryItem:
    """Every item is a target, of the state at its own token: for models that read no items.

    A model that does would be told the answer.
    """

    extra: ClassVar[int] = 0
    shortest: ClassVar[int] = 1
    ahead: ClassVar[int] = 0
    hides: ClassVar[bool] = False

    def __call__(self, window: Jagged, generator: torch.Generator) -> tuple[Jagged, Tensor, Tensor]:
        return window, torch.arange(len(window.values)), window.values

    def chance(self, window: Jagged) -> Tensor:
        return torch.ones(len(window.values), dtype=torch.double)
