"""What of the log the terminal shows where."""

import logging


class NoErrors(logging.Filter):
    """Lets pass what belongs on stdout; errors go to stderr."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR
