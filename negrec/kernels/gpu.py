"""Triton's kernels for CUDA: whether they are there, and right on this machine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from negrec.kernels import native

log = logging.getLogger(__name__)

_HALF = (torch.bfloat16, torch.float16)


def serves(*tensors: Tensor, half: bool = True) -> bool:
    """Whether Triton is there, and chosen, for such tensors: CUDA, float32, or 16 bits (half)."""
    kinds = (torch.float32, *_HALF) if half else (torch.float32,)
    return all(t.is_cuda and t.dtype in kinds for t in tensors) and native.asked() and _there()


@cache
def _there() -> bool:
    if find_spec("triton") is None:  # it comes with PyTorch's builds for CUDA on Linux
        log.info("Triton is not installed: PyTorch computes all, more slowly")
        return False
    return True


def trusted(name: str, error: Callable[[], float], dtype: torch.dtype) -> bool:
    """Whether a kernel's error on a small case is what its numbers' rounding explains.

    A kernel is held to PyTorch before its first use: it was written without a GPU at hand.

    Args:
        name: of the kernel.
        error: computes its largest error, of numbers of about 1.
        dtype: that it was computed in.
    """
    limit = 0.1 if dtype in _HALF else 1e-3
    try:
        found = error()
    except Exception as failure:  # a compiler, a driver or a GPU that cannot have it
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0]
    else:
        if found <= limit:
            return True
        reason = f"its results are off by {found:.2g}"
    log.warning("the Triton kernel %s does not work here (%s): PyTorch computes it", name, reason)
    return False
