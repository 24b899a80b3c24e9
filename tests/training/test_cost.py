"""What a step costs, measured on parts whose cost is known."""

import time
from pathlib import Path

import pytest
import torch

from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.losses.bce import BCE
from negrec.models.popularity import Popularity
from negrec.models.sasrec import SASRec
from negrec.objectives.ranking import Ranking
from negrec.samplers.uniform import Uniform
from negrec.training import cost
from negrec.training.trainer import Trainer
from tests import toy

V = 30


class Costly(Uniform):
    """Takes time and memory for nothing, and remembers when it was asked."""

    def __init__(self, info, seconds=0.0, megabytes=0):
        super().__init__(info, 1)
        self.seconds, self.megabytes = seconds, megabytes
        self.steps = []

    def sample(self, queries, scorer, step):
        self.steps.append((step.epoch, step.index, len(queries.target)))
        torch.ones(self.megabytes * 125_000, dtype=torch.double)
        time.sleep(self.seconds)
        return super().sample(queries, scorer, step)


def parts(model=SASRec, **settings):
    histories = toy.random_histories(24, V, 8)
    sequences = Sequences(toy.jagged(histories), 8, NextItem())
    info = toy.info(V)
    samplers = []

    def sampler(info):
        samplers.append(Costly(info, **settings))
        return samplers[-1]

    def build():
        trainer = Trainer(
            sequences,
            seed=0,
            max_epochs=3,
            evaluate_every=3,
            batch_size=8,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
            device="cpu",
            threads=1,
            progress=False,
        )
        return trainer, model(info), Ranking(info, sequences, sampler, BCE())

    return build, samplers


def test_so_many_steps_after_the_warm_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    build, samplers = parts()
    # 24 sequences are 3 batches of 8: five steps go around the data.
    found = cost.measure(build, steps=5, warm_up=2)
    steps = [(epoch, index) for epoch, index, _ in samplers[0].steps]
    assert steps == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (1, 3), (1, 4)]
    assert found.seconds > 0
    assert not list(Path.cwd().glob("*.safetensors"))


def test_seconds_are_those_of_1000_queries_and_the_samplers_share_is_known():
    build, samplers = parts(seconds=0.05)
    found = cost.measure(build, steps=4)
    queries = sum(n for epoch, _, n in samplers[0].steps if epoch == 1)
    # Four times 50 ms in the sampler alone.
    of_sampler = found.seconds * found.sampler_share * queries / 1000
    assert of_sampler == pytest.approx(0.2, rel=0.2)
    assert 0.5 < found.sampler_share < 1


def test_an_earlier_peak_is_forgotten():
    build, _ = parts()
    before = cost.measure(build, steps=1).peak_mb
    if before is None:
        pytest.skip("this system cannot forget a peak")
    large, _ = parts(megabytes=300)
    peak = cost.measure(large, steps=1).peak_mb
    after = cost.measure(build, steps=1).peak_mb
    assert peak - before == pytest.approx(300, rel=0.2)
    assert after < before + 60


def test_nothing_to_train():
    build, samplers = parts(model=Popularity)
    assert cost.measure(build, steps=3) is None
    assert samplers[0].steps == []
