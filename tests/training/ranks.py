"""Small trainings that one process runs, and several together: ``python -m tests.training.ranks``.

Each case takes a world and an empty folder of its own (the same for all ranks) and returns what is
to be the same however many ranks there are.
"""

import itertools
import math
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from negrec import world as worlds
from negrec.data.sequences import Sequences
from negrec.data.targets import MaskedItem, NextItem
from negrec.evaluation.evaluator import Evaluator
from negrec.losses.bce import BCE
from negrec.losses.gbce import GBCE
from negrec.losses.sampled_softmax import SampledSoftmax
from negrec.losses.softmax import Softmax
from negrec.models.bert4rec import BERT4Rec
from negrec.models.gru4rec import GRU4Rec
from negrec.models.mminforec import MMInfoRec
from negrec.models.sasrec import SASRec
from negrec.objectives.cl4srec import CL4SRec
from negrec.objectives.duorec import DuoRec
from negrec.objectives.mminforec import RankingWithMINCE
from negrec.objectives.ranking import Ranking
from negrec.objectives.ranking_with_teacher import RankingWithTeacher
from negrec.objectives.s3rec_pretrain import S3RecPretrain
from negrec.samplers.adaptive import TopK
from negrec.samplers.cross_batch import CrossBatch
from negrec.samplers.full import Full
from negrec.samplers.genni import GenNi
from negrec.samplers.hard_memory import HardMemory
from negrec.samplers.in_batch import InBatch
from negrec.samplers.mixed import Mixture
from negrec.samplers.popularity import Popularity
from negrec.samplers.srns import SRNS
from negrec.samplers.uniform import Uniform
from negrec.training.checkpoint import Checkpoint, Checkpoints
from negrec.training.distributed import share_checkpoint, share_state, sum_gradients
from negrec.training.interruption import InterruptedRunError
from negrec.training.lazy_adam import LazyAdam
from negrec.training.trainer import Trainer
from negrec.types import HeldOut
from negrec.world import World
from tests import toy

V, LONGEST = 20, 8
# Batches of 8: the last one of an epoch has one sequence, fewer than there are ranks.
TRAIN = toy.jagged(toy.random_histories(41, V, LONGEST))
MODELS = {
    "sasrec": partial(SASRec, dim=8, dropout=0.0),
    "hiding": partial(SASRec, dim=8, dropout=0.0, hides=True),
    "bert4rec": partial(BERT4Rec, dim=8, dropout=0.0),
    "gru4rec": partial(GRU4Rec, dim=8, dropout=0.0),
    "mminforec": partial(MMInfoRec, dim=8, dropout=0.0, memory_dropout=0.0),
}


class Run:
    """A training of three epochs that notes every step."""

    def __init__(
        self, world, folder, objective=Ranking, sampler=None, loss=None, model="sasrec", **settings
    ):
        targets = MaskedItem() if model == "bert4rec" else NextItem()
        self.world = world
        self.sequences = Sequences(TRAIN, LONGEST, targets)
        info = self.sequences.facts(toy.info(V))
        torch.manual_seed(0)
        # In double precision: Adam makes a step of a gradient that is nothing but rounding.
        self.model = MODELS[model](info).double()
        if objective is not S3RecPretrain and sampler is not None:
            objective = partial(objective, sampler=sampler, loss=loss or BCE())
        self.objective = objective(info, self.sequences)
        bind = self.objective.bind

        def bind_in_double(model):
            bind(model)
            for parameter in self.objective.parameters():
                parameter.data = parameter.data.double()

        self.objective.bind = bind_in_double
        settings = {
            "seed": 0,
            "max_epochs": 3,
            "batch_size": 8,
            "optimizer": partial(torch.optim.Adam, lr=1e-2),
            "threads": 1,
            "progress": False,
            **settings,
        }
        self.trainer = Trainer(self.sequences, world=world, **settings)
        self.checkpoints = Checkpoints(folder if world.first else Path(os.devnull))
        self.evaluator = Evaluator(held_out(), info, batch_size=16, world=world)
        self.gradients, self.states, self.logged = [], [], {}

        make = self.trainer.make_optimizer
        self.trainer.make_optimizer = lambda parameters: self.noted(make(parameters))

    def noted(self, optimizer):
        """The optimiser, each of whose steps is noted with the gradients that it gets."""
        step, (group,) = optimizer.step, optimizer.param_groups

        def noting():
            gradients = [p.grad.to_dense().flatten() for p in group["params"] if p.grad is not None]
            self.gradients.append(torch.cat(gradients).clone())
            state = [value.double().sum() for value in self.objective.state_dict().values()]
            self.states.append(torch.stack([torch.zeros((), dtype=torch.double), *state]))
            step()

        optimizer.step = noting
        return optimizer

    def fit(self):
        return self.trainer.fit(
            self.model,
            self.objective,
            self.checkpoints,
            lambda model: self.evaluator(model).metrics,
            lambda metrics, epoch: self.logged.update({epoch: metrics}),
        )

    def found(self, fit):
        clocks = ("seconds", "share")
        return {
            "gradients": torch.stack(self.gradients),
            "states": torch.stack(self.states),
            "epochs": [
                {k: v for k, v in metrics.items() if not k.endswith(clocks)}
                for _, metrics in sorted(self.logged.items())
            ],
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "best": (fit.best_epoch, fit.best_value),
        }


