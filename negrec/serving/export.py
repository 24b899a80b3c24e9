"""A trained model for use without negrec: its encoder, the item vectors, and the ids."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export

import negrec
from negrec.errors import InputError
from negrec.models.base import SequenceModel
from negrec.models.layers import UserVectors
from negrec.scoring import HistoryScorer
from negrec.serving.bundle import Bundle
from negrec.serving.dense import from_padded
from negrec.types import Batch

Format = Literal["torch", "onnx"]

FILES: dict[Format, str] = {"torch": "encoder.pt2", "onnx": "encoder.onnx"}
VECTORS = "item_vectors.safetensors"
_RTOL = 1e-4  # float32 sums in another order differ by some 1e-6


class Encoder(nn.Module):
    """Histories as a padded table to queries: what is exported of a model.

    Args:
        model: reads histories.
    """

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, items: Tensor, user: Tensor | None = None) -> Tensor:
        """The queries, (B, D).

        Args:
            items: rows of ``items.parquet``, oldest first, then zeros, (B, L).
            user: rows of ``users.parquet``, -1 for somebody else, (B,).
        """
        queries = self.model.represent(from_padded(items, user))
        nobody = self.model.scorer.nobody(items.shape[0])
        return torch.where((items != 0).any(1)[:, None], queries, nobody)


@dataclass(frozen=True)
class Traced:
    """An encoder as a graph.

    Attributes:
        program: the graph.
        shortest: how many columns its input has at the least; 1, or as many as at the most.
        with_users: it also takes users.
    """

    program: ExportedProgram
    shortest: int
    with_users: bool


def refuse(model: SequenceModel) -> None:
    """Refuses models that have no encoder of histories or no item vectors.

    Raises:
        InputError: naming the reason and what to do.
    """
    name = type(model).__name__
    instead = "use format=mlflow, which holds the whole model"
    if isinstance(model.scorer, HistoryScorer):
        raise InputError(
            f"{name} compares items with items: there are no item vectors to export; {instead}"
        )
    if not model.reads:
        raise InputError(
            f"{name} knows users and reads no history: there is no encoder to export; {instead}"
        )


def trace(model: SequenceModel, max_length: int) -> Traced:
    """The graph of a model's encoder.

    Args:
        model: with item vectors, see ``refuse``; on the CPU, not in training.
        max_length: the longest history that it reads, in items.

    Raises:
        InputError: it does something that torch.export cannot follow, or reads padding.
    """
    with_users = any(isinstance(module, UserVectors) for module in model.modules())
    _agree(model, max_length)
    # Neither 0 nor 1 anywhere: torch.export takes those sizes for fixed ones.
    items = torch.arange(1, max_length + 1).clamp(max=model.scorer.n_items).repeat(3, 1)
    inputs = (items, torch.full((3,), -1)) if with_users else (items,)
    batch = Dim("batch", min=1)
    # A loop over time, as in a recurrent network, is of one length.
    lengths: list[tuple[int, Dim | None]] = [(max_length, None)]
    if max_length > 1:
        lengths.insert(0, (1, Dim("length", min=1, max=max_length)))
    for shortest, length in lengths:
        sizes = ({0: batch, 1: length}, {0: batch})[: len(inputs)]
        try:
            with torch.no_grad(), _quietly():
                program = export(Encoder(model).eval(), inputs, dynamic_shapes=sizes)
            return Traced(program, shortest, with_users)
        except Exception as error:  # torch.export raises anything
            failure = error
    raise InputError(
        f"{type(model).__name__} cannot be traced by torch.export "
        f"({type(failure).__name__}: {str(failure).splitlines()[0]}): use format=mlflow, which "
        "holds the whole model"
    ) from failure


def _agree(model: SequenceModel, max_length: int) -> None:
    """Holds the states of padded histories against those of the same histories without padding.

    A model of somebody's own may reach for ``batch.offsets`` and then read the padding.

    Raises:
        InputError: they differ.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = torch.arange(max_length) + 1
    shape = (max_length, max_length)
    items = torch.randint(1, model.scorer.n_items + 1, shape, generator=generator)
    valid = torch.arange(max_length) < lengths[:, None]
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    position = torch.arange(max_length).expand(shape)[valid]
    nobody, none = lengths.new_full((max_length,), -1), lengths[:0]
    batch = Batch(nobody, items[valid], position, offsets, none, none)
    with torch.no_grad():
        want = model.represent(batch)
        got = model.represent(from_padded(items * valid))
    if not torch.allclose(got, want, rtol=_RTOL, atol=_RTOL * float(want.abs().amax())):
        raise InputError(
            f"{type(model).__name__} cannot be exported: its states change when zeros stand behind "
            "a history, as they do where it reads batch.offsets (batch.last, batch.before and "
            "batch.rows know of padding); use format=mlflow, which holds the whole model"
        )


