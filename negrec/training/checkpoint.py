"""Checkpoints: atomic, verified, and safe to load (safetensors holds no code)."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from negrec.errors import InputError
from negrec.writing import replacing

log = logging.getLogger(__name__)

_WEIGHTS = ("model.", "objective.")  # what a best checkpoint holds

Record = dict[str, float | int | str | bool | dict[str, float] | None]


class DamagedError(Exception):
    """A checkpoint that is cut short or altered."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        tensors: by dotted name.
        record: counters and the like; JSON values.
    """

    tensors: dict[str, Tensor]
    record: Record

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors below a name, without it."""
        return {
            key.removeprefix(f"{name}."): value
            for key, value in self.tensors.items()
            if key.startswith(f"{name}.")
        }


def save(checkpoint: Checkpoint, path: Path) -> None:
    """Writes a file that is either the old one or the new one, whenever the process dies."""
    # Cloned: safetensors refuses tensors that share memory, as tied parts do.
    tensors = {name: t.detach().cpu().clone() for name, t in checkpoint.tensors.items()}
    record = json.dumps(checkpoint.record, sort_keys=True)
    metadata = {"record": record, "digest": _digest(tensors, record)}
    with replacing(path, SafetensorError) as temporary:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint.

    Raises:
        DamagedError: the file is not what was written.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise DamagedError(f"{path}: {error}") from error
    record = metadata.get("record", "")
    if metadata.get("digest") != _digest(tensors, record):
        raise DamagedError(f"{path}: its contents do not match its digest")
    return Checkpoint(tensors, json.loads(record))


def _digest(tensors: dict[str, Tensor], record: str) -> str:
    digest = hashlib.blake2b(record.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


class Checkpoints:
    """The checkpoints of a run: the last, the one before it, and the best.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def last(self) -> Path:
        return self.folder / "last.safetensors"

    @property
    def previous(self) -> Path:
        return self.folder / "previous.safetensors"

    @property
    def best(self) -> Path:
        return self.folder / "best.safetensors"

    @property
    def begun(self) -> bool:
        """Whether there is something to go on from."""
        return any(path.exists() for path in self._newest)

    def save_last(self, checkpoint: Checkpoint) -> None:
        """Keeps the one before, should this one turn out damaged."""
        fresh = self.folder / "fresh.safetensors"
        save(checkpoint, fresh)
        if self.last.exists():
            self.last.replace(self.previous)
        fresh.replace(self.last)

    @property
    def _newest(self) -> list[Path]:
        # Between the two renames of `save_last` only `previous` and `fresh` exist.
        return [self.last, self.folder / "fresh.safetensors", self.previous]

    def load_last(self) -> Checkpoint | None:
        """The newest checkpoint that is whole; None before the first.

        Newer ones are renamed: the next `save_last` must not put one in the place of a whole one.
        """
        existing = [path for path in self._newest if path.exists()]
        damaged = []
        for path in existing:
            try:
                found = load(path)
            except DamagedError as error:
                log.warning("checkpoint is damaged and left aside: %s", error)
                damaged.append(path)
                continue
            for left in damaged:
                left.replace(left.with_suffix(".damaged"))
            return found
        if existing:
            raise InputError(f"every checkpoint in {self.folder} is damaged: start the run anew")
        return None

    def load_best(self, epoch: int) -> Checkpoint:
        """The best checkpoint; where it is damaged, another one of the same weights.

        Args:
            epoch: the best one, from 0.

        Raises:
            InputError: there is no other.
        """
        try:
            return load(self.best)
        except DamagedError as error:
            for path in self._newest:
                with suppress(DamagedError):
                    found = load(path)
                    # Saved at an epoch's end, it stands at the beginning of the next one.
                    if (found.record["epoch"], found.record["step"]) == (epoch + 1, 0):
                        log.warning("the best checkpoint is damaged: made anew from %s", path)
                        kept = {k: t for k, t in found.tensors.items() if k.startswith(_WEIGHTS)}
                        save(Checkpoint(kept, found.record), self.best)
                        return found
            raise InputError(
                f"the best checkpoint is damaged ({error}): start the run anew"
            ) from error
