"""Runs of ``negrec`` in processes forked from one that has imported all they need.

A start of Python with torch takes seconds, a fork none. What is forked is a process like any other:
the leader of a session of its own, with files, signals and limits of its own, that dies of a real
signal. Linux and macOS.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins

_IMPORTS = (
    "negrec.cli",
    "negrec.commandline.train",
    "negrec.commandline.sweep",
    "negrec.experiment",
    "negrec.data.tables",
    "negrec.evaluation.diagnostics",
    "negrec.reporting.tables",
    "negrec.samplers.genni",
    "torch._dynamo",  # by the first optimiser: the half of what a small run takes
    "tests.faults.inside",
)

# A fault: the name of a function of tests/faults/inside.py, and its arguments.
Fault = tuple[Any, ...]


@dataclass
class Run:
    """A process that runs one command.

    Attributes:
        pid: its number, and that of its process group.
        folder: where it was started.
        log: what it says, both streams.
    """

    pid: int
    folder: Path
    log: Path
    connection: socket.socket = field(repr=False)
    code: int | None = None

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def ended(self) -> bool:
        return self.code is not None or bool(select.select([self.connection], [], [], 0)[0])

    def wait(self, seconds: float = 120) -> int:
        """The exit code; minus the number of the signal that it died of."""
        if self.code is None:
            self.connection.settimeout(seconds)
            self.code = os.waitstatus_to_exitcode(int(self.connection.makefile().readline()))
            self.connection.close()
        return self.code

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        """Waits for something that the process does."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert not self.ended(), self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.002)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def interrupt(self) -> None:
        """Ctrl-C: the terminal's signal to all processes of the group."""
        os.killpg(self.pid, signal.SIGINT)


class Forks:
    """The process that is forked, seen from the test."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="negrec-forks-")
        self._address = str(Path(self._folder.name) / "socket")
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forks", self._address],
            stdin=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"},
        )

    def start(
        self, folder: Path, *words: str, faults: Sequence[Fault] = (), **variables: str
    ) -> Run:
        """Starts ``negrec WORDS`` in a folder, with faults in its way.

        Args:
            folder: is made where it is missing; holds what the process says.
            words: the command's.
            faults: see ``Fault``.
            variables: of the environment, added to this process's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._count += 1
        log = folder / f"said-{self._count}.txt"
        environment = {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "NEGREC_CACHE_DIR": str(folder / "cache"),
            **variables,
        }
        order = {"words": words, "folder": str(folder), "log": str(log), "faults": faults}
        connection = self._connect()
        connection.sendall(json.dumps({**order, "environment": environment}).encode() + b"\n")
        pid = b""
        while not pid.endswith(b"\n"):
            pid += connection.recv(1)
        return Run(int(pid), folder, log, connection)

    def run(self, folder: Path, *words: str, **more: Any) -> Run:
        """Starts a command and waits for its end."""
        run = self.start(folder, *words, **more)
        run.wait()
        return run

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._folder.cleanup()

    def _connect(self) -> socket.socket:
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(self._address)
                return connection
            except OSError:  # it is still importing
                connection.close()
                assert self._process.poll() is None
                time.sleep(0.05)


def _main(address: str) -> None:
    for name in _IMPORTS:
        import_module(name)
    Plugins.instance()  # Hydra imports all that are installed
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers leave no zombies
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:  # the tests have ended
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            _keep(connection)
            return
        connection.close()


def _keep(connection: socket.socket) -> None:
    """Forks the job, keeps what it says, and tells its number and how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    order = json.loads(connection.makefile().readline())
    source, target = os.pipe()  # a limit on the size of files is none on what is said
    pid = os.fork()
    if pid == 0:
        connection.close()
        os.close(source)
        _work(order, target)
        return
    os.close(target)
    connection.sendall(f"{pid}\n".encode())
    ended = status = 0
    with Path(order["log"]).open("ab", buffering=0) as log:
        while not ended:
            ended, status = os.waitpid(pid, os.WNOHANG)  # asked before reading: nothing is lost
            while select.select([source], [], [], 0 if ended else 0.02)[0]:
                said = os.read(source, 1 << 16)
                if not said:  # it has closed its streams and is about to end
                    if not ended:
                        ended, status = os.waitpid(pid, 0)
                    break
                log.write(said)
    with suppress(OSError):  # the test has failed meanwhile and does not listen any more
        connection.sendall(f"{status}\n".encode())
    os._exit(0)


def _work(order: Mapping[str, Any], out: int) -> None:
    os.setsid()
    os.chdir(order["folder"])
    os.environ.update(order["environment"])
    for stream in (1, 2):
        os.dup2(out, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = ["negrec", *order["words"]]
    inside = import_module("tests.faults.inside")
    for name, *arguments in order["faults"]:
        getattr(inside, name)(*arguments)
    from negrec.cli import main

    sys.exit(main(order["words"]))


if __name__ == "__main__":
    _main(sys.argv[1])
