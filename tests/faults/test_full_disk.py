"""No space: one clear line, what was there stays, and the run goes on when there is some again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from negrec.training.checkpoint import load
from tests.faults.conftest import SMALL, Came, folder_of, go_on
from tests.faults.forks import Fault, Forks

_AFTER = "largest_file_after"
# From the call of a function on no file grows beyond some bytes.
FULL: dict[str, Fault] = {
    "checkpoint": (_AFTER, 10_000, "negrec.training.checkpoint.save_file", 3),
    "best checkpoint": (_AFTER, 10_000, "negrec.training.checkpoint.save_file", 2),
    # Half of the metrics of an epoch, and room for how the run ended.
    "log": ("log_grows_by", 150, 6),
    "ranks": (_AFTER, 1_000, "negrec.experiment._write_results", 0),
    "diagnostics": (_AFTER, 300, "negrec.evaluation.showcase.save", 0),
    "inputs": (_AFTER, 100, "negrec.experiment._write_inputs", 0),
    "end": (_AFTER, 100, "negrec.tracking.base.Tracker.finish", 0),
}


def error(said: str) -> str:
    """The one line of an error."""
    assert "Traceback" not in said, said
    assert "Logging error" not in said, said
    (line,) = [line for line in said.splitlines() if line.startswith("negrec: ")]
    return line


SHORT = ("checkpoint",)


@pytest.mark.parametrize(
    "moment", [*SHORT, *(pytest.param(m, marks=pytest.mark.long) for m in FULL if m not in SHORT)]
)
def test_a_run(forks: Forks, whole: Came, tmp_path: Path, moment: str) -> None:
    words = [*SMALL, "diagnostics.users=[1,2]"]  # which changes no result
    run = forks.run(tmp_path, *words, faults=[FULL[moment]])
    assert run.code == 2, run.said
    assert "cannot write" in error(run.said)
    assert "File too large" in error(run.said)
    assert "free some space" in error(run.said)
    assert not list(tmp_path.rglob("*.tmp"))
    begun = list(tmp_path.glob("multirun/*/*/run.json"))
    for path in tmp_path.rglob("*.safetensors"):
        load(path)
    again = go_on(forks, tmp_path) if begun else forks.run(tmp_path, *words)
    assert again.code == 0, again.said
    assert "damaged" not in again.said
    assert Came.to(folder_of(tmp_path)) == whole


@pytest.mark.long
def test_half_a_line_of_the_log_is_taken_back(forks: Forks, tmp_path: Path) -> None:
    forks.run(tmp_path, *SMALL, faults=[FULL["log"]])
    lines = (folder_of(tmp_path) / "events.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["values"] == {"status": "FAILED"}


@pytest.mark.long
def test_the_cache(forks: Forks, tmp_path: Path) -> None:
    rows = [f"u{n % 70},i{n * n % 50},{n}\n" for n in range(2000)]
    (tmp_path / "clicks.csv").write_text("user,item,timestamp\n" + "".join(rows))
    words = ["train", "clicks.csv", *(w for w in SMALL[1:] if not w.startswith("dataset."))]
    full = ("largest_file_after", 500, "negrec.data.cache._write", 0)
    run = forks.run(tmp_path, *words, faults=[full])
    assert run.code == 2, run.said
    assert "the cache folder" in error(run.said)
    assert "paths.cache_dir=FOLDER" in error(run.said)
    again = forks.run(tmp_path, *words)
    assert again.code == 0, again.said
    assert not list((tmp_path / "cache").glob("*.part-*"))


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes disks")
def test_a_real_disk(forks: Forks, tmp_path: Path) -> None:
    runs = tmp_path / "multirun"
    runs.mkdir()
    run = forks.run(tmp_path, *SMALL, faults=[("small_disk", str(runs), 1 << 17)])
    if "mount" in run.said:
        pytest.skip("no disk can be made here")
    assert run.code == 2, run.said
    assert "No space left on device" in error(run.said)


@pytest.mark.long
def test_a_sweep(forks: Forks, tmp_path: Path) -> None:
    words = [*SMALL, "-m", "seed=0,1", "sweep.probe=0", "sweep.name=mine"]
    full = ("largest_file_after", 10_000, "negrec.training.checkpoint.save_file", 3)
    run = forks.run(tmp_path, *words, faults=[full])
    assert run.code == 1, run.said
    assert "Traceback" not in run.said
    assert "2 failed" in run.said
    assert "failed: cannot write " in run.said
    again = forks.run(tmp_path, *words)
    assert again.code == 0, again.said
    assert "2 finished" in again.said
