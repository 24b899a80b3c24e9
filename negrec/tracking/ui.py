"""The verb ``negrec ui``: MLflow's pages over the store that ``negrec train`` wrote to."""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from negrec.errors import InputError
from negrec.tracking.mlflow import ENVIRONMENT, VIEW, VIEW_TAG, absolute_uri, sqlite_path
from negrec.tracking.redaction import without_secrets
from negrec.tracking.sync import DEFAULT_URI

_PORTS_TRIED = 50
_START_SECONDS = 90.0


def main(argv: list[str]) -> int:
    """``negrec ui [--uri URI] [--port PORT] [--host HOST]``; runs until Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="negrec ui", description="Open MLflow's pages over the runs of this folder."
    )
    parser.add_argument("--uri", default=DEFAULT_URI, help="the store (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=5000, help="%(default)s, or the next one that is free"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="%(default)s: this machine only; another address lets others read and change runs",
    )
    given = parser.parse_args(argv)
    uri = absolute_uri(given.uri)
    if uri.startswith("http"):
        print(f"this is a server with pages of its own: {without_secrets(uri)}")
        return 0
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise InputError(f"{path}: no runs here; `negrec train` makes this file, --uri names one")
    return _serve(uri, given.host, free_port(given.host, given.port))


def free_port(host: str, first: int) -> int:
    """The first port from ``first`` on that nothing listens at."""
    for port in range(first, min(first + _PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except PermissionError as error:
                raise InputError(f"--port {port}: not permitted; give one above 1023") from error
            except socket.gaierror as error:
                raise InputError(f"--host {host}: {error.strerror}") from error
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise InputError(f"--host {host}: not an address of this machine") from error
                continue
            return port
    raise InputError(f"--port {first}: this and the next {_PORTS_TRIED - 1} are taken; give one")


def _serve(uri: str, host: str, port: int) -> int:
    path = sqlite_path(uri)
    artifacts = (path.parent if path else Path.cwd()) / "mlruns"
    command = [sys.executable, "-P", "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", host, "--port", str(port), "--artifacts-destination", str(artifacts)]
    # In the environment, not on the command line: `ps` shows commands, and a database has a
    # password in its address.
    store = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryFile() as chatter:
        server = subprocess.Popen(
            command,
            env={**_inherited(), **ENVIRONMENT, **store},
            stdout=chatter,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its workers are stopped with it, below
        )
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        try:
            print(f"opening {address} ...", flush=True)
            if _answers(server, address):
                print(f"MLflow is at {address} (Ctrl-C stops it)", flush=True)
                for page in _pages(address):
                    print(f"runs by sampler, with their metrics: {page}", flush=True)
            server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _stop(server)
        chatter.seek(0)
        lines = [line.strip() for line in chatter.read().decode(errors="replace").splitlines()]
    reason = without_secrets(next((line for line in reversed(lines) if line), "no message"))
    print(
        f"negrec: MLflow's server ended (exit code {server.returncode}): {reason}", file=sys.stderr
    )
    return 1


def _inherited() -> dict[str, str]:
    """The environment, without what sets where a server listens or adds to its command line."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("UVICORN_", "GUNICORN_"))
        and name not in ("MLFLOW_HOST", "MLFLOW_UVICORN_OPTS", "MLFLOW_GUNICORN_OPTS")
    }


def _answers(server: subprocess.Popen[bytes], address: str) -> bool:
    """Waits for the server's first answer; False when there is none in time."""
    # No proxy: the address is one of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), opener.open(f"{address}/health", timeout=2):
            return True
        time.sleep(0.2)
    return False


def _pages(address: str) -> list[str]:
    """Of each experiment the page of runs with the columns that matter here."""
    body = json.dumps({"max_results": 20, "filter": f"tags.`{VIEW_TAG}` LIKE '%'"}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/api/2.0/mlflow/experiments/search", body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with contextlib.suppress(OSError, ValueError), opener.open(request, timeout=10) as answer:
        found = json.load(answer).get("experiments", [])
        return [
            f"{address}/#/experiments/{e['experiment_id']}/runs?viewStateShareKey={VIEW}"
            for e in found
        ]
    return []


def _stop(server: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGTERM)
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)
