"""Named data sets: from where their owners publish them to a Parquet file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import polars as pl
from filelock import FileLock, Timeout

from negrec.data.download import Show, download
from negrec.data.interactions import Counts
from negrec.data.tables import Source
from negrec.data.unpack import unpacked
from negrec.errors import InputError

_DOWNLOADS = ".downloads"  # in the data folder: archives until they are converted
_NO_ROOM = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@dataclass(frozen=True)
class Entry:
    """One data set of the registry.

    Attributes:
        name: its own.
        path: of its Parquet file, relative to the data folder.
        timestamps: whether it has times.
        source: where it comes from.
    """

    name: str
    path: str
    timestamps: bool
    source: Source


@dataclass(frozen=True)
class Fetched:
    """What became of a data set.

    Attributes:
        path: of the Parquet file.
        archive: what was downloaded, which is needed no more; None where the user gave it.
        sha256: of what came.
        counts: what the Parquet file holds.
        incomplete: rows left out for want of a user, an item or a time.
    """

    path: Path
    archive: Path | None
    sha256: str
    counts: Counts
    incomplete: int


def fetch(entry: Entry, folder: Path, given: Path | None, show: Show) -> Fetched:
    """Downloads a data set, checks it, and writes it as Parquet, whole or not at all.

    Args:
        entry: the data set.
        folder: for the Parquet file.
        given: an archive or file that the user has, in place of a download.
        show: told how far the download is.

    Raises:
        InputError: anything that a person can mend: no such file at the server, a wrong checksum,
            an archive that is not what it should be, no room, a folder that cannot be written.
    """
    source, target = entry.source, folder / entry.path
    archive = given or folder / _DOWNLOADS / _file_name(source.url)
    if given is not None and not given.is_file():
        raise InputError(f"from={given}: there is no such file")
    with _told(folder):
        (folder / _DOWNLOADS).mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            _alone(folder / _DOWNLOADS / f"{_file_name(source.url)}.lock"),
            tempfile.TemporaryDirectory(
                prefix=f"{entry.name}-", dir=folder / _DOWNLOADS
            ) as scratch,
        ):
            if not archive.exists():
                download(source.url, archive, show)
            if given is None:
                _check(archive, source)
            made = Path(scratch) / "prepared.parquet"
            try:
                incomplete = _convert(entry, archive, Path(scratch), made)
            except InputError as error:
                if given is not None or source.checksum is not None:
                    raise
                # Nothing else tells a page or half a file from the data: it must not be kept.
                archive.unlink()
                raise InputError(
                    f"{error}; it was removed, and the same command fetches it anew"
                ) from error
            counts = count(made)
            record = {
                "name": entry.name,
                "from": source.url if given is None else given.name,
                "bytes": archive.stat().st_size,
                "sha256": _hash(archive, "sha256"),
                "preparation": source.preparation,
                "licence": source.licence,
                "citation": source.citation,
            }
            text = json.dumps(record, indent=2) + "\n"
            (Path(scratch) / "source.json").write_text(text, encoding="utf-8")
            (Path(scratch) / "source.json").replace(target.with_suffix(".source.json"))
            made.replace(target)
    return Fetched(
        target, archive if given is None else None, str(record["sha256"]), counts, incomplete
    )


def count(path: Path) -> Counts:
    """How large a converted data set is."""
    table = pl.scan_parquet(path, glob=False).select(
        pl.col("user_id").n_unique().alias("users"),
        pl.col("item_id").n_unique().alias("items"),
        pl.len().alias("interactions"),
    )
    return Counts(**{name: int(n) for name, n in table.collect().row(0, named=True).items()})


def _file_name(url: str) -> str:
    """What a download is called: the end of its URL, after what tells equal ends apart."""
    own = hashlib.sha256(url.encode()).hexdigest()[:8]
    return f"{own}-{PurePosixPath(urlsplit(url).path).name}"


def _check(archive: Path, source: Source) -> None:
    if source.checksum is None:
        return
    kind, _, wanted = source.checksum.partition(":")
    found = _hash(archive, kind)
    if found != wanted:
        archive.unlink()
        raise InputError(
            f"{source.url}: what came has the {kind} {found} and should have {wanted}; it was "
            "removed. Fetch it again; where the owners published another version, download it "
            "yourself and give it as from=FILE"
        )


def _hash(path: Path, kind: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def _convert(entry: Entry, archive: Path, scratch: Path, to: Path) -> int:
    """Writes the prepared Parquet file and says how many rows were incomplete."""
    source, raw = entry.source, scratch / "raw.parquet"
    assert source.reader is not None  # judged before anything was downloaded
    plain = unpacked(archive, source.member, scratch)
    try:
        source.reader.scan(plain).sink_parquet(raw, compression="zstd")
        if plain != archive:
            plain.unlink()  # the largest of all
        table = pl.scan_parquet(raw, glob=False)
        whole = table.drop_nulls(_needed(table))
        rows, complete = (
            int(part.select(pl.len()).collect(engine="streaming").item()) for part in (table, whole)
        )
        source.prepare.run(whole, to)
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        # Polars hands on what the file system refuses as text, inside errors of its own.
        refused = re.search(r"\(os error (\d+)\)", str(error))
        if refused is not None:
            raise OSError(int(refused[1]), os.strerror(int(refused[1]))) from error
        raise InputError(
            f"{archive} is not laid out as {entry.name} is: {str(error).strip().splitlines()[0]}"
        ) from error
    if count(to).interactions == 0:
        raise InputError(
            f"{archive}: nothing is left of its {rows:,} rows after the preparation "
            f"({source.preparation}): is it the whole data set?"
        )
    return rows - complete


def _needed(table: pl.LazyFrame) -> list[str]:
    """The columns without which a row says nothing."""
    there = table.collect_schema()
    return [name for name in ("user_id", "item_id", "timestamp") if name in there]


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Two commands would write into one partial file."""
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout as error:
        raise InputError(f"another negrec data fetch is at work ({lock}): wait for it") from error


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What the file system refuses, in one line."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise InputError(
                f"there is no room left in {folder}: make some, or choose another folder with "
                "paths.data_dir=FOLDER; what was downloaded is kept, and the same command goes on"
            ) from error
        raise InputError(
            f"{error.filename or folder} cannot be used ({error.strerror}): choose another folder "
            "with paths.data_dir=FOLDER"
        ) from error
