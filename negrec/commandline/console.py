"""What of the log the terminal shows where."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class NoErrors(logging.Filter):
    """Lets pass what belongs on stdout; errors go to stderr."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR


class LogFile(logging.FileHandler):
    """A run's log file, which gets what the disk takes: the run says by itself that it is full."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def close(self) -> None:
        with suppress(OSError):  # of what it could not write before
            super().close()


@contextmanager
def quiet() -> Iterator[None]:
    """No log lines of trainings that are not the point."""
    log = logging.getLogger("negrec")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
