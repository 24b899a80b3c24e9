import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest

from negrec.tracking.base import Tracker
from negrec.tracking.events import EventLog


def events(folder: Path, kind: str) -> list[tuple[dict[str, str | float], int | None]]:
    read = EventLog(folder / "events.jsonl").read()
    return [(dict(event.values), event.step) for event, _ in read if event.kind == kind]


def started(folder: Path) -> Tracker:
    tracker = Tracker(folder, "a run")
    tracker.start({"model": {"d": 64}}, {"negrec.run_id": "abc123"})
    return tracker


def test_a_run_from_start_to_end(folder: Path) -> None:
    tracker = started(folder)
    tracker.log({"train/loss": 0.5, "valid/hr_10": 0}, step=0)
    tracker.log({"test/hr_10": 0.25})
    (folder / "checkpoint").mkdir()
    tracker.artifact(folder / "checkpoint")
    tracker.finish("FINISHED")
    tracker.finish("FAILED")
    about = {"run_id": "abc123", "run_name": "a run", "experiment": "negrec"}
    assert events(folder, "run") == [(about, None)]
    assert events(folder, "params") == [({"model.d": "64"}, None)]
    assert events(folder, "tags") == [({"negrec.run_id": "abc123"}, None)]
    assert events(folder, "metrics") == [
        ({"train/loss": 0.5, "valid/hr_10": 0.0}, 0),
        ({"test/hr_10": 0.25}, None),
    ]
    assert events(folder, "artifact") == [({"path": "checkpoint"}, None)]
    assert events(folder, "status") == [({"status": "FINISHED"}, None)]
    assert str(folder / "events.jsonl") in tracker.where()


def test_a_resumed_run_logs_nothing_twice(folder: Path) -> None:
    first = started(folder)
    first.log({"train/loss": 0.5, "valid/hr_10": 0.1}, step=0)
    first.log({"train/loss": 0.4}, step=1)  # killed before validation
    with (folder / "events.jsonl").open("ab") as file:
        file.write(b'{"kind": "metrics", "ti')
    second = started(folder)
    second.log({"train/loss": 0.4, "valid/hr_10": 0.2}, step=1)
    second.log({"train/loss": 0.3}, step=2)
    second.log({"diag/a": 1.0}, step=2)  # of the same step, later
    assert events(folder, "metrics") == [
        ({"train/loss": 0.5, "valid/hr_10": 0.1}, 0),
        ({"train/loss": 0.4}, 1),
        ({"valid/hr_10": 0.2}, 1),
        ({"train/loss": 0.3}, 2),
        ({"diag/a": 1.0}, 2),
    ]
    assert len(events(folder, "run")) == 1
    assert len(events(folder, "params")) == 1
    assert len(events(folder, "tags")) == 1
    assert events(folder, "status") == [({"status": "RUNNING"}, None)]


def test_parameters_keep_their_first_value(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    started(folder)
    with caplog.at_level(logging.WARNING):
        Tracker(folder, "a run").start({"model": {"d": 32}, "seed": 1}, {"negrec.run_id": "abc123"})
    assert events(folder, "params") == [({"model.d": "64"}, None), ({"seed": "1"}, None)]
    assert "model.d" in caplog.text


def test_tags_change(folder: Path) -> None:
    tracker = started(folder)
    tracker.tag({"a": "1", "b": "2"})
    tracker.tag({"a": "1", "b": "3"})
    assert events(folder, "tags")[1:] == [({"a": "1", "b": "2"}, None), ({"b": "3"}, None)]


@pytest.mark.parametrize("name", ["hr@10", "", "/a", "a//b", "a/../b", "ä", "a" * 251])
def test_metric_names_that_mlflow_refuses(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="metric"):
        started(folder).log({name: 1.0})


def test_names_and_values_of_parameters_are_made_to_fit(folder: Path) -> None:
    Tracker(folder, "r").start({"a@b": None, "/c//d": 1, "long": "x" * 7000, "empty": {}}, {})
    [(params, _)] = events(folder, "params")
    assert params == {"a_b": "None", "_c__d": "1", "long": "x" * 5999 + "…", "empty": "{}"}


def test_nan_is_logged(folder: Path) -> None:
    started(folder).log({"test/balance_10": math.nan})
    [(values, _)] = events(folder, "metrics")
    assert math.isnan(float(values["test/balance_10"]))


def test_secrets_stay_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "hunter2hunter2")
    Tracker(folder, "r").start(
        {"tracking": {"uri": "http://ann:sesame@host"}, "list": ["hunter2hunter2"]},
        {"command": "train tracking.uri=http://ann:sesame@host"},
    )
    text = (folder / "events.jsonl").read_text()
    assert "http://host" in text
    assert "sesame" not in text
    assert "hunter2" not in text


def test_artifacts_lie_in_the_run_folder(folder: Path, tmp_path: Path) -> None:
    tracker = started(folder)
    (tmp_path / "secret.txt").touch()
    (folder / "link").symlink_to(tmp_path / "secret.txt")
    for path in (tmp_path / "secret.txt", folder / "link", folder / ".." / "..", folder):
        with pytest.raises(ValueError, match="inside the run folder"):
            tracker.artifact(path)
    with pytest.raises(FileNotFoundError, match="missing"):
        tracker.artifact(folder / "missing.json")


def test_a_run_id_that_no_query_can_hold(folder: Path) -> None:
    with pytest.raises(ValueError, match="no quotes"):
        Tracker(folder, "r").start({}, {"negrec.run_id": "a' or 'b"})


@pytest.mark.parametrize("module", ["base", "mlflow", "sync", "ui", "runs"])
def test_no_module_imports_mlflow_or_torch(module: str) -> None:
    code = (
        f"import sys, negrec.tracking.{module}; assert not {{'mlflow', 'torch'}} & {{*sys.modules}}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
