"""Small real runs, and what they come to."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.forks import Forks, Run
from tests.tracking.stores import Store

if not hasattr(os, "fork"):
    pytest.skip("processes are forked here", allow_module_level=True)

# Three epochs of seven steps; a state that early stopping, sampler and diagnostics keep too.
TRACKED = (
    "train",
    "dataset.users=200",
    "dataset.items=100",
    "trainer.max_epochs=3",
    "trainer.batch_size=32",
    "trainer.threads=1",
    "model.dim=16",
    "model.blocks=1",
    "sampler=genni",
)
SMALL = (*TRACKED, "tracking=none")


@dataclass(frozen=True)
class Came:
    """What a run came to.

    Attributes:
        metrics: all but times and memory.
        events: the metrics of each epoch that do not tell times, in the order of the log.
        weights: of the best checkpoint, bit by bit.
    """

    metrics: dict[str, float]
    events: list[tuple[int | None, dict[str, float]]]
    weights: dict[str, bytes]

    @classmethod
    def to(cls, folder: Path) -> Came:
        """In the run's folder."""
        from negrec.training.checkpoint import load

        metrics = json.loads((folder / "results.json").read_bytes())["metrics"]
        lines = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        logged = [(x["step"], _timeless(x["values"])) for x in lines if x["kind"] == "metrics"]
        events = [(step, values) for step, values in logged if values]
        best = load(folder / "checkpoint" / "best.safetensors")
        weights = {name: tensor.numpy().tobytes() for name, tensor in best.tensors.items()}
        return cls(_timeless(metrics), events, weights)


def _timeless(values: dict[str, float]) -> dict[str, float]:
    times = ("cost/", "train/epoch_seconds", "train/sampler_share", "diag/seconds")
    return {name: value for name, value in values.items() if not name.startswith(times)}


def folder_of(run: Run | Path) -> Path:
    """The folder of the only run that was started in a folder."""
    root = run if isinstance(run, Path) else run.folder
    (record,) = root.glob("multirun/*/*/run.json")
    return record.parent


def run_id(root: Run | Path) -> str:
    found: str = json.loads((folder_of(root) / "run.json").read_bytes())["run_id"]
    return found


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    made = Forks()
    yield made
    made.stop()


@pytest.fixture(scope="session")
def whole(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Came:
    """The small run, undisturbed."""
    run = forks.run(tmp_path_factory.mktemp("whole"), *SMALL)
    assert run.code == 0, run.said
    return Came.to(folder_of(run))


@pytest.fixture(scope="session")
def _cut(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = forks.run(
        tmp_path_factory.mktemp("cut"),
        *SMALL,
        faults=[("die_in", "negrec.training.trainer._Run.step", 17)],
    )
    assert run.code == -9, run.said
    return run.folder


@pytest.fixture
def cut(_cut: Path, tmp_path: Path) -> Path:
    """Where the small run was killed in its third epoch: two checkpoints, and the best one."""
    return Path(shutil.copytree(_cut, tmp_path / "cut"))


def go_on(forks: Forks, root: Path) -> Run:
    """Types what the log of a run says, in the folder where it was started."""
    return forks.run(root, "train", f"run={run_id(root)}")


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> Store:
    return Store(Path(shutil.copy(migrated, tmp_path / "mlflow.db")))
