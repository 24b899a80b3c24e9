"""A trained model in a folder: numbers, tables and the command it came from, and no code."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

import negrec
from negrec.errors import InputError
from negrec.types import DatasetInfo, Jagged

Seen = Literal["filter", "keep"]

_FORMAT = 1
_WIDE = (pl.UInt64, pl.Int128, pl.UInt128)  # beyond MLflow's "long"
_ABOUT, _WEIGHTS, _ITEMS, _USERS = (
    "bundle.json",
    "weights.safetensors",
    "items.parquet",
    "users.parquet",
)


class UnwritableError(Exception):
    """A bundle cannot be written: a full disk, or a model that cannot be saved."""


@dataclass(frozen=True)
class Bundle:
    """All that makes a trained model again, beside the configuration files.

    Attributes:
        version: of the negrec that wrote it.
        run_id: the run that it comes from.
        overrides: what was typed, from which the model's configuration is composed again.
        settings: the resolved settings of the model and ``max_length`` by dotted key. They are
            compared with what is composed and never built from.
        seen: what becomes of a history's items unless somebody says otherwise.
        items: ``item`` (catalogue id 1..V), ``id`` (the user's own), ``count`` in training, and
            ``name`` where there are names.
        users: ``user`` (index from 0) and ``id``.
        weights: the model's parameters and buffers.
    """

    version: str
    run_id: str
    overrides: Sequence[str]
    settings: Mapping[str, Any]
    seen: Seen
    items: pl.DataFrame
    users: pl.DataFrame
    weights: Mapping[str, Tensor]

    @property
    def max_length(self) -> int:
        """The longest history that the model reads, in items."""
        return int(self.settings["max_length"])

    @property
    def names(self) -> pl.Series | None:
        """Names of the items 1..V, where there are some."""
        return self.items["name"] if "name" in self.items.columns else None

    def example(self) -> list[int | str]:
        """The own ids of three items that are taken often."""
        ids = self.items.sort("count", descending=True, maintain_order=True)["id"].head(3)
        return ids.cast(said_as(ids)).to_list()

    def facts(self) -> DatasetInfo:
        """What a model is built with; histories are left out, see ``give_weights``."""
        n_users = len(self.users)
        nothing = torch.empty(0, dtype=torch.int64)
        return DatasetInfo(
            n_users,
            len(self.items),
            self.max_length,
            torch.from_numpy(self.items["count"].cast(pl.Int64).to_numpy(writable=True)),
            train=Jagged(nothing, torch.zeros(n_users + 1, dtype=torch.int64)),
        )

    def write(self, folder: Path) -> None:
        """Writes the folder, whole or not at all; one that is there is replaced.

        Raises:
            UnwritableError: saying why.
        """
        aside = folder.with_name(f"{folder.name}.tmp")
        about = {
            "format": _FORMAT,
            "negrec": self.version,
            "run_id": self.run_id,
            "overrides": list(self.overrides),
            "settings": dict(self.settings),
            "seen": self.seen,
            # For those who make an MLflow model of the folder; nobody else reads it.
            "asked": {
                "item": said_as(self.items["id"]).__name__,
                "user": said_as(self.users["id"]).__name__,
                "example": self.example(),
            },
        }
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            text = json.dumps(about, indent=1, default=str)
            (aside / _ABOUT).write_text(text + "\n", encoding="utf-8")
            # Cloned: safetensors refuses tensors that share memory, as tied parts do.
            weights = {name: t.detach().cpu().clone() for name, t in self.weights.items()}
            # Not by save_file, whose files only their owner may read: a server is somebody else.
            (aside / _WEIGHTS).write_bytes(save(weights))
            self.items.write_parquet(aside / _ITEMS)
            self.users.write_parquet(aside / _USERS)
            shutil.rmtree(folder, ignore_errors=True)
            aside.rename(folder)
        # safetensors says ValueError to a sparse tensor and KeyError to a rare type of number.
        except (OSError, ValueError, KeyError, SafetensorError, pl.exceptions.PolarsError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            raise UnwritableError(f"{folder}: {error}") from error

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Reads a folder.

        Raises:
            InputError: it holds no bundle, one of another format, or a damaged one.
        """
        try:
            about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
            if about["format"] != _FORMAT:
                raise InputError(
                    f"{folder} is of format {about['format']}, and this negrec "
                    f"({negrec.__version__}) reads {_FORMAT}: it was written by negrec "
                    f"{about['negrec']}, install that or export the run again"
                )
            found = cls(
                str(about["negrec"]),
                str(about["run_id"]),
                [str(word) for word in about["overrides"]],
                dict(about["settings"]),
                about["seen"],
                pl.read_parquet(folder / _ITEMS),
                pl.read_parquet(folder / _USERS),
                load_file(folder / _WEIGHTS),
            )
            _check(found)
        except InputError:
            raise
        except FileNotFoundError as error:
            raise InputError(f"{folder} holds no model: {error.filename or error}") from error
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"the model in {folder} is damaged: {_line(error)}") from error
        except pl.exceptions.PolarsError as error:
            raise InputError(f"the model in {folder} is damaged: {_line(error)}") from error
        return found


def _check(bundle: Bundle) -> None:
    if bundle.max_length < 1 or bundle.seen not in get_args(Seen):
        raise ValueError(f"max_length {bundle.max_length}, seen {bundle.seen}")
    for name, frame, first in (("item", bundle.items, 1), ("user", bundle.users, 0)):
        wanted = pl.Series(range(first, first + len(frame)))
        if not frame[name].cast(pl.Int64).equals(wanted) or frame["id"].has_nulls():
            raise ValueError(f"{name}s are not numbered from {first} on")
    if bundle.items["count"].has_nulls():
        raise ValueError("items without counts")


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def give_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Makes a model what it was when its weights were taken.

    Parameters must have the shapes they had. Buffers take the shapes they are given: what a model
    counted in training histories stands there, and it was built without any.

    Raises:
        InputError: the weights are another model's.
    """
    own = model.state_dict()
    parameters = dict(model.named_parameters())
    differs = [
        *(f"{name} is missing" for name in own if name not in weights),
        *(f"{name} is unknown" for name in weights if name not in own),
        *(
            f"{name} is {tuple(weights[name].shape)}, and must be {tuple(parameter.shape)}"
            for name, parameter in parameters.items()
            if name in weights and weights[name].shape != parameter.shape
        ),
        *(
            f"{name} is {weights[name].dtype}, and must be {tensor.dtype}"
            for name, tensor in own.items()
            if name in weights and weights[name].dtype != tensor.dtype
        ),
    ]
    if differs:
        more = f", and {len(differs) - 3} more" if len(differs) > 3 else ""
        raise InputError(f"these weights are another model's: {'; '.join(differs[:3])}{more}")
    for name in own.keys() - parameters.keys():
        parent, _, leaf = name.rpartition(".")
        model.get_submodule(parent).register_buffer(leaf, weights[name].clone())
    model.load_state_dict(dict(weights))


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved configuration, by dotted key, makes the model and how it is asked."""
    return {k: v for k, v in config.items() if k.startswith("model.") or k == "max_length"}


def said_as(ids: pl.Series) -> type[pl.Int64 | pl.String]:
    """The type in which people outside name ids: whole numbers that JSON keeps, or text."""
    return pl.Int64 if ids.dtype.is_integer() and ids.dtype not in _WIDE else pl.String
