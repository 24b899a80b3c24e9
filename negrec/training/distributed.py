"""What keeps the ranks of a training in step: gradients, states and sparse rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from negrec.errors import InputError
from negrec.training.checkpoint import Checkpoint
from negrec.world import World

_CHUNK = 1 << 20  # numbers of a digest at a time
_SMALL = 1 << 16  # numbers; smaller gradients travel together, larger ones where they lie


def sum_gradients(parameters: Sequence[torch.nn.Parameter], world: World) -> None:
    """Replaces the gradients by their sums over all ranks.

    A table that is learnt row by row has a sparse gradient, or none where a rank read nothing of
    it: the ranks' rows are put one after the other, and a row may come several times.

    Args:
        parameters: the same on all ranks, in the same order. A gradient that is dense on one rank,
            as where a rank has read a whole table, is made so on all.
        world: the ranks.
    """
    if world.size == 1:
        return
    own = [p.grad is not None and not p.grad.is_sparse for p in parameters]
    dense = world.max(torch.tensor(own, dtype=torch.uint8)).tolist()
    small, sparse = [], []
    for parameter, everywhere in zip(parameters, dense, strict=True):
        if everywhere:
            _make_dense(parameter)
        grad = parameter.grad
        if grad is None or grad.is_sparse:
            sparse.append(parameter)
        elif grad.numel() < _SMALL or not grad.is_contiguous():
            small.append(grad)
        else:
            world.sum(grad)
    if small:
        flat = world.sum(torch.cat([grad.flatten() for grad in small]))
        for grad, total in zip(
            small, torch.split(flat, [grad.numel() for grad in small]), strict=True
        ):
            grad.copy_(total.view_as(grad))
    for parameter in sparse:
        parameter.grad = _all_rows(parameter, world)


def _make_dense(parameter: Tensor) -> None:
    grad = parameter.grad
    if grad is None:
        parameter.grad = torch.zeros_like(parameter)
    elif grad.is_sparse:
        parameter.grad = grad.to_dense()


def _all_rows(parameter: Tensor, world: World) -> Tensor | None:
    """The sparse gradient with the rows of all ranks; None where no rank has any."""
    grad = parameter.grad
    if grad is None:
        index = torch.empty(0, dtype=torch.int64, device=parameter.device)
        values = parameter.new_empty(0, *parameter.shape[1:])
    else:
        grad = grad.coalesce()
        index, values = grad.indices()[0], grad.values()
    sizes = world.counts(len(index))
    if not any(sizes):
        return grad
    index, values = world.gather(index, sizes), world.gather(values, sizes)
    return torch.sparse_coo_tensor(
        index[None], values, parameter.shape, is_coalesced=False, check_invariants=False
    )


def share_checkpoint(checkpoint: Checkpoint | None, world: World) -> Checkpoint | None:
    """The checkpoint that rank 0 has read; the other ranks need not see its files.

    Args:
        checkpoint: of rank 0; not looked at on other ranks.
        world: the ranks.
    """
    if world.size == 1:
        return checkpoint
    about = None
    if world.first and checkpoint is not None:
        shapes = [(k, tuple(t.shape), t.dtype) for k, t in checkpoint.tensors.items()]
        about = shapes, checkpoint.record
    about = world.of_first(about)
    if about is None:
        return None
    shapes, record = about
    if world.first:
        assert checkpoint is not None
        tensors = checkpoint.tensors
    else:
        tensors = {name: torch.empty(shape, dtype=dtype) for name, shape, dtype in shapes}
    share_state(tensors, world)
    return Checkpoint(tensors, record)


def share_state(state: Mapping[str, Tensor], world: World) -> None:
    """Overwrites tensors by those of rank 0.

    Args:
        state: of the same names and shapes on all ranks.
        world: the ranks.
    """
    if world.size == 1:
        return
    for tensor in state.values():
        if tensor.numel():
            whole = tensor.detach().contiguous()
            world.spread(_bytes(whole))  # not every type can be sent
            if whole.data_ptr() != tensor.data_ptr():
                tensor.copy_(whole)


def check_same(state: Mapping[str, Tensor], world: World) -> None:
    """Refuses to go on with ranks whose states have come apart.

    Args:
        state: what must be the same on all ranks, to the bit.
        world: the ranks.

    Raises:
        InputError: naming the first tensor that differs.
    """
    if world.size == 1:
        return
    names = sorted(state)
    digests = torch.stack([_digest(state[name]) for name in names]).cpu()
    # Equal values have a largest one that is the smallest too.
    highest = world.max(torch.stack([digests, -digests]))
    different = (highest[0] != -highest[1]).nonzero()
    if len(different):
        raise InputError(
            f"{names[int(different[0])]} is no longer the same on all {world.size} ranks: a part "
            "of your own that keeps a state must learn the same on each (see Sampler.observe), or "
            "train it with one process"
        )


def _digest(tensor: Tensor) -> Tensor:
    """A number that another tensor of the same shape hardly has, int64."""
    words = _bytes(tensor.detach().contiguous())
    words = words.view(torch.int32) if len(words) % 4 == 0 else words
    # A sum alone would not see two values that have changed places.
    weight = torch.arange(1, min(len(words), _CHUNK) + 1, device=words.device)
    parts = [(part * weight[: len(part)]).sum() for part in torch.split(words, _CHUNK)]
    return torch.stack(parts).sum() if parts else weight.sum()


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)
