"""Small models of every kind that conf/model names, with weights that matter."""

from __future__ import annotations

from pathlib import Path

import torch
from hydra.utils import instantiate

from negrec.commandline import configuration
from negrec.models.base import SequenceModel
from negrec.types import Batch, DatasetInfo, Jagged
from tests import toy

L = 8
HISTORIES = [[3], [1, 2, 3], [7, 7, 4, 19], [20, 1, 5, 6, 12, 13, 14, 2]]
USERS = [0, -1, 3, 49]
MODELS = sorted(file.stem for file in (configuration.conf_dir() / "model").glob("*.yaml"))
NO_ENCODER = ["item_knn", "markov", "mf", "popularity", "repeat_last"]
ENCODERS = [name for name in MODELS if name not in NO_ENCODER]


def info(train: bool = True) -> DatasetInfo:
    """Facts of 50 users and 20 items, with histories or without."""
    facts = toy.info(max_length=L)
    rows = toy.random_histories(50, 20, 12) if train else [[] for _ in range(50)]
    values = torch.tensor([item for row in rows for item in row], dtype=torch.int64)
    lengths = torch.tensor([0, *(len(row) for row in rows)])
    return DatasetInfo(
        facts.n_users, facts.n_items, L, facts.counts, Jagged(values, lengths.cumsum(0))
    )


def build(name: str, facts: DatasetInfo, *words: str) -> SequenceModel:
    """A model of conf/model, all its parameters large enough to tell items apart."""
    with configuration.opened():
        cfg = configuration.composed([f"model={name}", *words])
    torch.manual_seed(0)
    model: SequenceModel = instantiate(cfg.model)(facts)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def batch(histories: list[list[int]], users: list[int]) -> Batch:
    """Histories as the evaluation hands them to a model."""
    rows = toy.jagged(histories)
    none = rows.values[:0]
    position = torch.cat([torch.arange(len(history)) for history in histories])
    return Batch(torch.tensor(users), rows.values, position, rows.offsets, none, none)


def padded(histories: list[list[int]], width: int) -> torch.Tensor:
    """Histories as a table with zeros behind."""
    return torch.tensor([history + [0] * (width - len(history)) for history in histories])


def written(folder: Path) -> set[str]:
    """Everything below a folder, for tests that want nothing there."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
