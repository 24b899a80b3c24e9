"""SIGKILL at any moment: the run goes on to the same weights and metrics, bit for bit."""

from __future__ import annotations

import random
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.faults.conftest import SMALL, Came, folder_of, run_id
from tests.faults.forks import Fault, Forks, Run

# Half-written files are the second argument of their writers.
AIMED: dict[str, Fault] = {
    "write of the last checkpoint": ("die_in", "negrec.training.checkpoint.save_file", 3, "torn"),
    "write of the best checkpoint": ("die_in", "negrec.training.checkpoint.save_file", 2, "torn"),
    "between the renames": ("die_before_renaming", "fresh.safetensors", 1),
    "validation": ("die_in", "negrec.evaluation.evaluator.Evaluator.__call__", 1),
    "a line of the log": ("die_in_append", 6),
    "test": ("die_in", "negrec.evaluation.evaluator.Evaluator.__call__", 4),
    "ranks": ("die_in", "polars.DataFrame.write_parquet", 2, "torn"),
    "results": ("die_in", "negrec.experiment._write_json", 2),
    "end": ("die_in", "negrec.tracking.base.Tracker.finish", 0),
}


def to_the_end(forks: Forks, run: Run) -> Came:
    """Goes on with a killed run as a person would: what was not begun is typed again."""
    assert run.code == -9, run.said
    begun = list(run.folder.glob("multirun/*/*/run.json"))
    saved = list(run.folder.glob("multirun/*/*/checkpoint/[lp]*.safetensors"))  # last, previous
    words = ["train", f"run={run_id(run)}"] if begun else SMALL
    again = forks.run(run.folder, *words)
    assert again.code == 0, again.said
    assert ("resumed at epoch" in again.said) or not saved, again.said
    assert "damaged" not in again.said
    return Came.to(folder_of(run))


SHORT = ("write of the last checkpoint",)


@pytest.mark.parametrize(
    "moment", [*SHORT, *(pytest.param(m, marks=pytest.mark.long) for m in AIMED if m not in SHORT)]
)
def test_killed_where_it_hurts(forks: Forks, whole: Came, tmp_path: Path, moment: str) -> None:
    assert to_the_end(forks, forks.run(tmp_path, *SMALL, faults=[AIMED[moment]])) == whole


@pytest.mark.long
def test_killed_twice(forks: Forks, whole: Came, tmp_path: Path) -> None:
    first = forks.run(tmp_path, *SMALL, faults=[AIMED["write of the last checkpoint"]])
    fault = ("die_in", "negrec.training.trainer._Run.step", 3)
    second = forks.run(tmp_path, "train", f"run={run_id(first)}", faults=[fault])
    assert to_the_end(forks, second) == whole


@pytest.mark.long
def test_killed_before_any_write_rename_or_removal(
    forks: Forks, whole: Came, tmp_path: Path
) -> None:
    tally = tmp_path / "tally"
    forks.run(tmp_path / "count", *SMALL, faults=[("die_at_file_event", -1, str(tally))])
    events = tally.stat().st_size
    assert events > 40
    for number in random.Random(0).sample(range(events), 12):
        folder = tmp_path / str(number)
        run = forks.run(folder, *SMALL, faults=[("die_at_file_event", number)])
        assert to_the_end(forks, run) == whole, number


@pytest.mark.long
def test_killed_at_twenty_random_moments(forks: Forks, whole: Came, tmp_path: Path) -> None:
    started = time.monotonic()
    forks.run(tmp_path / "whole", *SMALL)
    life = time.monotonic() - started
    seeded = random.Random(1)
    killed = tried = 0
    while killed < 20:
        run = forks.start(tmp_path / str(tried), *SMALL)
        tried += 1
        time.sleep(seeded.uniform(0, life))
        with suppress(ProcessLookupError):
            run.kill()
        if run.wait() == 0:  # it was over by then
            continue
        assert to_the_end(forks, run) == whole
        killed += 1
