"""Prepared interactions on disk, found again by what they were made from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import polars as pl
from filelock import FileLock

from negrec.data.interactions import Cleaning, Counts, Interactions
from negrec.data.readers.base import files
from negrec.errors import InputError

log = logging.getLogger(__name__)

VERSION = 3  # goes up when the files or what preparation does to a table changes
DIGESTS = "digests"  # folder within the cache's: see ``key``
_MANIFEST = "manifest.json"
_SETTLED = 2.0  # seconds; all file systems tell times apart that are this far from each other


def key(source: Path, preparation: object, known: Path | None = None) -> str:
    """What a cache entry is found by: the content of the file and what is done to it.

    Args:
        source: the file, or the folder of files.
        preparation: all settings that the result depends on; its ``repr`` is taken.
        known: folder of the digests of files that were read before; None: all are read.
    """
    digest = hashlib.blake2b(repr((VERSION, preparation)).encode(), digest_size=16)
    for file in files(source):
        if source.is_dir():  # its folders may say something, and so does the order
            digest.update(repr(file.relative_to(source).as_posix()).encode())
        digest.update(_remembered(file, known).encode())
    return digest.hexdigest()


def _remembered(file: Path, known: Path | None) -> str:
    """The digest of a file, which is not read again while it is as it was.

    Reading 20 million interactions and their source takes a second or two, at each start.
    Whatever writes to a file moves its inode's time of change, which nobody can set back.
    """
    if known is None:
        return _digest(file)
    note = known / hashlib.blake2b(str(file.resolve()).encode(), digest_size=16).hexdigest()
    before, now = _state(file), time.time()
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        if noted["state"] == before:
            return str(noted["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # never read before, or a note that somebody damaged
    digest = _digest(file)
    # A file that was written just now may be written again within one tick of its clock.
    if _state(file) == before and abs(now - file.stat().st_ctime) > _SETTLED:
        with contextlib.suppress(OSError):  # another's cache: it goes without
            known.mkdir(parents=True, exist_ok=True)
            part = note.with_name(f"{note.name}.part-{secrets.token_hex(4)}")
            part.write_text(json.dumps({"state": before, "digest": digest}), encoding="utf-8")
            part.replace(note)
    return digest


def _state(file: Path) -> list[int]:
    """What changes when a file does."""
    found = file.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def cached(folder: Path, key: str, build: Callable[[], Interactions]) -> Interactions:
    """What ``build`` makes, from the cache where it lies there whole, else built and put there.

    Of several processes that ask at once one builds and the others wait. An entry is complete or
    absent: it is written aside and renamed. One that was cut short or altered is built anew.

    Args:
        folder: of all entries; made where it is missing.
        key: the entry's.
        build: makes the interactions.

    Raises:
        InputError: the folder cannot be written.
    """
    entry = folder / key
    found = _read(entry)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            found = _read(entry)
            if found is not None:
                return found
            for left in folder.glob(f"{key}.part-*"):  # of a process that was killed
                shutil.rmtree(left)
            built = build()
            _write(entry, built)
    except OSError as error:
        raise InputError(
            f"the cache folder {folder} cannot be written ({error.strerror or error}): choose "
            "another with paths.cache_dir=FOLDER or the variable NEGREC_CACHE_DIR"
        ) from error
    # What was read back is mapped, so that its memory is shared by all processes.
    return _read(entry) or built


def _write(entry: Path, data: Interactions) -> None:
    part = entry.with_name(f"{entry.name}.part-{secrets.token_hex(4)}")
    part.mkdir()
    arrays = {"user": data.user, "item": data.item, "timestamp": data.timestamp}
    for name, values in arrays.items():
        if values is not None:
            np.save(part / f"{name}.npy", values)
    for name, ids in (("users", data.user_ids), ("items", data.item_ids)):
        ids.rename("id").to_frame().write_parquet(part / f"{name}.parquet")
    manifest = {
        "name": data.name,
        "hash": data.hash,
        "cleaning": asdict(data.cleaning),
        "files": {
            file.name: {"bytes": file.stat().st_size, "blake2b": _digest(file)}
            for file in sorted(part.iterdir())
        },
    }
    (part / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for file in part.iterdir():  # on disk before the name is
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    if entry.exists():  # damaged; moved first, so that no reader meets a half-deleted one
        damaged = entry.with_name(f"{entry.name}.part-{secrets.token_hex(4)}")
        entry.rename(damaged)
        shutil.rmtree(damaged)
    part.rename(entry)


def _read(entry: Path) -> Interactions | None:
    """The entry, or None where it is missing or not as it was written."""
    if not entry.exists():
        return None
    try:
        manifest = json.loads((entry / _MANIFEST).read_text(encoding="utf-8"))
        for name, written in manifest["files"].items():
            file = entry / name
            size, digest = file.stat().st_size, written["blake2b"]
            if size != written["bytes"] or _remembered(file, entry.parent / DIGESTS) != digest:
                log.warning("the cache file %s is damaged: it is built anew", file)
                return None
        cleaning = Cleaning(**manifest["cleaning"])
        timestamp = entry / "timestamp.npy"
        return Interactions(
            manifest["name"],
            np.load(entry / "user.npy", mmap_mode="r"),
            np.load(entry / "item.npy", mmap_mode="r"),
            np.load(timestamp, mmap_mode="r") if timestamp.exists() else None,
            pl.read_parquet(entry / "users.parquet")["id"],
            pl.read_parquet(entry / "items.parquet")["id"],
            manifest["hash"],
            replace(cleaning, read=Counts(**manifest["cleaning"]["read"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("the cache entry %s is damaged (%s): it is built anew", entry, error)
        return None


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "blake2b").hexdigest()
