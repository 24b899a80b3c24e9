"""A wall clock that goes back by an hour."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.conftest import TRACKED, Came, folder_of
from tests.faults.forks import Forks
from tests.tracking.stores import Store


@pytest.mark.long
def test_a_run(forks: Forks, whole: Came, store: Store, tmp_path: Path) -> None:
    back = ("clock_goes_back", 3600, "negrec.training.trainer._Run.end_epoch", 1)
    run = forks.run(tmp_path, *TRACKED, f"tracking.uri={store.uri}", faults=[back])
    assert run.code == 0, run.said
    lines = (folder_of(run) / "events.jsonl").read_text().splitlines()
    times = [json.loads(line)["time"] for line in lines]
    assert times == sorted(times)
    metrics = [json.loads(line) for line in lines if '"metrics"' in line]
    seconds = [x["values"]["train/epoch_seconds"] for x in metrics if x["step"] is not None]
    assert len(seconds) == 3
    assert all(0 < value < 60 for value in seconds)
    final = json.loads((folder_of(run) / "results.json").read_bytes())["metrics"]
    assert 0 < final["cost/seconds_to_best"] <= final["cost/seconds"] < 60
    assert Came.to(folder_of(run)) == whole
    assert store.rows("select end_time >= start_time from runs") == [(1,)]
    in_order = store.rows("select timestamp from metrics where key = 'train/loss' order by step")
    assert in_order == sorted(in_order)
    assert store.metrics("test/hr_10") == [(0, whole.metrics["test/hr_10"])]


@pytest.mark.long
@pytest.mark.parametrize(
    "at", [("negrec.commandline.sweep._launch", 0), ("negrec.experiment.run", 1)]
)
def test_a_sweep(forks: Forks, tmp_path: Path, at: tuple[str, int]) -> None:
    words = [*TRACKED[:-1], "tracking=none", "-m", "seed=0,1", "sampler=uniform"]
    words += ["loss=bce,softmax", "sweep.probe=0"]
    run = forks.run(tmp_path, *words, faults=[("clock_goes_back", 3600, *at)])
    assert run.code == 1, run.said
    # Softmax does not go with a sampler, whatever the time.
    (line,) = [x for x in run.said.splitlines() if x.startswith("sweep ") and "finished" in x]
    assert "2 finished, 2 failed; " in line
    assert "-" not in line.rpartition(";")[2]
    assert "Traceback" not in run.said
