"""Ctrl-C and SIGTERM, whatever the run is doing: it ends in order and goes on later."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from negrec.training.checkpoint import Checkpoints
from tests.faults.conftest import SMALL, TRACKED, Came, folder_of, go_on
from tests.faults.forks import Forks, Run
from tests.tracking.stores import Store, until

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
MOMENTS = {
    "reading": ("negrec.experiment.read", 0),
    "before the first step": ("negrec.training.trainer.Trainer.fit", 0),
    "validation": ("negrec.evaluation.evaluator.Evaluator.__call__", 1),
    "the last validation": ("negrec.evaluation.evaluator.Evaluator.__call__", 2),
    "test": ("negrec.evaluation.evaluator.Evaluator.__call__", 4),
    "writing results": ("negrec.experiment._write_results", 0),
}


def stopped(
    forks: Forks,
    folder: Path,
    number: int,
    target: str,
    call: int,
    words: Sequence[str] = SMALL,
) -> Run:
    """A run that got the signal while it was about to call something."""
    mark = folder.parent / f"{folder.name}.mark"
    run = forks.start(folder, *words, faults=[("hold", target, str(mark), call)])
    run.until(mark.exists)
    send(run, number)
    mark.unlink(missing_ok=True)
    run.wait()
    return run


def send(run: Run, number: int) -> None:
    """As a terminal and as a scheduler does."""
    run.interrupt() if number == signal.SIGINT else run.kill(number)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_in_the_middle_of_an_epoch(
    forks: Forks, whole: Came, store: Store, tmp_path: Path, number: signal.Signals
) -> None:
    words = [*TRACKED, f"tracking.uri={store.uri}"]
    step = "negrec.training.trainer._Run.step"
    run = stopped(forks, tmp_path / "run", number, step, 10, words)
    assert run.code == CODES[number], run.said
    assert f"interrupted by {number.name} and saved" in run.said
    assert "Traceback" not in run.said
    saved = Checkpoints(folder_of(run) / "checkpoint").load_last()
    assert saved is not None
    assert (saved.record["epoch"], saved.record["step"]) == (1, 4)  # 7 steps and the 11th
    assert json.loads((folder_of(run) / "run.json").read_bytes())["status"] == "KILLED"
    assert store.statuses() == ["KILLED"]
    again = go_on(forks, run.folder)
    assert again.code == 0, again.said
    assert Came.to(folder_of(run)) == whole
    assert store.statuses() == ["FINISHED"]
    assert [step for step, _ in store.metrics("train/loss")] == [0, 1, 2]


@pytest.mark.long
@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("moment", MOMENTS)
def test_at_any_other_moment(
    forks: Forks, whole: Came, tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    run = stopped(forks, tmp_path / "run", number, *MOMENTS[moment])
    assert run.code == CODES[number], run.said
    assert "Traceback" not in run.said
    assert "interrupted" in run.said
    begun = list(run.folder.glob("multirun/*/*/run.json"))
    if begun:
        assert json.loads(begun[0].read_bytes())["status"] == "KILLED"
        again = go_on(forks, run.folder)
    else:
        assert not list(run.folder.glob("multirun/*"))
        again = forks.run(run.folder, *SMALL)
    assert again.code == 0, again.said
    assert Came.to(folder_of(run)) == whole


def test_while_the_data_is_read(forks: Forks, tmp_path: Path) -> None:
    run = stopped(forks, tmp_path / "run", signal.SIGINT, *MOMENTS["reading"])
    assert run.code == 130, run.said
    assert run.said.splitlines()[-1] == "negrec: interrupted"
    assert not (run.folder / "multirun").exists() or not list(run.folder.glob("multirun/*"))


@pytest.mark.long
@pytest.mark.parametrize("number", CODES)
def test_while_python_starts(tmp_path: Path, number: signal.Signals) -> None:
    seeded = random.Random(3)
    words = [word for word in SMALL if "max_epochs" not in word]  # it would go on for long
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-m", "negrec", *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        maps = Path(f"/proc/{process.pid}/maps")
        until(lambda maps=maps: "hashlib" in maps.read_text())  # Python itself is there
        time.sleep(seeded.uniform(0.3, 2.5))
        os.killpg(process.pid, number)
        said, _ = process.communicate()
        assert process.returncode == CODES[number], said
        assert "Traceback" not in said


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "launcher"),
    [(signal.SIGTERM, "basic"), (signal.SIGTERM, "joblib"), (signal.SIGINT, "joblib")],
)
def test_in_a_sweep(
    forks: Forks, store: Store, tmp_path: Path, number: signal.Signals, launcher: str
) -> None:
    longer = [word for word in TRACKED if "max_epochs" not in word]
    words = [*longer, "trainer.max_epochs=200", "-m", "seed=0,1", "sweep.probe=0"]
    words += [f"hydra/launcher={launcher}", "sweep.name=mine", f"tracking.uri={store.uri}"]
    run = forks.start(tmp_path, *words)
    run.until(lambda: list(tmp_path.glob("multirun/mine/*/checkpoint/last.safetensors")))
    run.until(lambda: store.statuses().count("RUNNING") >= 2)  # the sweep and a job
    send(run, number)
    assert run.wait() == CODES[number], run.said
    assert "Traceback" not in run.said
    assert "the same command goes on where it stopped" in run.said
    until(lambda: "RUNNING" not in store.statuses())  # what sends for joblib's workers
    assert set(store.statuses()) <= {"KILLED", "FINISHED"}
    assert "KILLED" in store.statuses()
    again = forks.run(tmp_path, *words)
    assert again.code == 0, again.said
    assert "2 finished" in again.said
    assert store.statuses() == ["FINISHED"] * 3


@pytest.mark.long
def test_ctrl_c_twice_ends_at_once(forks: Forks, whole: Came, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    hold = ("hold", "negrec.training.trainer._Run.step", str(mark), 10)
    run = forks.start(tmp_path / "run", *SMALL, faults=[hold])
    run.until(mark.exists)
    run.interrupt()
    run.until(lambda: "once more to stop at once" in run.said)
    run.interrupt()
    assert run.wait() == 130
    assert "Traceback" not in run.said
    assert go_on(forks, run.folder).code == 0
    assert Came.to(folder_of(run)) == whole
