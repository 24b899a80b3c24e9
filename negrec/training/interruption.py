"""Ctrl-C and SIGTERM: a training ends between two steps, after a checkpoint; all else at once."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Self

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOOK_AGAIN_SECONDS = 0.05


class InterruptedRunError(Exception):
    """The run was asked to stop and has saved its state.

    Attributes:
        signal: the signal's number; the process exits with 128 + it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.signal = number


class TerminatedError(KeyboardInterrupt):
    """SIGTERM where nothing holds it back: a Ctrl-C of another number."""

    signal = signal.SIGTERM


@contextmanager
def terminable() -> Iterator[None]:
    """While entered, SIGTERM ends what is going on as Ctrl-C does, in order.

    Both wait for an import to end: libraries swallow them there, or are left half imported. In a
    thread other than the main one it does nothing.
    """
    over = False

    def again(number: int) -> None:
        if not over:
            os.kill(os.getpid(), number)

    def stop(number: int, frame: FrameType | None) -> None:
        if _imports(frame):
            timer = threading.Timer(_LOOK_AGAIN_SECONDS, again, [number])
            timer.daemon = True
            timer.start()
            return
        raise TerminatedError if number == signal.SIGTERM else KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # What is ignored, as under nohup, stays ignored.
    held = [n for n in _SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in held}
    try:
        yield
    finally:
        over = True
        for number, handler in before.items():
            signal.signal(number, handler)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported where a signal came."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def exit_code(error: InterruptedRunError | KeyboardInterrupt) -> int:
    """128 + the number of the signal, as shells have it."""
    return 128 + int(getattr(error, "signal", signal.SIGINT))


class Interruption:
    """While entered, remembers a signal in place of dying in the middle of a step.

    A second signal of the same kind has its usual effect. In a thread other than the main one,
    where Python delivers no signals, it does nothing.

    Args:
        repeated: further signals say the same as the first: torchrun passes on a Ctrl-C that the
            terminal has sent to its processes already, and kills them itself if they do not end.

    Attributes:
        signal: the number of the signal that came; None so far.
    """

    def __init__(self, repeated: bool = False) -> None:
        self.signal: int | None = None
        self._repeated = repeated
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup: stays ignored
                    self._before[number] = signal.signal(number, self._remember)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number in list(self._before):
            self._restore(number)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self._repeated:
            if self.signal is None:
                log.warning("stopping after this step")
            self.signal = self.signal or number
            return
        self.signal = number
        log.warning("stopping after this step; once more to stop at once")
        self._restore(number)

    def _restore(self, number: int) -> None:
        if number in self._before:
            signal.signal(number, self._before.pop(number))  # type: ignore[arg-type]
