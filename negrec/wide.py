"""Float64 where a device has none: what needs it is worked out on the CPU. Not tried on a Mac."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_WITHOUT = {"mps"}  # kinds of devices


def has_float64(device: torch.device) -> bool:
    """Whether tensors of a device can be float64."""
    return device.type not in _WITHOUT


def wide(device: torch.device) -> torch.device:
    """Where to work in float64 on what lies on a device: there, or else on the CPU."""
    return device if has_float64(device) else torch.device("cpu")


def uniform(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Numbers in [0, 1), float64, on ``wide(device)``.

    Args:
        shape: of the result.
        device: of the generator.
        generator: source of randomness.
    """
    if generator is not None and not has_float64(device):
        # A stream of its own on the CPU, from the next draw of the device's.
        seed = torch.randint(2**62, (), device=device, generator=generator)
        generator = torch.Generator().manual_seed(int(seed))
    return torch.rand(shape, dtype=torch.double, device=wide(device), generator=generator)


def place(module: nn.Module, device: torch.device) -> None:
    """Moves a module to a device; what is float64 becomes float32 where the device has none."""
    if has_float64(device):
        module.to(device)
    else:
        module.float().to(device)  # of whole numbers there is nothing to change
