"""Small trainings that one process runs, and several together: ``python -m tests.training.ranks``.

Each case takes a world and an empty folder of its own (the same for all ranks) and returns what is
to be the same however many ranks there are.
"""

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

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
from negrec.training.checkpoint import Checkpoints
from negrec.training.trainer import Trainer
from negrec.types import HeldOut
from negrec.world import ALONE, World
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
        self.gradients, self.logged = [], {}

    def fit(self):
        run, step = self, torch.optim.Adam.step

        def noting(optimizer, closure=None):
            run.gradients.append(
                torch.cat([p.grad.to_dense().flatten() for p in optimizer.param_groups[0]["params"]])
            )
            return step(optimizer, closure)

        torch.optim.Adam.step = noting
        try:
            return self.trainer.fit(
                self.model,
                self.objective,
                self.checkpoints,
                lambda model: self.evaluator(model).metrics,
                lambda metrics, epoch: self.logged.update({epoch: metrics}),
            )
        finally:
            torch.optim.Adam.step = step

    def found(self, fit):
        clocks = ("seconds", "share")
        return {
            "gradients": torch.stack(self.gradients),
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


def resumed(world: World, folder: Path) -> dict[str, object]:
    """Cut off in the second epoch, and gone on with."""

    class DiedError(Exception):
        pass

    broken = Run(world, folder, sampler=srns, checkpoint_minutes=0.0)
    forward, calls = broken.objective.forward, itertools.count()

    def mortal(*args):
        if next(calls) == 9:
            raise DiedError
        return forward(*args)

    broken.objective.forward = mortal
    try:
        broken.fit()
    except DiedError:
        pass
    again = Run(world, folder, sampler=srns)
    found = again.found(again.fit())
    return {name: found[name] for name in ("model", "objective", "best")} | {
        "epochs": [
            {k: v for k, v in {**broken.logged, **again.logged}[epoch].items() if "second" not in k}
            for epoch in range(3)
        ][-1]["train/loss"],
    }


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


def memory(**settings):
    """What marks false negatives, from the first epoch on."""
    return partial(HardMemory, start=0, slots=2, recorded_only=False, **settings)


CASES: dict[str, Callable[[World, Path], dict[str, object]]] = {
    "evaluation": evaluated,
    "resumed": resumed,
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
            "clipped, replayed": {
                "sampler": uniform("query"),
                "clip_norm": 0.1,
                "osf": 1,
                "schedule": "cosine",
            },
        }.items()
    },
}


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
        subprocess.Popen(
            command, env={**variables, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        )
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
        found[name] = CASES[name](world, place)
    torch.save(found, folder / f"{world.rank}.pt")
    world.leave()


def by_itself(name: str, folder: Path) -> dict[str, object]:
    """What one process finds."""
    return CASES[name](ALONE, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
