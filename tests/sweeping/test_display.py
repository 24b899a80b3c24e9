import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from negrec.sweeping.display import Display
from negrec.sweeping.jobs import Failure
from negrec.tracking.base import Tracker


def running(folder: Path, values: list[float], epochs: int = 10) -> Tracker:
    """A job on its way, as its folder tells it."""
    folder.mkdir(parents=True)
    (folder / "train.log").write_text("")
    (folder / "run.json").write_text(json.dumps({"run_id": "r", "key": "k", "status": "RUNNING"}))
    tracker = Tracker(folder, "r")
    tracker.start({"trainer.max_epochs": epochs, "trainer.metric": "hr_5"}, {})
    for epoch, value in enumerate(values):
        tracker.log({"valid/hr_5": value, "train/epoch_seconds": 2.0}, epoch)
    return tracker


def end(folder: Path, seconds: float) -> None:
    config = {"trainer.metric": "hr_5"}
    run = {"run_id": "r", "key": "k", "status": "FINISHED", "config": config}
    (folder / "run.json").write_text(json.dumps(run))
    metrics = {"best/value": 0.25, "cost/seconds": seconds}
    (folder / "results.json").write_text(json.dumps({"metrics": metrics}))


def display(folder: Path, expected: dict[str, float | None], at_once: int = 1) -> Display:
    made = Display(folder, expected, len(expected), 0, at_once, 0.0, Console(file=io.StringIO()))
    made._look()
    return made


def said(made: Display) -> list[str]:
    return made._console.file.getvalue().splitlines()


def test_off_a_terminal_only_the_end_of_each_job_is_told(tmp_path):
    running(tmp_path / "a", [0.1, 0.25])
    (tmp_path / "b").mkdir()
    Failure("no good", "negrec train", None).write(tmp_path / "b")
    made = display(tmp_path, {"a": 20.0, "b": 20.0})
    assert said(made) == ["[1/2] b: FAILED: no good"]
    end(tmp_path / "a", 62)
    made._look()
    made._look()
    assert said(made)[1:] == ["[2/2] a: best valid/hr_5 0.2500, trained for 1 min 2 s"]


def test_a_running_job_has_a_line(tmp_path):
    running(tmp_path / "a", [0.1, 0.25, 0.2])
    made = display(tmp_path, {"a": 20.0})
    line = made._running["a"].line()
    assert line == "epoch 3/10  hr_5 0.2000 (best 0.2500)  2.0 s/epoch"


def test_what_ended_before_the_command_is_not_told(tmp_path):
    running(tmp_path / "a", [0.1])
    end(tmp_path / "a", 5)
    late = Display(tmp_path, {}, 1, 1, 1, 1e12, Console(file=io.StringIO()))
    late._look()
    assert said(late) == []


@pytest.mark.parametrize(("at_once", "left"), [(1, 36.0), (2, 18.0), (8, 18.0)])
def test_the_time_left_follows_forecast_share_and_pace(tmp_path, at_once, left):
    # b is through 2 of 10 epochs: 16 of 20 s are left, and c's 20 s; two jobs share them at most.
    running(tmp_path / "b", [0.1, 0.2])
    made = display(tmp_path, {"b": 20.0, "c": 20.0}, at_once)
    assert made.seconds_left() == pytest.approx(left)
    # a took twice what was foretold, and so will the others.
    running(tmp_path / "a", [0.1])
    slow = display(tmp_path, {"a": 10.0, "b": 20.0, "c": 20.0}, at_once)
    end(tmp_path / "a", 20)
    slow._look()
    assert slow.seconds_left() == pytest.approx(2 * left)


def test_no_time_is_told_without_a_forecast(tmp_path):
    assert display(tmp_path, {"a": None, "b": 20.0}).seconds_left() is None
