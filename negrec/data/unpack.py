"""One file out of an archive, and nothing else of it."""

from __future__ import annotations

import gzip
import re
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO

from negrec.errors import InputError

_CHUNK = 1 << 20
# Tables shrink to a tenth or so; a bomb to a thousandth.
_MOST_TIMES = 100
_ALWAYS = 1 << 24  # bytes that a small archive may unpack to
_MOST = 1 << 36  # bytes that any archive may unpack to

_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError),
    *(NotImplementedError, RuntimeError),  # compressed or locked in a way that zipfile cannot read
)


def limit_of(archive: Path) -> int:
    """The most bytes that an archive may unpack to."""
    return min(_MOST, max(_ALWAYS, _MOST_TIMES * archive.stat().st_size))


def unpacked(archive: Path, member: str, folder: Path, limit: int | None = None) -> Path:
    """The file that a data set is in: unpacked into a folder, or the given file where it is plain.

    It is written under a name of our own as the bytes come. Archives are zip, tar (compressed or
    not) and gzip, by what they hold, not by their names.

    Args:
        archive: the archive or the plain file.
        member: the name of the file in the archive, in whatever folder.
        folder: an existing one.
        limit: in bytes; None: ``limit_of`` the archive.

    Raises:
        InputError: a damaged archive, one without the file, with an entry that would leave its
            folder or is a link or device, or one that unpacks to more than the limit.
    """
    to, limit = folder / "unpacked", limit_of(archive) if limit is None else limit
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, member, to, limit)
        elif tarfile.is_tarfile(archive):
            _untar(archive, member, to, limit)
        elif _is_gzip(archive):
            with gzip.open(archive) as stream:
                _copy(archive, stream, to, limit)
        else:
            return archive
    except _DAMAGED as error:
        raise InputError(
            f"{archive} is damaged: {str(error).strip() or type(error).__name__}; fetch it again"
        ) from error
    return to


def _unzip(archive: Path, member: str, to: Path, limit: int) -> None:
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        for entry in entries:
            kind = stat.S_IFMT(entry.external_attr >> 16)  # 0 where the archive's maker says none
            _refuse(archive, entry.orig_filename, kind in (0, stat.S_IFREG, stat.S_IFDIR))
        found = [entry for entry in entries if _is(entry.filename, member)]
        _refuse_other_than_one(archive, member, len(found), [e.filename for e in entries])
        if found[0].file_size > limit:
            raise _too_large(archive, limit)
        with opened.open(found[0]) as stream:
            _copy(archive, stream, to, limit)


def _untar(archive: Path, member: str, to: Path, limit: int) -> None:
    names, found, size = [], 0, 0
    with tarfile.open(archive, "r|*") as opened:
        for entry in opened:
            _refuse(archive, entry.name, entry.isfile() or entry.isdir())
            names.append(entry.name)
            size += entry.size
            if size > limit:  # what is not needed has to be unpacked too, to be passed over
                raise _too_large(archive, limit)
            if entry.isfile() and _is(entry.name, member):
                found += 1
                stream = opened.extractfile(entry)
                assert stream is not None  # of a regular file there is one
                _copy(archive, stream, to, limit)
    _refuse_other_than_one(archive, member, found, names)


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def _is(name: str, member: str) -> bool:
    return PurePosixPath(name).name == member and not name.endswith("/")


def _refuse(archive: Path, name: str, plain: bool) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name):
        raise InputError(f"{archive} is refused: its entry {name!r} would leave the folder")
    if not plain:
        raise InputError(f"{archive} is refused: its entry {name!r} is a link or a device")


def _refuse_other_than_one(archive: Path, member: str, found: int, names: list[str]) -> None:
    if found == 1:
        return
    some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    raise InputError(f"{archive} has {found or 'no'} files named {member}; it holds {some}")


def _copy(archive: Path, stream: IO[bytes] | gzip.GzipFile, to: Path, limit: int) -> None:
    # Counted as they come: what a header says of the size may be a lie.
    size = 0
    with to.open("wb") as file:
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > limit:
                raise _too_large(archive, limit)
            file.write(chunk)


def _too_large(archive: Path, limit: int) -> InputError:
    return InputError(
        f"{archive} is refused: {archive.stat().st_size:,} bytes unpack to more than {limit:,}, as "
        "no table does; where that is meant, unpack it yourself and give the file as from=FILE"
    )
