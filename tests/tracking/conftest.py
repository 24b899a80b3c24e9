"""Stores, servers and run folders."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from negrec.tracking.mlflow import MLflowTracker
from tests.tracking.stores import Server, Store, sick


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> Store:
    return Store(Path(shutil.copy(migrated, tmp_path / "mlflow.db")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "multirun" / "run"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def server(store: Store) -> Iterator[Server]:
    running = Server(store)
    running.start()
    yield running
    running.kill()


@pytest.fixture
def sick_server() -> Iterator[Callable[[float, int], str]]:
    """Starts servers that answer each call after some seconds with some HTTP status."""
    with contextlib.ExitStack() as stack:
        yield lambda seconds, status: stack.enter_context(sick(seconds, status))


@pytest.fixture
def tracked(folder: Path) -> Iterator[Callable[[str], MLflowTracker]]:
    """Starts a tracker in the run folder; ends it when the test has failed before it did."""
    trackers = []

    def start(uri: str, **options: float) -> MLflowTracker:
        tracker = MLflowTracker(folder, "a run", uri=uri, **options)  # type: ignore[arg-type]
        tracker.start({"k": 1}, {"negrec.run_id": "abc123"})
        trackers.append(tracker)
        return tracker

    yield start
    for tracker in trackers:
        tracker.flush_seconds = 0
        tracker.finish("KILLED")