def held_out() -> HeldOut:
    """A target for each of 37 users; some are cold, one has no history."""
    generator = torch.Generator().manual_seed(7)
    start = TRAIN.offsets[:-1][:37].clone()
    end = TRAIN.offsets[1:][:37].clone()
    end[3] = start[3]
    target = torch.randint(0, V + 1, (37,), generator=generator)
    return HeldOut(torch.arange(37), target, TRAIN.values, start, end)


def trained(world: World, folder: Path, **settings: object) -> dict[str, object]:
    run = Run(world, folder, **settings)
    return run.found(run.fit())


def evaluated(world: World, folder: Path) -> dict[str, object]:
    torch.manual_seed(0)
    model = SASRec(toy.info(V), dim=8, dropout=0.5)
    evaluation = Evaluator(held_out(), toy.info(V), batch_size=5, lists=True, world=world)(model)
    few = Evaluator(held_out().select(slice(0, 1)), toy.info(V), world=world)(model)
    return {
        "greater": torch.from_numpy(evaluation.greater),
        "ties": torch.from_numpy(evaluation.ties),
        "metrics": dict(evaluation.metrics),
        "calibration": evaluation.calibration.to_dict(as_series=False),
        "few": dict(few.metrics),
    }


def before_step(run: Run, number: int, action: Callable[[], object]) -> None:
    """Lets something happen before the step of this number, from 0."""
    forward, calls = run.objective.forward, itertools.count()

    def forewarned(*args):
        if next(calls) == number:
            action()
        return forward(*args)

    run.objective.forward = forewarned


def gone_on(world: World, folder: Path, broken: Run, **settings: object) -> dict[str, object]:
    """A training that was cut off, gone on with: as one that was not."""
    again = Run(world, folder, **settings)
    again.gradients, again.states = broken.gradients, broken.states
    again.logged = broken.logged
    return again.found(again.fit())


class DiedError(Exception):
    """As if the process had been killed."""


def died() -> None:
    raise DiedError


def resumed(world: World, folder: Path, **settings: object) -> dict[str, object]:
    """Cut off in the second epoch, with a checkpoint after each step."""
    broken = Run(world, folder, checkpoint_minutes=0.0, **settings)
    before_step(broken, 9, died)
    with suppress(DiedError):
        broken.fit()
    return gone_on(world, folder, broken, **settings)


def interrupted(world: World, folder: Path, **settings: object) -> dict[str, object]:
    """A signal comes to the last rank alone, during the tenth step."""
    broken = Run(world, folder, **settings)
    if world.rank == world.size - 1:
        before_step(broken, 9, partial(os.kill, os.getpid(), signal.SIGTERM))
    with suppress(InterruptedRunError):
        broken.fit()
    assert len(broken.gradients) == 10
    return gone_on(world, folder, broken, **settings)


def refused(world: World, folder: Path) -> dict[str, object]:
    """What cannot be right, and how each rank says it."""

    class Own(Ranking):
        """Somebody's own, of which it is not known what a part adds to the loss."""

        sharded = False

    class Forgetful(Uniform):
        """Keeps what it has drawn for its own queries, and does not hear of the others'."""

        def __init__(self, info):
            super().__init__(info, k=1)
            self.register_buffer("drawn", torch.zeros((), dtype=torch.int64))

        def observe(self, feedback):
            self.drawn += feedback.negatives.items.sum()

    diverging = Run(world, folder, sampler=uniform("query"))
    if world.rank == world.size - 1:
        forward, number = diverging.objective.forward, itertools.count()

        def poisoned(*args):
            outcome = forward(*args)
            return replace(outcome, loss=outcome.loss * math.nan) if next(number) == 2 else outcome

        diverging.objective.forward = poisoned
    calls = {
        "objective": lambda: Run(world, folder, objective=Own, sampler=uniform("query")).fit(),
        "state": lambda: Run(world, folder, sampler=Forgetful).fit(),
        "loss": diverging.fit,
        "batch": lambda: Run(world, folder, sampler=Full, batch_size=1),
    }
    messages = {}
    for name, call in calls.items():
        with pytest.raises(ValueError) as error:  # noqa: PT011  the message is what is looked at
            call()
        messages[name] = str(error.value)
    return messages


