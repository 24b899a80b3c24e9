"""Memory that runs out, and workers that the kernel kills for it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.faults.conftest import SMALL
from tests.faults.forks import Forks, Run

GIB = 1 << 30
UNLIMITED = [word for word in SMALL if not word.startswith("model.dim")]


@pytest.mark.long
def test_a_run(forks: Forks, tmp_path: Path) -> None:
    words = [*UNLIMITED, "model.dim=20000"]  # 4 matrices of 20,000 x 20,000: 6 GB
    run = forks.run(tmp_path, *words, faults=[("most_memory", GIB)])
    assert run.code == 2, run.said
    assert "Traceback" not in run.said
    (line,) = [line for line in run.said.splitlines() if line.startswith("negrec: ")]
    assert "memory" in line
    assert "trainer.batch_size" in line
    assert "\n" not in line


def test_a_sweep(forks: Forks, tmp_path: Path) -> None:
    words = [*UNLIMITED, "-m", "model.dim=16,20000,8", "sweep.probe=0", "sweep.name=mine"]
    run = forks.run(tmp_path, *words, faults=[("most_memory", GIB)])
    assert run.code == 1, run.said
    assert "2 finished, 1 failed" in run.said
    assert "Traceback" not in run.said
    (failure,) = tmp_path.glob("multirun/mine/*/failure.json")
    reason = json.loads(failure.read_bytes())["error"]
    assert reason.startswith("out of memory")
    assert f"failed: {reason}" in run.said


@pytest.mark.long
def test_a_worker_of_the_parallel_launcher_is_killed(forks: Forks, tmp_path: Path) -> None:
    words = [*SMALL, "-m", "seed=range(4)", "sweep.probe=0", "sweep.name=mine"]
    run = forks.start(tmp_path, *words, "hydra/launcher=joblib")
    run.until(lambda: list(tmp_path.glob("multirun/mine/*/checkpoint/last.safetensors")))
    os.kill(workers(run)[0], signal.SIGKILL)
    assert run.wait() == 0, run.said
    assert "4 finished" in run.said
    assert not list(tmp_path.glob("multirun/mine/*/failure.json"))


def workers(run: Run) -> list[int]:
    """The processes that joblib has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            words = stat.with_name("cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        if parent == run.pid and b"popen_loky" in words:
            found.append(int(stat.parent.name))
    return found
