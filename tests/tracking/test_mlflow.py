from __future__ import annotations

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import negrec
from negrec.errors import InputError
from negrec.tracking.events import Event, EventLog
from negrec.tracking.mlflow import ENVIRONMENT, MLflowTracker, Progress, absolute_uri
from negrec.tracking.sync import sync
from tests.tracking.stores import Server, Store, until

Start = Callable[..., MLflowTracker]


def test_everything_arrives(
    store: Store, folder: Path, tracked: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEGREC_PARENT_RUN", "feedbeef")
    tracker = tracked(store.uri)
    tracker.log({"train/loss": 0.5, "valid/x": math.nan}, step=0)
    tracker.log({"train/loss": 0.25, "valid/x": math.nan}, step=1)
    tracker.log({"test/hr_10": 0.125})
    tracker.tag({"note": "a"})
    tracker.tag({"note": "b"})  # in the same load
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "best.safetensors").write_bytes(b"weights")
    (folder / "config.yaml").write_text("uri: http://ann:sesame@host\n")
    tracker.artifact(folder / "checkpoint")
    tracker.artifact(folder / "config.yaml")
    tracker.finish("FINISHED")
    assert store.metrics("train/loss") == [(0, 0.5), (1, 0.25)]
    assert store.rows("select step, is_nan from metrics where key = 'valid/x' order by step") == [
        (0, 1),
        (1, 1),
    ]
    assert store.metrics("test/hr_10") == [(0, 0.125)]
    assert store.rows("select key, value from params") == [("k", "1")]
    tags = store.tags()
    assert tags["note"] == "b"
    assert tags["negrec.run_id"] == "abc123"
    assert tags["mlflow.parentRunId"] == "feedbeef"
    assert store.statuses() == ["FINISHED"]
    # The times are those of the values, not of their arrival.
    times = {event.time for event, _ in EventLog(folder / "events.jsonl").read()}
    assert {time for (time,) in store.rows("select timestamp from metrics")} <= times
    artifacts = store.path.parent / "mlruns" / "negrec" / Progress.read(folder).mlflow_run
    assert (artifacts / "artifacts/checkpoint/best.safetensors").read_bytes() == b"weights"
    assert (artifacts / "artifacts/config.yaml").read_text() == "uri: http://host\n"
    assert f"negrec ui --uri {store.uri}" in tracker.where()


def test_many_names_and_long_values_go_in_several_loads(store: Store, folder: Path) -> None:
    # More than one call of MLflow's takes: 100 parameters, 1,000 metrics, 1 MB.
    tracker = MLflowTracker(folder, "r", uri=store.uri)
    tracker.start({f"p{i}": "ü" * 6000 for i in range(250)}, {})
    tracker.log({f"m/{i}": float(i) for i in range(2300)}, step=1)
    tracker.finish("FINISHED")
    assert store.rows("select count(*), min(length(value)) from params") == [(250, 6000)]
    assert store.rows("select count(*), sum(value) from metrics") == [(2300, 2300 * 2299 / 2)]


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_same_one(store: Store, tracked: Start) -> None:
    first = tracked(store.uri)
    first.log({"train/loss": 0.5}, step=0)
    first.finish("KILLED")
    second = tracked(store.uri)
    second.log({"train/loss": 0.6}, step=0)
    second.log({"train/loss": 0.4}, step=1)
    until(lambda: store.statuses() == ["RUNNING"])
    second.finish("FINISHED")
    assert store.metrics("train/loss") == [(0, 0.5), (1, 0.4)]
    assert store.statuses() == ["FINISHED"]


@pytest.mark.slow
def test_sending_again_changes_nothing(store: Store, folder: Path, tracked: Start) -> None:
    tracker = tracked(store.uri)
    tracker.log({"a": math.nan, "b": math.inf, "c": 1.0}, step=0)
    tracker.log({"a": math.nan, "b": 2.0, "c": 1.0}, step=1)
    tracker.finish("FINISHED")
    everything = "select key, value, step, is_nan, timestamp from metrics order by key, step"
    before = store.rows(everything)
    # As if the answer to each call had been lost, that to the run's creation included.
    (folder / "tracking.json").unlink()
    assert sync(folder, store.uri).complete
    assert store.rows(everything) == before
    assert len(before) == 6
    assert store.statuses() == ["FINISHED"]


