"""Faults that strike inside a process; each function is called before the command begins.

They stand for what comes from outside: the process still dies of a real signal, and files end where
the kernel's limits or a kill in the middle of a write would end them.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.truncate", "os.rmdir")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at_file_event(number: int, tally: str | None = None) -> None:
    """SIGKILL right before the process opens for writing, renames or removes for the nth time.

    Args:
        number: n, from 0.
        tally: a file that gets a byte for each of them.
    """
    seen = [0]
    counted = os.open(tally, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if tally else -1

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if not (writes or event in _CHANGES):
            return
        if seen[0] == number:
            die()
        seen[0] += 1
        if counted >= 0:
            os.write(counted, b".")

    sys.addaudithook(look)


def die_in(target: str, call: int, moment: str = "before") -> None:
    """SIGKILL around the nth call of a function.

    Args:
        target: as in ``unittest.mock.patch``.
        call: n, from 0.
        moment: before or after it; or "torn": after it, with the file that it wrote (the argument
            that names one) cut in half, as a kill in the middle of the write leaves it.
    """
    calls = [0]

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def call_it(*arguments: Any, **named: Any) -> Any:
            strikes = calls[0] == call
            calls[0] += 1
            if strikes and moment == "before":
                die()
            result = real(*arguments, **named)
            if strikes and moment == "torn":
                (path,) = [x for x in arguments if isinstance(x, str | Path) and Path(x).is_file()]
                os.truncate(path, Path(path).stat().st_size // 2)
            if strikes:
                die()
            return result

        return call_it

    wrap(target, around)


def die_before_renaming(name: str, call: int) -> None:
    """SIGKILL before the nth time that a file of this name gets another one."""
    calls = [0]

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def replace(path: Path, target: Path) -> Any:
            if path.name == name:
                if calls[0] == call:
                    die()
                calls[0] += 1
            return real(path, target)

        return replace

    wrap("pathlib.Path.replace", around)


def hold(target: str, mark: str, call: int = 0, seconds: float = 30) -> None:
    """Waits before the nth call of a function, so that a test can do something then.

    Args:
        target: as in ``unittest.mock.patch``.
        mark: a file that appears when the wait begins, and whose removal ends it.
        call: n, from 0.
        seconds: the longest wait.
    """
    calls = [0]

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def call_it(*arguments: Any, **named: Any) -> Any:
            if calls[0] == call:
                calls[0] += 1
                Path(mark).touch()
                deadline = time.monotonic() + seconds
                while Path(mark).exists() and time.monotonic() < deadline:
                    time.sleep(0.01)
            else:
                calls[0] += 1
            return real(*arguments, **named)

        return call_it

    wrap(target, around)


def wrap(target: str, around: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Puts a function around another, for good."""
    patcher = patch(target)
    real, _ = patcher.get_original()
    patcher.new = around(real)
    patcher.start()


def largest_file(size: int) -> None:
    """No file may grow beyond so many bytes: writes fail as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def largest_file_after(size: int, target: str, call: int) -> None:
    """The same, from the nth call of a function on."""
    calls = [0]

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def call_it(*arguments: Any, **named: Any) -> Any:
            if calls[0] == call:
                largest_file(size)
            calls[0] += 1
            return real(*arguments, **named)

        return call_it

    wrap(target, around)


def log_grows_by(size: int, call: int) -> None:
    """The same for a run's log, from the nth event on."""
    calls = [0]

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def append(log: Any, event: Any) -> None:
            if calls[0] == call:
                largest_file(log.size + size)
            calls[0] += 1
            real(log, event)

        return append

    wrap("negrec.tracking.events.EventLog.append", around)


def most_memory(more: int) -> None:
    """The process may take so many bytes of address space more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + more
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def clock_goes_back(seconds: int, target: str, call: int) -> None:
    """The wall clock is so far ahead until the nth call of a function, and right from then on."""
    ahead = [seconds]
    calls = [0]

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def call_it(*arguments: Any, **named: Any) -> Any:
            if calls[0] == call:
                ahead[0] = 0
            calls[0] += 1
            return real(*arguments, **named)

        return call_it

    def shifted(unit: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return lambda real: lambda: real() + ahead[0] * unit

    wrap(target, around)
    wrap("time.time", shifted(1))
    wrap("time.time_ns", shifted(10**9))


def time_spent_in(targets: Sequence[str], file: str) -> None:
    """Keeps the seconds spent in some functions in a file, as JSON."""
    spent = dict.fromkeys(targets, 0.0)

    def timed(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def around(real: Callable[..., Any]) -> Callable[..., Any]:
            def call_it(*arguments: Any, **named: Any) -> Any:
                before = time.perf_counter()
                try:
                    return real(*arguments, **named)
                finally:
                    spent[name] += time.perf_counter() - before
                    Path(file).write_text(json.dumps(spent))

            return call_it

        return around

    for name in targets:
        wrap(name, timed(name))


# mount(2)
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
_CLONE_NEWNS = 0x20000


def read_only(folder: str) -> None:
    """The folder cannot be written by this process; root is held by a mount of its own."""
    if os.geteuid() != 0:
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(path.stat().st_mode & ~0o222)
        return
    _own_mounts()
    _mount(folder, folder, None, _MS_BIND)
    _mount(None, folder, None, _MS_BIND | _MS_REMOUNT | _MS_RDONLY)


def small_disk(folder: str, size: int) -> None:
    """The folder is a disk of its own with so many bytes; root only."""
    _own_mounts()
    _mount("tmpfs", folder, "tmpfs", 0, f"size={size}")


def _own_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)


def _mount(
    source: str | None, target: str, kind: str | None, flags: int, options: str | None = None
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [None if word is None else word.encode() for word in (source, target, kind, options)]
    if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]) != 0:
        raise OSError(ctypes.get_errno(), f"mount {target}")


def die_in_append(call: int) -> None:
    """SIGKILL when the half of the nth line of a run's log is written."""
    calls = [0]

    def around(real: Callable[..., Any]) -> Callable[..., Any]:
        def append(log: Any, event: Any) -> None:
            if calls[0] == call:
                line = event.to_json().encode()
                with log.path.open("ab", buffering=0) as file:
                    file.write(line[: len(line) // 2])
                die()
            calls[0] += 1
            real(log, event)

        return append

    wrap("negrec.tracking.events.EventLog.append", around)
