"""Real stores and servers of MLflow, read with sqlite3: a second pair of eyes beside MLflow's."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from negrec.tracking.mlflow import ENVIRONMENT


@dataclass(frozen=True)
class Store:
    """What a SQLite store holds."""

    path: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.path}"

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        with contextlib.closing(sqlite3.connect(self.path, timeout=30)) as connection:
            return connection.execute(sql).fetchall()

    def metrics(self, key: str) -> list[tuple[object, ...]]:
        """(step, value) of every value that arrived under a name, duplicates included."""
        return self.rows(f"select step, value from metrics where key = '{key}' order by step")

    def statuses(self) -> list[object]:
        return [status for (status,) in self.rows("select status from runs")]

    def tags(self) -> dict[object, object]:
        return dict(self.rows("select key, value from tags"))  # type: ignore[arg-type]


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def sick(seconds: float, status: int) -> Iterator[str]:
    """The address of a server that answers each call after some seconds with an HTTP status."""

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
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Server:
    """A real `mlflow server` process that can be killed and started again."""

    store: Store
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--backend-store-uri", self.store.uri, "--port", str(self.port)]
        command += ["--artifacts-destination", str(self.store.path.parent / "artifacts")]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until(self.answers, 90)

    def answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{self.uri}/health", timeout=2),
        ):
            return True
        return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None
