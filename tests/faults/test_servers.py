"""MLflow in trouble: the training never waits for it, and no value is lost."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import TRACKED, Came, folder_of
from tests.faults.forks import Fault, Forks, Run
from tests.tracking.conftest import sick_server
from tests.tracking.stores import Server, Store, free_port, until

__all__ = ["sick_server"]

# All that a training calls of its tracking.
CALLS = [f"negrec.tracking.base.Tracker.{name}" for name in ("log", "tag", "artifact")]


def waited(file: Path) -> float:
    """The share of a training that it spent in its tracking."""
    return sum(json.loads(file.read_text()).values())


def synced(forks: Forks, run: Run, whole: Came, store: Store, uri: str) -> None:
    """Types the command that the log names; everything arrives."""
    command = re.search(r"negrec sync run=\w+", run.said)
    assert command is not None, run.said
    assert str(folder_of(run) / "events.jsonl") in run.said
    sent = forks.run(run.folder, *command[0].split()[1:], f"uri={uri}")
    assert sent.code == 0, sent.said
    assert "everything is there" in sent.said
    arrived(store, whole)


def arrived(store: Store, whole: Came) -> None:
    for step, values in whole.events:
        for name, value in values.items():
            if isinstance(value, float):
                assert (step or 0, value) in store.metrics(name), name
    assert all(len(store.metrics(name)) == 1 for name in whole.metrics)
    assert store.statuses() == ["FINISHED"]


@pytest.mark.long
@pytest.mark.parametrize(("seconds", "status"), [(0, 500), (10, 200)])
def test_a_server_that_is_ill(
    forks: Forks,
    whole: Came,
    store: Store,
    tmp_path: Path,
    sick_server: Callable[[float, int], str],
    seconds: float,
    status: int,
) -> None:
    spent = tmp_path / "spent.json"
    words = [*TRACKED, f"tracking.uri={sick_server(seconds, status)}", "tracking.flush_seconds=5"]
    run = forks.run(tmp_path / "run", *words, faults=[("time_spent_in", CALLS, str(spent))])
    assert run.code == 0, run.said
    assert Came.to(folder_of(run)) == whole
    final = json.loads((folder_of(run) / "results.json").read_bytes())["metrics"]
    # Each call appends a line to a file; a single one of MLflow's takes longer than all of them.
    assert waited(spent) < 0.05 + 0.05 * final["cost/seconds"]
    synced(forks, run, whole, store, store.uri)


@pytest.mark.long
def test_a_server_that_is_not_there_yet(
    forks: Forks, whole: Came, store: Store, tmp_path: Path
) -> None:
    server = Server(store, free_port())
    run = forks.run(tmp_path / "run", *TRACKED, f"tracking.uri={server.uri}")
    assert run.code == 0, run.said
    assert "Connection refused" in run.said or "not got everything" in run.said
    server.start()
    try:
        synced(forks, run, whole, store, server.uri)
    finally:
        server.kill()


@pytest.mark.long
def test_a_server_that_is_killed_and_starts_again(
    forks: Forks, whole: Came, store: Store, tmp_path: Path
) -> None:
    server = Server(store)
    server.start()
    mark = tmp_path / "mark"
    hold: Fault = ("hold", "negrec.training.trainer._Run.step", str(mark), 10, 120)
    try:
        words = [*TRACKED, f"tracking.uri={server.uri}"]
        run = forks.start(tmp_path / "run", *words, faults=[hold])
        run.until(lambda: len(store.metrics("train/loss")) == 1)
        server.kill()
        mark.unlink()
        # The rest of the training happens without it.
        run.until(lambda: (folder_of(run) / "events.jsonl").read_text().count('"metrics"') >= 3)
        server.start()
        assert run.wait() == 0, run.said
        assert Came.to(folder_of(run)) == whole
        if "negrec sync" in run.said:  # the end did not wait for it
            synced(forks, run, whole, store, server.uri)
        arrived(store, whole)
    finally:
        server.kill()


@pytest.fixture
def locked(store: Store) -> Iterator[sqlite3.Connection]:
    """The store, held by another process's transaction."""
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute("begin exclusive")
    yield connection
    connection.close()


@pytest.mark.long
def test_a_store_that_is_locked_for_thirty_seconds(
    forks: Forks, whole: Came, store: Store, tmp_path: Path, locked: sqlite3.Connection
) -> None:
    started = time.monotonic()
    mark, spent = tmp_path / "mark", tmp_path / "spent.json"
    # The training is over in a second; the end of the run is held, as a longer one would take.
    faults: list[Fault] = [
        ("time_spent_in", CALLS, str(spent)),
        ("hold", "negrec.tracking.mlflow.MLflowTracker.finish", str(mark), 0, 60),
    ]
    run = forks.start(tmp_path / "run", *TRACKED, f"tracking.uri={store.uri}", faults=faults)
    run.until(mark.exists)
    assert time.monotonic() - started < 30
    assert waited(spent) < 1
    until(lambda: time.monotonic() - started > 30)
    locked.close()
    until(lambda: len(store.metrics("train/loss")) == 3)
    mark.unlink()
    assert run.wait() == 0, run.said
    assert "negrec sync" not in run.said
    assert Came.to(folder_of(run)) == whole
    arrived(store, whole)