def sent(world: World, folder: Path) -> dict[str, object]:
    """What rank 0 has reaches the others, whatever its type."""
    own = world.rank + 1
    tensors = {
        "bf16": torch.full((3, 2), own, dtype=torch.bfloat16),
        "flags": torch.tensor([own == 1, True]),
        "bytes": torch.full((7,), own, dtype=torch.uint8),
        "number": torch.tensor(own),
        "nothing": torch.empty(0, 4),
        "across": torch.full((2, 3), float(own)).T,
    }
    checkpoint = Checkpoint(tensors, {"epoch": own}) if world.first else None
    received = share_checkpoint(checkpoint, world)
    nothing = share_checkpoint(None, world)
    share_state(tensors, world)
    return {"there": received.tensors, "record": received.record, "none": nothing, "own": tensors}


def summed(world: World, folder: Path) -> dict[str, object]:
    """Gradients, each the sum of two shares; of one rank's own all are."""
    shares = [share for share in range(2) if share % world.size == world.rank]
    small, large = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(300, 300))
    table, half, unread = (torch.nn.Parameter(torch.zeros(6, 2)) for _ in range(3))
    small.grad = sum(torch.tensor([1.0, 2.0, 3.0]) * (1 + share) for share in shares)
    large.grad = sum(torch.full((300, 300), 1.0 + share) for share in shares).T
    rows = torch.cat([torch.tensor([4, share, 4]) for share in shares])
    values = torch.cat([torch.full((3, 2), 1.0 + share) for share in shares])
    table.grad = torch.sparse_coo_tensor(rows[None], values, (6, 2), check_invariants=True)
    if 1 in shares:  # rank 0 has read nothing of it
        half.grad = torch.sparse_coo_tensor([[5]], [[1.0, 2.0]], (6, 2), check_invariants=True)
    whole, late = (torch.nn.Parameter(torch.zeros(6, 2)) for _ in range(2))
    if 0 in shares:  # rank 0 has read all of both, the other one some rows, or none
        whole.grad, late.grad = torch.ones(6, 2), torch.ones(6, 2)
    if 1 in shares:
        some = torch.sparse_coo_tensor([[5, 5]], [[1.0, 2.0]] * 2, (6, 2), check_invariants=True)
        whole.grad = some if whole.grad is None else whole.grad + some
    parameters = [small, large, table, whole, late, half, unread]
    sum_gradients(parameters, world)
    assert unread.grad is None
    return {str(i): p.grad.to_dense() for i, p in enumerate(parameters[:-1])}


def uniform(share, k=3, exclude="target"):
    return partial(Uniform, k=k, share=share, exclude=exclude)


srns = partial(SRNS, memory=4, pool=4, warmup=1)
mixed = partial(
    Mixture,
    parts={
        "uniform": uniform("sequence", exclude="window"),
        "in_batch": partial(InBatch, k=4, share="sequence"),
    },
)


lazy = partial(LazyAdam, lr=1e-2, rows="lazy")


def memory(**settings):
    """What marks false negatives, from the first epoch on."""
    return partial(HardMemory, start=0, slots=2, recorded_only=False, **settings)


