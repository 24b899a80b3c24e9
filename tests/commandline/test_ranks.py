"""Real processes that train one run together, as torchrun starts them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from negrec.commandline.ranks import LOST
from negrec.training.checkpoint import Checkpoints, load

ROOT = Path(__file__).parents[2]
TINY = (
    "dataset.users=200",
    "dataset.items=100",
    "trainer.threads=1",
    "+trainer.optimizer.eps=1e-4",  # so that Adam makes no steps of gradients that are rounding
    "model.dim=16",
    "model.blocks=1",
    "model.dropout=0",
    "tracking=none",
)
SMALL = (*TINY, "trainer.batch_size=32", "trainer.max_epochs=2")
ENDLESS = (*TINY, "trainer.batch_size=32", "trainer.max_epochs=5000", "trainer.patience=null")

pytestmark = pytest.mark.slow


class Job:
    """Two processes with the variables that torchrun sets.

    Args:
        folder: where they work; their output goes beside it.
        words: of ``negrec``.
        variables: of rank 1 alone.
    """

    def __init__(self, folder: Path, *words: str, variables: Mapping[str, str] | None = None):
        self.outputs = [folder.parent / f"{folder.name}.{rank}" for rank in range(2)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_PORT": port}
        self.processes = []
        for rank, output in enumerate(self.outputs):
            own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
            with output.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, "-m", "negrec", *words],
                    cwd=folder,
                    env={**environment(), **common, **own, **(variables or {} if rank else {})},
                    stdout=file,
                    stderr=file,
                )
            self.processes.append(process)

    def until(self, came: Callable[[], object]) -> None:
        deadline = time.monotonic() + 120
        while not came():
            assert time.monotonic() < deadline, self.said
            assert all(process.poll() is None for process in self.processes), self.said
            time.sleep(0.05)

    def wait(self) -> list[int]:
        return [process.wait(timeout=120) for process in self.processes]

    @property
    def said(self) -> str:
        return "".join(output.read_text() for output in self.outputs)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def environment() -> dict[str, str]:
    left = ("RANK", "WORLD_SIZE", "OMP_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in left}
    return {**kept, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs = []

    def started(*words: str, variables: Mapping[str, str] | None = None) -> Job:
        folder = tmp_path / "here"
        folder.mkdir(exist_ok=True)
        jobs.append(Job(folder, *words, variables=variables))
        return jobs[-1]

    yield started
    for job in jobs:
        job.stop()


def plain(folder: Path, command: Sequence[str]) -> str:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def the_run(folder: Path) -> Path:
    """The only run in a folder."""
    (record,) = folder.glob("multirun/*/*/run.json")
    return record.parent


def epochs_of(run: Path) -> list[dict[str, float]]:
    """What was logged of each epoch."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    metrics = [line["values"] for line in lines if line["kind"] == "metrics"]
    return [values for values in metrics if "train/loss" in values]


def test_torchrun_comes_to_what_one_process_comes_to(tmp_path: Path) -> None:
    words = ["-m", "negrec", "train", *SMALL, "sampler.share=sequence", "k=4"]
    plain(tmp_path / "one", words)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    said = plain(tmp_path / "two", [*launcher, *words])
    one, two = (the_run(tmp_path / name) for name in ("one", "two"))
    expected, found = (
        json.loads((run / "results.json").read_bytes())["metrics"] for run in (one, two)
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if not name.startswith("cost/"):
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    expected, found = epochs_of(one), epochs_of(two)
    assert len(found) == len(expected) == 2
    # Of the negatives all draws count, and of what is looked at more closely a sample.
    exact = ("train/loss", "train/skipped", "valid/", "diag/distinct")
    for epoch, metrics in zip(found, expected, strict=True):
        assert epoch.keys() == metrics.keys()
        for name in (name for name in metrics if name.startswith(exact)):
            assert epoch[name] == pytest.approx(metrics[name], rel=1e-5, abs=1e-6), name
        hardness, other = (values["diag/hardness"] for values in (epoch, metrics))
        assert hardness == pytest.approx(other, abs=0.1)
    # One of them speaks and writes: the same files as of one process, and nothing beside them.
    assert said.count("epoch 1: ") == 1
    assert "in each of 2 processes" in said
    files = [
        sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()) for run in (one, two)
    ]
    assert files[0] == files[1]
    assert [p.name for p in (tmp_path / "two").iterdir()] == ["multirun"]
    configs = [json.loads((run / "run.json").read_bytes())["config_hash"] for run in (one, two)]
    assert configs[0] == configs[1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("train", "-m", "seed=0,1"), "-m makes several runs: leave out torchrun"),
        (("recommend", "run=abc"), "torchrun is for `negrec train`: type negrec recommend without"),
        (("train", "sampler=unifrom"), "unifrom"),
        (("train", *TINY, "trainer.batch_size=1"), "2 ranks want at least as many sequences"),
    ],
)
def test_what_is_refused_is_said_once(
    start: Callable[..., Job], words: Sequence[str], line: str
) -> None:
    job = start(*words)
    assert job.wait() == [2, 2], job.said
    (said,) = [text for text in job.said.splitlines() if text.startswith("negrec: ")]
    assert line in said
    assert "Traceback" not in job.said
    assert not list(job.outputs[0].with_suffix("").glob("multirun/*/*"))


def test_a_rank_with_other_data_says_so_and_ends_all(
    start: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_SEED", "0")
    words = ("train", *SMALL, "dataset.seed='${oc.decode:${oc.env:DATA_SEED}}'")
    job = start(*words, variables={"DATA_SEED": "1"})
    assert job.wait() == [2, 2], job.said
    (said,) = [text for text in job.said.splitlines() if text.startswith("negrec: ")]
    assert said.startswith("negrec: rank 1: rank 1 has another data, dataset.seed, split than rank")


def test_a_rank_that_is_killed_ends_all(start: Callable[..., Job]) -> None:
    job = start("train", *ENDLESS)
    job.until(lambda: "epoch 1: " in job.said)
    job.processes[1].kill()
    began = time.monotonic()
    assert job.wait() == [2, -signal.SIGKILL], job.said
    assert time.monotonic() - began < 30
    assert f"negrec: {LOST}" in job.said
    assert "Traceback" not in job.said
    run = the_run(job.outputs[0].with_suffix(""))
    assert json.loads((run / "run.json").read_bytes())["status"] == "FAILED"


def test_a_signal_to_any_rank_is_saved_by_all_and_gone_on_with(start: Callable[..., Job]) -> None:
    job = start("train", *ENDLESS)
    job.until(lambda: "epoch 1: " in job.said)
    job.processes[1].send_signal(signal.SIGTERM)
    for _ in range(2):  # the terminal's, and once more torchrun's
        job.processes[0].send_signal(signal.SIGINT)
    assert job.wait() == [143, 143], job.said
    (said,) = [text for text in job.said.splitlines() if text.startswith("negrec: ")]
    assert "interrupted by SIGTERM and saved" in said
    run = the_run(job.outputs[0].with_suffix(""))
    record = json.loads((run / "run.json").read_bytes())
    assert record["status"] == "KILLED"
    saved = Checkpoints(run / "checkpoint").load_last()
    assert saved is not None
    epochs = int(saved.record["epoch"]) + 2  # type: ignore[arg-type]
    again = start("train", f"run={record['run_id']}", f"trainer.max_epochs={epochs}")
    assert again.wait() == [0, 0], again.said
    assert (
        f"resumed at epoch {saved.record['epoch'] + 1}, step {saved.record['step']}" in again.said
    )
    assert load(run / "checkpoint" / "last.safetensors").record["epoch"] == epochs