def write(model: SequenceModel, bundle: Bundle, format_: Format, folder: Path) -> None:
    """Writes the encoder, the item vectors, the ids and how to use them.

    Args:
        model: on the CPU, not in training.
        bundle: its tables.
        format_: of the encoder.
        folder: exists, and is empty.

    Raises:
        InputError: the model cannot be exported.
    """
    refuse(model)
    traced = trace(model, bundle.max_length)
    _save(traced, format_, folder / FILES[format_])
    matrix = model.scorer.matrix.detach().float().contiguous()
    (folder / VECTORS).write_bytes(save({"item_vectors": matrix}))
    bundle.items.with_columns(row=bundle.items["item"] - 1).write_parquet(folder / "items.parquet")
    if traced.with_users:
        bundle.users.write_parquet(folder / "users.parquet")
    about = _about(model, bundle, traced, format_)
    (folder / "export.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_readme(about, format_), encoding="utf-8")


def _save(traced: Traced, format_: Format, path: Path) -> None:
    with _quietly():
        if format_ == "torch":
            torch.export.save(traced.program, path)
            return
        try:
            import onnxscript  # noqa: F401  # what torch.onnx translates with
        except ImportError as error:
            raise InputError("format=onnx needs: pip install 'negrec[onnx]'") from error
        names = ["items", "user"] if traced.with_users else ["items"]
        with torch.no_grad():
            program = torch.onnx.export(
                traced.program,
                dynamo=True,
                verbose=False,
                input_names=names,
                output_names=["query"],
            )
        assert program is not None
        program.save(path)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what torch tells its own developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _about(model: SequenceModel, bundle: Bundle, traced: Traced, format_: Format) -> dict[str, Any]:
    scorer = model.scorer
    inputs = {
        "items": {
            "type": "int64",
            "shape": ["batch", "length"],
            "length": [traced.shortest, bundle.max_length],
            "meaning": "column item of items.parquet, oldest first; 0 behind the newest",
        }
    }
    if traced.with_users:
        inputs["user"] = {
            "type": "int64",
            "shape": ["batch"],
            "meaning": "column user of users.parquet; -1 for somebody else",
        }
    return {
        "negrec": bundle.version,
        "run_id": bundle.run_id,
        "model": type(model).__name__,
        "settings": dict(bundle.settings),
        "encoder": {
            "file": FILES[format_],
            "format": format_,
            "inputs": inputs,
            "output": {"type": "float32", "shape": ["batch", scorer.width]},
        },
        "item_vectors": {
            "file": VECTORS,
            "tensor": "item_vectors",
            "type": "float32",
            "shape": [scorer.n_items, scorer.width],
            "score": "dot product of the encoder's output and an item's vector",
        },
        "seen": bundle.seen,
    }


_LOADED: dict[Format, tuple[str, str, str]] = {
    "torch": (
        "import polars as pl, torch",
        """\
encoder = torch.export.load("encoder.pt2").module()  # unpickles: only files that you trust
""",
        "encoder(torch.from_numpy(items){user}).detach().numpy()",
    ),
    "onnx": (
        "import onnxruntime, polars as pl",
        """\
encoder = onnxruntime.InferenceSession("encoder.onnx")
""",
        'encoder.run(None, {{"items": items{user}}})[0]',
    ),
}
_USER: dict[Format, str] = {
    "torch": ", torch.tensor([-1])",
    "onnx": ', "user": np.array([-1])',
}


def _readme(about: dict[str, Any], format_: Format) -> str:
    imports, load, call = _LOADED[format_]
    user = _USER[format_] if "user" in about["encoder"]["inputs"] else ""
    shortest, longest = about["encoder"]["inputs"]["items"]["length"]
    n_items, width = about["item_vectors"]["shape"]
    lengths = f"exactly {longest}" if shortest == longest else f"{shortest} to {longest}"
    seen = "scores[[row[i] for i in history if i in row]] = -np.inf  # nothing twice\n"
    users = (
        """
* `user` (batch,) int64: column `user` of `users.parquet`, -1 for somebody else
"""
        if user
        else ""
    )
    return f"""\
# {about["model"]} of run {about["run_id"]}, exported by negrec {negrec.__version__}

* `{about["encoder"]["file"]}`: histories to queries. Inputs: `items` (batch, length) int64, the
  column `item` of `items.parquet`, oldest first, 0 behind the newest; length {lengths}, the newest
  {longest} items of longer histories.{users} Output: (batch, {width}) float32.
  Of a row of zeros nothing is known: recommend by `count`.
* `{VECTORS}`: `item_vectors` ({n_items}, {width}) float32. A score is the dot product of a query
  and a vector; cosine, biases and temperature are in the numbers already. An index for nearest
  neighbours by inner product takes them as they are.
* `items.parquet`: `row` of `item_vectors` (from 0), `item` for the encoder (row + 1), your own
  `id`, and `count`, how often it occurs in training.
* `export.json`: the same for programs.

```python
import numpy as np
{imports}
from safetensors.numpy import load_file

{load}\
vectors = load_file("{VECTORS}")["item_vectors"]
ids = pl.read_parquet("items.parquet")["id"].to_list()
row = {{id: place for place, id in enumerate(ids)}}

history = ids[:3]  # yours: the user's items, oldest first
known = [row[i] + 1 for i in history if i in row][-{longest}:]
items = np.array([known + [0] * ({longest} - len(known))])
scores = vectors @ {call.format(user=user)}[0]
{seen if about["seen"] == "filter" else ""}\
best = np.argsort(-scores, kind="stable")[:10]
print([(ids[i], round(float(scores[i]), 4)) for i in best])
```
"""
