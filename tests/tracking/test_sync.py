import json
from pathlib import Path

import pytest
from filelock import FileLock

from negrec.errors import InputError
from negrec.tracking.base import Tracker
from negrec.tracking.mlflow import MLflowTracker, Progress
from negrec.tracking.sync import main, sync
from tests.tracking.stores import Store


@pytest.fixture
def untracked(folder: Path) -> Path:
    """The folder of a finished run with tracking=none."""
    (folder / "run.json").write_text(json.dumps({"run_id": "abc123"}))
    tracker = Tracker(folder, "a run")
    tracker.start({"k": 1}, {"negrec.run_id": "abc123"})
    tracker.log({"train/loss": 0.5, "valid/hr_10": 0.25}, step=0)
    tracker.finish("FINISHED")
    return folder


def test_a_run_without_tracking_is_sent_later_and_once(
    store: Store,
    untracked: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)  # where the store is
    assert main(["run=abc123"]) == 0
    assert capsys.readouterr().out.startswith("2 values sent")
    assert store.metrics("train/loss") == [(0, 0.5)]
    assert store.statuses() == ["FINISHED"]
    assert main([str(untracked), f"uri={store.uri}"]) == 0
    assert capsys.readouterr().out.startswith("0 values sent")
    assert store.rows("select count(*) from metrics") == [(2,)]


def test_it_goes_where_the_run_was_tracked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = "http://127.0.0.1:9"
    tracker = MLflowTracker(folder, "r", uri=uri, flush_seconds=0)
    tracker.start({}, {})
    tracker.finish("FINISHED")
    monkeypatch.chdir(tmp_path)
    done = sync(folder)
    assert (done.complete, done.progress.uri) == (False, uri)
    assert not (tmp_path / "mlflow.db").exists()


def test_a_run_whose_process_was_killed(store: Store, folder: Path) -> None:
    tracker = Tracker(folder, "a run")
    tracker.start({}, {"negrec.run_id": "abc123"})
    tracker.log({"train/loss": 0.5}, step=0)
    with FileLock(folder / "run.lock"):  # its process is at work
        assert sync(folder, store.uri).complete
        assert store.statuses() == ["RUNNING"]
    assert sync(folder, store.uri).complete
    (last,) = store.rows("select max(timestamp) from metrics")
    assert store.rows("select status, end_time from runs") == [("KILLED", *last)]


def test_a_server_that_is_away(untracked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(untracked), "http://ann:sesame@127.0.0.1:9"]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "Connection refused" in line
    assert str(untracked / "events.jsonl") in line
    assert "sesame" not in line + (untracked / "tracking.json").read_text()


@pytest.mark.slow
def test_a_run_that_is_being_sent(store: Store, untracked: Path) -> None:
    with FileLock(untracked / "tracking.lock"):
        assert not sync(untracked, store.uri).complete
    assert store.statuses() == []
    assert Progress.read(untracked).sent == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=abc124"], "run=abc124: no such run in multirun/; near ones: abc123"),
        (["run=abc123", "uri=nowhere"], "tracking.uri=nowhere: give sqlite:///FILE.db"),
    ],
)
def test_bad_input(
    untracked: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="^" + message):
        main(arguments)


def test_a_run_without_events(folder: Path) -> None:
    with pytest.raises(InputError, match="nothing to send"):
        sync(folder)
