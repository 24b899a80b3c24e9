import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.kernels import native
from negrec.losses.bce import BCE
from negrec.models.sasrec import SASRec
from negrec.objectives.ranking import Ranking
from negrec.samplers.base import Sampler
from negrec.samplers.genni import GenNi
from negrec.samplers.in_batch import InBatch
from negrec.training.prefetch import Prefetch
from negrec.types import Batch, DatasetInfo, Step
from tests import toy

CPU = torch.device("cpu")


def batches(n: int, made: list[int] | None = None) -> Iterator[Batch]:
    for i in range(n):
        if made is not None:
            made.append(i)
        yield Batch.of([[1, 2, 3 + i], [2, 1]])


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_all_batches_in_their_order(ahead: int):
    with Prefetch(batches(5), CPU, ahead) as ready:
        assert [batch.target.max().item() for batch in ready] == [3, 4, 5, 6, 7]
    assert "prefetch" not in threads()


def test_no_thread_on_a_cpu():
    made: list[int] = []
    with Prefetch(batches(5, made), CPU) as ready:
        assert "prefetch" not in threads()
        next(iter(ready))
        assert made == [0]


def test_so_many_wait():
    made: list[int] = []
    with Prefetch(batches(9, made), CPU, ahead=2) as ready:
        served = iter(ready)
        next(served)
        for _ in range(100):  # two wait, and one has no place yet
            if made == [0, 1, 2, 3]:
                break
            time.sleep(0.05)
        time.sleep(0.3)
        assert made == [0, 1, 2, 3]


def test_what_a_step_asks_for_is_built_ahead():
    with Prefetch(batches(6), CPU, ahead=1) as ready:
        built = []
        for batch in ready:
            built.append(batch.built)
            assert batch.window.stride == batch.target.max() + 1
            assert len(batch.rows.token) == 3 or len(batch.rows.token) == 4
    assert built[0] == frozenset()
    assert built[-1] == {"rows", "window"}


def test_an_error_in_the_thread_is_the_steps():
    def failing() -> Iterator[Batch]:
        yield from batches(2)
        raise MemoryError("no room for a batch")

    with Prefetch(failing(), CPU, ahead=2) as ready:
        served = iter(ready)
        next(served)
        next(served)
        with pytest.raises(MemoryError, match="no room"):
            next(served)
    assert "prefetch" not in threads()


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_an_error_in_a_step_ends_the_thread(taken: int):
    made: list[int] = []

    def train() -> None:
        with Prefetch(batches(10**9, made), CPU, 2) as ready:
            served = iter(ready)
            for _ in range(taken):
                next(served)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train()
    assert "prefetch" not in threads()
    assert len(made) <= taken + 5


def test_a_signal_while_it_waits_for_a_batch():
    stop = threading.Event()

    def slow() -> Iterator[Batch]:
        stop.wait(20)
        yield from batches(1)

    def free(number: int, frame: object) -> None:
        stop.set()  # or leaving would wait for the batch
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, free)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(KeyboardInterrupt), Prefetch(slow(), CPU, 1) as ready:
            next(iter(ready))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert "prefetch" not in threads()


# Operations whose result's size, or a Python number, follows from numbers on the device.
WAITS = {"_local_scalar_dense", "nonzero", "_unique2", "bincount", "masked_select", "is_nonzero"}


class Waits(TorchDispatchMode):
    """Notes the operations for which the host would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        name, kwargs = op._schema.name.removeprefix("aten::"), kwargs or {}
        waits = name in WAITS
        if name == "repeat_interleave":
            waits = kwargs.get("output_size") is None
        if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
            waits = any(index is not None and index.dtype == torch.bool for index in args[1])
        if waits:
            self.found.append(name)
        return op(*args, **kwargs)


@pytest.mark.parametrize(
    "sampler",
    [partial(GenNi, alpha=1.0), partial(GenNi, alpha=1.0, curriculum=True), partial(InBatch, k=4)],
)
def test_a_step_on_what_is_built_ahead_does_not_wait(sampler: Callable[[DatasetInfo], Sampler]):
    train = toy.jagged(toy.random_histories(40, 20, 8))
    sequences = Sequences(train, 8, NextItem())
    model, objective = SASRec(toy.info(20), dim=8), Ranking(toy.info(20), sequences, sampler, BCE())
    generator = torch.Generator()

    def step(batch: Batch) -> list[str]:
        with native.plain(), Waits() as waits:
            outcome = objective(model, batch, Step(0, 0, generator, batch.key))
            outcome.loss.backward()
            objective.observe(model, outcome.feedback)
        return waits.found

    with Prefetch(Loader(sequences, 4, 0).epoch(0), CPU, ahead=1) as ready:
        found = [step(batch) for batch in ready]
    assert found[0]  # the rows are packed within the step
    assert found[-1] == []
