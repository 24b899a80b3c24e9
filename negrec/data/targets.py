"""Which positions of a training sequence carry targets."""

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from negrec.types import Jagged


class Targets(Protocol):
    """Turns windows of training items into inputs and targets.

    Attributes:
        extra: how many items a window holds beyond a model's ``max_length`` inputs.
        shortest: windows with fewer items teach nothing and are left out.
    """

    extra: ClassVar[int]
    shortest: ClassVar[int]

    def __call__(self, window: Jagged, generator: torch.Generator) -> tuple[Jagged, Tensor, Tensor]:
        """Inputs (B rows), indices of the tokens with a target (N,), and the targets (N,)."""
        ...


class NextItem:
    """Every item but the last is an input, and its target is the item after it."""

    extra: ClassVar[int] = 1
    shortest: ClassVar[int] = 2

    def __call__(self, window: Jagged, generator: torch.Generator) -> tuple[Jagged, Tensor, Tensor]:
        last = torch.zeros(len(window.values), dtype=torch.bool)
        last[window.offsets[1:] - 1] = True
        first = torch.zeros_like(last)
        first[window.offsets[:-1]] = True
        offsets = window.offsets - torch.arange(len(window.offsets))
        inputs = Jagged(window.values[~last], offsets)
        return inputs, torch.arange(len(inputs.values)), window.values[~first]
