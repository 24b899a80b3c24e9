"""Batches that are made ahead of the steps that take them."""

from __future__ import annotations

from collections.abc import Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Self

import torch

from negrec.types import Batch

_LOOK_AGAIN_SECONDS = 0.1


class Prefetch:
    """Serves batches on a device, in their order; a thread makes the next ones meanwhile.

    A batch depends on the run's seed and its place in the training alone, so what is served is
    the same with and without the thread. It also builds on the CPU what steps have asked of
    earlier batches (packed rows, sets of excluded items): that depends on the batch alone too,
    and on the device it would make the host wait.

    Args:
        batches: on the CPU; nobody else takes from them meanwhile.
        device: of the steps.
        ahead: batches that wait to be taken; 0: they are made when they are asked for. By default
            2 for CUDA. On a CPU steps keep the cores busy, and a thread takes what it gives.
    """

    def __init__(
        self, batches: Iterator[Batch], device: torch.device, ahead: int | None = None
    ) -> None:
        if ahead is None:
            ahead = 2 if device.type == "cuda" else 0
        self._batches = batches
        self._device = device
        self._asked: frozenset[str] = frozenset()
        self._ready: Queue[Batch | BaseException | None] = Queue(max(ahead, 1))
        self._over = Event()
        self._thread = Thread(target=self._make, name="prefetch", daemon=True) if ahead else None

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is None:
            return
        self._over.set()
        try:
            while True:  # where it waits for a place
                self._ready.get_nowait()
        except Empty:
            pass
        self._thread.join()

    def __iter__(self) -> Iterator[Batch]:
        if self._thread is None:
            for batch in self._batches:
                yield batch.to(self._device)
            return
        while (made := self._ready.get()) is not None:
            if isinstance(made, BaseException):
                raise made
            yield made
            self._asked |= made.built  # a step is over

    def _make(self) -> None:
        """What the thread does."""
        try:
            if self._device.index is not None and self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # each thread has its own
            for batch in self._batches:
                for name in self._asked:
                    getattr(batch, name)
                if not self._hand_over(batch.to(self._device)):
                    return
            self._hand_over(None)
        except BaseException as error:  # it is the step's that asks for the batch
            self._hand_over(error)

    def _hand_over(self, made: Batch | BaseException | None) -> bool:
        """Waits for a place; False where nobody will take it."""
        while not self._over.is_set():
            try:
                self._ready.put(made, timeout=_LOOK_AGAIN_SECONDS)
            except Full:
                continue
            return True
        return False