CASES: dict[str, Callable[[World, Path], dict[str, object]]] = {
    "evaluation": evaluated,
    "sent": sent,
    "summed": summed,
    "resumed": partial(resumed, sampler=srns),
    "interrupted": partial(interrupted, sampler=uniform("query", exclude="history")),
    "lazy, resumed": partial(resumed, sampler=uniform("query"), optimizer=lazy),
    **{
        name: partial(trained, **settings)
        for name, settings in {
            "uniform query": {"sampler": uniform("query", exclude="history")},
            "uniform sequence": {"sampler": uniform("sequence", exclude="window")},
            "uniform batch": {"sampler": uniform("batch")},
            "popularity": {
                "sampler": partial(Popularity, gamma=0.7, k=3, share="query"),
                "loss": SampledSoftmax(log_q="standard"),
            },
            "in batch": {"sampler": partial(InBatch, k="all"), "loss": GBCE(t=0.7)},
            "in batch sequence": {"sampler": partial(InBatch, k=5, share="sequence")},
            "cross batch": {
                "sampler": partial(CrossBatch, size=50, k=10),
                "loss": SampledSoftmax(log_q="standard"),
            },
            "mixed": {"sampler": mixed, "loss": GBCE()},
            "adaptive": {"sampler": partial(TopK, base=uniform("query", k=6), k=2)},
            "adaptive mixed": {"sampler": partial(TopK, base=mixed, k=2)},
            "full": {"sampler": Full, "loss": Softmax()},
            "srns": {"sampler": srns},
            "false negatives": {
                "objective": partial(Ranking, false_negatives=memory(m=1)),
                "sampler": uniform("query"),
            },
            "steady false negatives": {
                "objective": partial(
                    Ranking, false_negatives=memory(miner="variance", deviation=0.4)
                ),
                "sampler": uniform("batch"),
                "max_epochs": 7,
            },
            # So sharp that a draw is the highest-scored item, and alpha follows the loss.
            "genni": {
                "sampler": partial(
                    GenNi,
                    alpha=1e9,
                    beta=0.5,
                    curriculum=True,
                    alpha_bounds=(1e8, 1e10),
                    alpha_step=1e6,
                )
            },
            "genni index": {
                "sampler": partial(GenNi, alpha=1e9, index="clusters"),
                "loss": SampledSoftmax(),
            },
            "teacher": {
                "objective": partial(
                    RankingWithTeacher,
                    false_negatives=memory(m=0),
                    start=0,
                    decay=0.5,
                    weight=1.0,
                ),
                "sampler": uniform("query"),
            },
            # Of views whose making is random, those that are not: whole histories.
            "cl4srec": {
                "objective": partial(CL4SRec, weight=1.0, crop=1.0, mask=0.0, reorder=0.0),
                "sampler": uniform("query"),
            },
            "duorec": {
                "objective": partial(DuoRec, weight=1.0, supervised=False),
                "sampler": uniform("query"),
            },
            # All targets of the batch are negatives, in whatever order.
            "mminforec": {
                "objective": partial(RankingWithMINCE, instance_dropout=0.0, negatives=1000),
                "sampler": uniform("query"),
                "model": "mminforec",
            },
            "s3rec pretraining": {
                "objective": partial(S3RecPretrain, aap=0, map=0),
                "model": "hiding",
                "metric": None,
            },
            "bert4rec": {"sampler": uniform("query"), "model": "bert4rec"},
            "gru4rec": {"sampler": uniform("sequence"), "model": "gru4rec"},
            "lazy query": {"sampler": uniform("query"), "optimizer": lazy},
            "lazy": {"sampler": mixed, "optimizer": lazy, "clip_norm": 0.1},
            "lazy, dense": {"sampler": Full, "loss": Softmax(), "optimizer": lazy},
            "clipped, replayed": {
                "sampler": uniform("query"),
                "clip_norm": 0.1,
                "osf": 1,
                "schedule": "cosine",
            },
        }.items()
    },
}


def streams(world: World, folder: Path) -> list[tuple[int, int, int]]:
    """Of each step the seeds of dropout, of the rank's own draws and of those for all."""
    run, seeds = Run(world, folder, sampler=uniform("query"), max_epochs=1), []
    forward = run.objective.forward

    def noting(model, batch, step):
        common = step.common.initial_seed()
        seeds.append((torch.initial_seed(), step.generator.initial_seed(), common))
        return forward(model, batch, step)

    run.objective.forward = noting
    run.fit()
    return seeds


# What there is with several ranks only, or is another thing on each.
OTHERS = {"refused": refused, "streams": streams}


def together(size: int, folder: Path, names: Iterable[str]) -> list[dict[str, object]]:
    """What each of some ranks, each a process, finds in the cases."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {
        **os.environ,
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    command = [sys.executable, "-m", "tests.training.ranks", str(folder), *names]
    processes = [
        subprocess.Popen(command, env={**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(size)
    ]
    try:
        codes = [process.wait(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(size)]


def main(folder: Path, names: Iterable[str]) -> None:
    torch.set_num_threads(1)
    world = worlds.join(worlds.announced())
    found = {}
    for name in names:
        place = folder / name
        place.mkdir(exist_ok=True)
        found[name] = (CASES | OTHERS)[name](world, place)
    torch.save(found, folder / f"{world.rank}.pt")
    world.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
