"""The processes that train one model together, and what they say to each other."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from negrec.errors import InputError

T = TypeVar("T")

# A rank that dies is noticed at once, by its connections; a whole data set is prepared meanwhile.
_PATIENCE = timedelta(minutes=30)
_ASSEMBLY = timedelta(minutes=5)
_FAILURES = "negrec/failures"  # how many ranks have failed, in the store that all of them see
_SETTLING_SECONDS = 1.0  # for rank 0, or for the rank that failed first, to say what went wrong
_FAREWELL_SECONDS = 10.0


class PeerError(Exception):
    """Another rank is gone, so this one cannot go on."""


@dataclass(frozen=True)
class World:
    """The ranks of a job, as one of them sees them; without arguments a process by itself.

    All ranks must call the same methods in the same order. By itself a process is its own answer
    to everything, at no cost.

    Attributes:
        rank: this process, 0..size - 1; rank 0 reads and writes the run's files.
        size: processes of the job.
        local_rank: this process among those of its machine.
        local_size: processes of the job on this machine.
        store: small values that all ranks see, once they have met.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: Any = field(default=None, compare=False, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, the same on each; what is given is overwritten."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def max(self, values: Tensor) -> Tensor:
        """The largest of all ranks' values, place by place; what is given is overwritten."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: Tensor, operation: Any) -> Tensor:
        if self.size > 1:
            _together(lambda: dist.all_reduce(values, operation))
        return values

    def gather(self, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        """The rows of all ranks, one rank after the other; gradients find their way back.

        Args:
            rows: this rank's, (sizes[rank], ...).
            sizes: how many rows each rank has.
        """
        if self.size == 1:
            return rows
        gathered: Tensor = _Gather.apply(rows, self, tuple(sizes))  # type: ignore[no-untyped-call]
        return gathered

    def counts(self, number: int) -> list[int]:
        """The numbers of all ranks."""
        if self.size == 1:
            return [number]
        own = torch.tensor([number])
        return self.gather(own, [1] * self.size).tolist()

    def spread(self, values: Tensor) -> None:
        """Overwrites a tensor by rank 0's."""
        if self.size > 1:
            _together(lambda: dist.broadcast(values, 0))

    def of_first(self, value: T) -> T:
        """The value that rank 0 has: plain Python, and small."""
        if self.size == 1:
            return value
        box = [value]
        _together(lambda: dist.broadcast_object_list(box, 0))
        return box[0]

    def meet(self) -> None:
        """Waits for all ranks; for who is gone, no longer."""
        with suppress(PeerError):
            self.max(torch.zeros(1))

    def speaks(self, waits: bool = False) -> bool:
        """Whether this rank, which has failed, is the one that says why: one of all does.

        Args:
            waits: the failure may be another one's, who then should say it.
        """
        if self.store is None:  # they have not met: all do the same so far
            return self.first
        deadline = time.monotonic() + _SETTLING_SECONDS * (waits + (not self.first))
        try:
            while time.monotonic() < deadline and not self.store.add(_FAILURES, 0):
                time.sleep(0.02)
            return int(self.store.add(_FAILURES, 1)) == 1
        except RuntimeError:  # who kept the store is gone
            return True

    def leave(self) -> None:
        """Says goodbye, in order; after a failure rank 0 stays until the others know of it."""
        if self.store is None:
            return
        with suppress(RuntimeError):  # others left first
            dist.destroy_process_group()
            # Without torchrun the store is in this process.
            deadline = time.monotonic() + _FAREWELL_SECONDS
            while self.first and 0 < self.store.add(_FAILURES, 0) < self.size:
                if time.monotonic() > deadline:
                    break
                time.sleep(0.02)


ALONE = World()


def announced() -> World:
    """The world of ``torchrun``'s environment variables; ``ALONE`` without them.

    Raises:
        InputError: the variables cannot be read.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return ALONE
    rank, size = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if size == 1:
        return ALONE
    if not 0 <= rank < size:
        raise InputError(f"RANK={rank} is none of the {size} ranks of WORLD_SIZE")
    return World(rank, size, _number("LOCAL_RANK", rank), _number("LOCAL_WORLD_SIZE", size))


def join(world: World) -> World:
    """The same world, once all its ranks have met.

    Raises:
        InputError: they do not come.
    """
    if world.size == 1:
        return world
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise InputError(
                f"RANK and WORLD_SIZE are set and {name} is not: start the job with torchrun, or "
                "unset them"
            )
    # One group for both kinds of tensors; NCCL's part is made when a CUDA tensor first comes.
    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    backend = "cpu:gloo,cuda:nccl" if nccl else "gloo"
    try:
        store, _, _ = next(iter(rendezvous("env://", timeout=_ASSEMBLY)))
        dist.init_process_group(
            backend, store=store, rank=world.rank, world_size=world.size, timeout=_PATIENCE
        )
        world.max(torch.zeros(1))  # connects, so that who is missing is missed now
    except (PeerError, RuntimeError, ValueError, OSError, socket.gaierror) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise InputError(
            f"rank {world.rank} of {world.size} has not met the others at {where}: "
            f"{str(error).splitlines()[0] or type(error).__name__}"
        ) from error
    return replace(world, store=store)


def _number(name: str, missing: int) -> int:
    text = os.environ.get(name, str(missing))
    if not text.isdecimal():
        raise InputError(f"the variable {name}={text!r} is no whole number: see torchrun")
    return int(text)


def _together(call: Callable[[], object]) -> None:
    """Calls what all ranks take part in.

    Raises:
        PeerError: one of them has gone.
    """
    try:
        call()
    except RuntimeError as error:
        raise PeerError(f"a rank of the job is gone ({str(error).splitlines()[0]})") from error


class _Gather(torch.autograd.Function):
    """All ranks' rows; each rank's gradient for a row adds up where the row came from."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, world: World, sizes: tuple[int, ...]) -> Tensor:
        ctx.world, ctx.sizes = world, sizes
        # Equal shapes for all: gloo wants them.
        longest = max(sizes)
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        _together(lambda: dist.all_gather(parts, padded))
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        start = sum(ctx.sizes[: ctx.world.rank])
        every = ctx.world.sum(grads[0].clone(memory_format=torch.contiguous_format))
        return every[start : start + ctx.sizes[ctx.world.rank]], None, None
