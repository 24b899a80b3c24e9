"""PyTorch's compiler for what a transformer does to each token by itself."""

from __future__ import annotations

import logging

import torch
from torch import nn
from torch.nn import functional as F

from negrec.models.layers import RowAttention
from negrec.models.transformer import Block

log = logging.getLogger(__name__)


def compile_blocks(model: nn.Module, device: torch.device) -> None:
    """Has the blocks of a transformer compiled, each in two pieces around its attention.

    The pieces (norms, linear layers, GELU, dropout, sums) serve batches of any number of tokens.
    The attention stays as it is: it has kernels of its own. So does all that is jagged (packing,
    samplers, losses): its sizes differ from step to step, and the compiler would begin anew. With
    dropout other values are dropped than without the compiler; all else is the same up to
    rounding. Where the compiler does not work PyTorch computes all, and that is said.

    No CUDA graphs: they replay the same shapes at the same addresses, and nearly every batch has
    a number of tokens of its own.

    Args:
        model: stays what it is; its state has the same names.
        device: where it lies.
    """
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    if not blocks:
        log.warning("compile=true: %s has no transformer blocks to compile", type(model).__name__)
        return
    reason = _failure(device)
    if reason is not None:
        log.warning("compile=true: PyTorch's compiler does not work here (%s)", reason)
        return
    if not hasattr(RowAttention.forward, "_torchdynamo_disable"):
        # Here and not where it is defined: this imports the compiler, which takes seconds.
        kept = torch.compiler.disable(RowAttention.forward)  # type: ignore[no-untyped-call]
        RowAttention.forward = kept  # type: ignore[method-assign]
    for block in blocks:
        block.compile(dynamic=True)


def _failure(device: torch.device) -> str | None:
    """Why the compiler cannot have a small function, in a line; None where it can."""
    x = torch.ones(8, device=device, requires_grad=True)
    try:
        torch.autograd.grad(torch.compile(F.gelu)(x).sum(), x)
    except Exception as error:  # no C++ compiler, no Triton, no Python headers, an old GPU ...
        lines = str(error).strip().splitlines()
        return lines[0] if lines else type(error).__name__
    return None
