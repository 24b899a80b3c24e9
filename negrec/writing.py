"""Files of a run that are written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from negrec.errors import InputError


@contextmanager
def replacing(path: Path, *failures: type[Exception]) -> Iterator[Path]:
    """Gives a name to write to, and puts that file in the place of ``path`` at the end.

    A process that dies on the way leaves the old file, and so do an error and Ctrl-C.

    Args:
        path: of the file.
        failures: what the writer raises when the disk is full, besides OSError.

    Raises:
        InputError: it cannot be written.
    """
    temporary = path.with_suffix(".tmp")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, (OSError, *failures)):
            raise unwritable(path, error) from error
        raise


def unwritable(path: Path, error: BaseException) -> InputError:
    """The line for a file that cannot be written: the disk is full, or may only be read."""
    reason = getattr(error, "strerror", None) or error
    return InputError(
        f"cannot write {path} ({reason}): free some space, or choose another folder with "
        "paths.runs_dir=FOLDER; a run that has begun goes on with `negrec train run=ID`"
    )