@pytest.mark.slow
def test_a_store_that_was_made_anew_gets_everything(
    store: Store, migrated: Path, folder: Path, tracked: Start
) -> None:
    first = tracked(store.uri)
    first.log({"train/loss": 0.5}, step=0)
    first.finish("KILLED")
    store.path.write_bytes(migrated.read_bytes())
    second = tracked(store.uri)
    second.log({"train/loss": 0.4}, step=1)
    second.finish("FINISHED")
    assert store.metrics("train/loss") == [(0, 0.5), (1, 0.4)]


JOB = """
import sys, time
from pathlib import Path
from negrec.tracking.mlflow import MLflowTracker
uri, folder, steps, pause = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
tracker = MLflowTracker(folder, folder.name, uri=uri)
tracker.start({"folder": folder.name}, {})
for step in range(steps):
    tracker.log({"train/loss": step / 2}, step)
    time.sleep(pause)
tracker.finish("FINISHED")
print(tracker.where())
"""


def job(uri: str, folder: Path, steps: int, pause: float = 0) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", JOB, uri, str(folder), str(steps), str(pause)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder.parent,
        env={**os.environ, "PYTHONPATH": str(Path(negrec.__file__).parents[1])},
    )


@pytest.mark.slow
def test_four_jobs_at_once_on_a_fresh_store_lose_nothing(tmp_path: Path) -> None:
    jobs = [job("sqlite:///mlflow.db", tmp_path / f"job{i}", steps=20) for i in range(4)]
    answers = [(*process.communicate(timeout=180), process.returncode) for process in jobs]
    # No chatter, no warning: each has sent everything.
    assert answers == [("see it with: negrec ui\n", "", 0)] * 4
    store = Store(tmp_path / "mlflow.db")
    assert store.statuses() == ["FINISHED"] * 4
    arrived = store.rows(
        "select p.value, m.step, m.value from metrics m join params p using (run_uuid)"
    )
    assert sorted(arrived) == [(f"job{i}", s, s / 2) for i in range(4) for s in range(20)]
    assert store.rows("select count(*) from experiments where name = 'negrec'") == [(1,)]


@pytest.mark.slow
def test_a_store_is_never_left_half_made(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    store = Store(tmp_path / "fresh" / "mlflow.db")
    # Ends at many moments of the seconds that importing MLflow and making a store take.
    for seconds in (0.0, 1.0, 2.0, 3.0):
        tracker = MLflowTracker(folder, "r", uri=store.uri, flush_seconds=seconds)
        tracker.start({}, {})
        tracker.log({"a": seconds}, step=int(seconds))
        tracker.finish("FINISHED")
    assert sync(folder).complete
    assert store.metrics("a") == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.slow
def test_sigkill_of_the_run(store: Store, folder: Path, tracked: Start) -> None:
    process = job(store.uri, folder, steps=10_000, pause=0.01)
    until(lambda: len(store.metrics("train/loss")) > 3)
    process.kill()
    process.communicate()
    # What it had logged still arrives, and MLflow does not show a dead run as running.
    until(lambda: store.statuses() == ["KILLED"])
    logged = [e for e, _ in EventLog(folder / "events.jsonl").read() if e.kind == "metrics"]
    assert store.metrics("train/loss") == [(e.step, e.values["train/loss"]) for e in logged]
    tracker = MLflowTracker(folder, folder.name, uri=store.uri)
    tracker.start({}, {})
    tracker.log({"train/loss": -1.0}, step=len(logged))
    tracker.finish("FINISHED")
    assert len(store.metrics("train/loss")) == len(logged) + 1
    assert store.statuses() == ["FINISHED"]


@pytest.mark.slow
def test_a_server_killed_in_mid_run_costs_neither_time_nor_values(
    server: Server, store: Store, folder: Path, tracked: Start, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "config.yaml").write_text("a: 1\n")
    tracker = tracked(server.uri)
    tracker.artifact(folder / "config.yaml")
    tracker.log({"train/loss": 0.0}, step=0)
    until(lambda: len(store.metrics("train/loss")) == 1)
    # Killed before its answer was noted, the value would rightly be sent again.
    until(lambda: Progress.read(folder).sent == (folder / "events.jsonl").stat().st_size)
    server.kill()
    slowest = 0.0
    for step in range(1, 50):
        before = time.perf_counter()
        tracker.log({"train/loss": float(step)}, step)
        slowest = max(slowest, time.perf_counter() - before)
        time.sleep(0.02)
    until(lambda: bool(Progress.read(folder).trouble))
    before = time.perf_counter()
    tracker.finish("FINISHED")
    assert slowest < 0.2  # a connection attempt alone, with MLflow's retries, takes minutes
    assert time.perf_counter() - before < 5
    assert "negrec sync run=abc123" in caplog.text
    assert str(folder / "events.jsonl") in caplog.text
    assert len(store.metrics("train/loss")) == 1
    assert store.statuses() == ["RUNNING"]

    assert not sync(folder).complete  # still away
    server.start()
    done = sync(folder)
    assert (done.complete, done.values) == (True, 49)
    assert store.metrics("train/loss") == [(step, float(step)) for step in range(50)]
    assert store.statuses() == ["FINISHED"]
    assert sync(folder).values == 0
    [config] = (store.path.parent / "artifacts").rglob("config.yaml")
    assert config.read_text() == "a: 1\n"
    assert tracker.where().startswith(f"{server.uri}/#/experiments/")


@pytest.mark.slow
def test_a_server_that_comes_back_gets_all_during_the_run(
    server: Server, store: Store, folder: Path, tracked: Start
) -> None:
    tracker = tracked(server.uri)
    tracker.log({"a": math.nan}, step=0)
    until(lambda: len(store.metrics("a")) == 1)
    server.kill()
    tracker.log({"a": math.inf}, step=1)
    until(lambda: bool(Progress.read(folder).trouble))
    server.start()
    until(lambda: len(store.metrics("a")) == 2)
    tracker.finish("FINISHED")
    assert [step for step, _ in store.metrics("a")] == [0, 1]
    assert store.rows("select is_nan from metrics order by step") == [(1,), (0,)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seconds", "status", "reason"),
    [(0, 500, "500"), (4, 200, "slow"), (60, 200, "not got everything")],
)
def test_a_server_in_trouble_is_not_waited_for(
    sick_server: Callable[[float, int], str],
    folder: Path,
    tracked: Start,
    caplog: pytest.LogCaptureFixture,
    seconds: float,
    status: int,
    reason: str,
) -> None:
    tracker = tracked(sick_server(seconds, status), flush_seconds=6)
    for step in range(10):
        before = time.perf_counter()
        tracker.log({"a": 1.0}, step)
        assert time.perf_counter() - before < 0.2
    if seconds < 10:
        until(lambda: bool(Progress.read(folder).trouble))
    before = time.perf_counter()
    tracker.finish("FINISHED")
    # Two seconds where trouble is known, else flush_seconds; and a second to end the process.
    assert time.perf_counter() - before < (4 if seconds < 10 else 8)
    assert "negrec sync run=abc123" in caplog.text
    assert reason in caplog.text
    kept = [e for e, _ in EventLog(folder / "events.jsonl").read() if e.kind == "metrics"]
    assert len(kept) == 10


def test_what_ctrl_c_leaves_unsent_is_told(
    store: Store,
    folder: Path,
    tracked: Start,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tracker = tracked(store.uri)
    tracker.log({"valid/hr_10": 0.1}, step=0)

    def interrupted(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)  # while the rest is waited for
    with pytest.raises(KeyboardInterrupt):
        tracker.finish("FINISHED")
    assert "sent by: negrec sync run=abc123" in caplog.text
    assert sync(folder).complete
    assert store.statuses() == ["FINISHED"]


def test_a_refusing_server_and_a_password(
    folder: Path, tracked: Start, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracked("http://ann:sesame@127.0.0.1:9")  # nothing listens there
    tracker.log({"a": 1.0}, step=0)
    until(lambda: bool(Progress.read(folder).trouble))
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(b"sesame" in command for command in commands)
    tracker.finish("FAILED")
    assert "negrec sync run=abc123" in caplog.text
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"events.jsonl", "tracking.json"} <= {path.name for path in files}
    for text in (caplog.text, tracker.where(), *(path.read_text() for path in files)):
        assert "sesame" not in text
        assert "ann" not in text.replace("cannot", "")
    assert Progress.read(folder).uri == "http://127.0.0.1:9"


@pytest.mark.slow
def test_a_locked_store_is_tried_again(store: Store, folder: Path, tracked: Start) -> None:
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute("begin exclusive")
    tracker = tracked(store.uri)
    tracker.log({"a": 1.0}, step=0)
    until(lambda: bool(Progress.read(folder).trouble))
    connection.close()
    until(lambda: store.metrics("a") == [(0, 1.0)])
    tracker.finish("FINISHED")
    assert store.statuses() == ["FINISHED"]


WATCH = """
import os, socket
def watch(function):
    def watched(*args, **kwargs):
        with open(os.environ["WATCH_FILE"], "a") as file:
            print(function.__name__, args, file=file)
        raise OSError("no network in this test")
    return watched
socket.getaddrinfo = watch(socket.getaddrinfo)
socket.socket.connect = watch(socket.socket.connect)
socket.socket.connect_ex = watch(socket.socket.connect_ex)
"""


@pytest.mark.parametrize("telemetry", ["off", "on"])
def test_no_telemetry(
    store: Store, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, telemetry: str
) -> None:
    """Nothing is looked up or connected to; "on" shows that the watch would see it."""
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    seen = tmp_path / "seen.txt"
    seen.touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watch"))
    monkeypatch.setenv("WATCH_FILE", str(seen))
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "PYTEST_CURRENT_TEST", "CI"):
        monkeypatch.delenv(name, raising=False)  # under a test MLflow is silent by itself
    if telemetry == "on":
        monkeypatch.setitem(ENVIRONMENT, "MLFLOW_DISABLE_TELEMETRY", "false")
        monkeypatch.setitem(ENVIRONMENT, "DO_NOT_TRACK", "false")
    tracker = MLflowTracker(folder, "r", uri=store.uri)
    tracker.start({}, {})
    tracker.log({"a": 1.0}, step=0)
    tracker.finish("FINISHED")
    assert store.metrics("a") == [(0, 1.0)]
    assert ("mlflow-telemetry" in seen.read_text()) == (telemetry == "on")
    assert telemetry == "on" or not seen.read_text()


@pytest.mark.slow
def test_a_damaged_progress_file(store: Store, folder: Path, tracked: Start) -> None:
    first = tracked(store.uri)
    first.log({"a": 1.0}, step=0)
    first.finish("KILLED")
    (folder / "tracking.json").write_text('{"uri": ')
    assert sync(folder, store.uri).complete
    assert store.metrics("a") == [(0, 1.0)]
    assert store.statuses() == ["KILLED"]


@pytest.mark.parametrize("uri", ["", "./mlruns", "file:./mlruns", "ftp://host", "sqlite://"])
def test_addresses_that_are_none(folder: Path, uri: str) -> None:
    with pytest.raises(InputError, match=r"tracking\.uri="):
        MLflowTracker(folder, "r", uri=uri)


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
def test_flush_seconds(folder: Path, seconds: float) -> None:
    with pytest.raises(InputError, match="flush_seconds"):
        MLflowTracker(folder, "r", flush_seconds=seconds)


def test_the_store_stays_where_the_command_was_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    assert absolute_uri("sqlite:////a/b.db") == "sqlite:////a/b.db"
    assert absolute_uri("http://host:5000") == "http://host:5000"


def test_without_a_process_the_values_are_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    tracker = MLflowTracker(folder, "r", uri="http://127.0.0.1:9")
    tracker.start({}, {})
    tracker.log({"a": 1.0}, step=0)
    tracker.finish("FINISHED")
    assert "no process" in caplog.text
    assert "negrec sync run=r" in caplog.text
    assert "negrec sync run=r" in tracker.where()
    kept = [event for event, _ in EventLog(folder / "events.jsonl").read()]
    assert kept[2:] == [
        Event("metrics", {"a": 1.0}, 0, kept[2].time),
        Event("status", {"status": "FINISHED"}, None, kept[3].time),
    ]


@pytest.mark.slow
def test_no_process_is_left(store: Store, folder: Path, tracked: Start) -> None:
    tracker = tracked(store.uri)
    delivery = tracker._delivery
    assert delivery is not None
    os.kill(delivery._process.pid, signal.SIGSTOP)  # hangs for good
    tracker.flush_seconds = 0.5
    tracker.finish("FINISHED")
    assert delivery._process.returncode is not None
    assert json.loads(json.dumps(sync(folder, store.uri).complete))
