"""What of the log the terminal shows where."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class NoErrors(logging.Filter):
    """Lets pass what belongs on stdout; errors go to stderr."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR


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
