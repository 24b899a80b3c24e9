"""Stores, servers and run folders."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from negrec.tracking.mlflow import MLflowTracker
from tests.tracking.stores import Server, Store


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
    servers = []

    def start(seconds: float, status: int) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(seconds)
                with contextlib.suppress(OSError):  # the client has left
                    self.send_response(status)
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"{}")

            do_POST = do_GET  # noqa: N815  the name is http.server's

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


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
