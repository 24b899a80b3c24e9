"""Any data with any configuration: a run whose results are sound, or a refusal in one line."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import event, note
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from torch.testing import assert_close

from negrec import experiment
from negrec.commandline import explain
from negrec.training.checkpoint import Checkpoints, load
from tests.fuzz.configurations import choices, composed, settings
from tests.fuzz.examples import few, many
from tests.fuzz.tables import Table, tables

COHORTS = ("head", "mid", "tail")
ENDED: Counter[str] = Counter()


@few(20, data=st.data(), table=tables(sound=True), chosen=choices(), twice=st.booleans())
def run_some(data, table, chosen, twice):
    holds(data, table, chosen, twice)


@many(500, data=st.data(), table=tables(sound=True), chosen=choices(), twice=st.booleans())
def run_many(data, table, chosen, twice):
    holds(data, table, chosen, twice)


def test_some_runs():
    run_some()
    assert ENDED["results"] >= 8, ENDED  # a fuzz that is always refused tests nothing


@pytest.mark.long
def test_many_runs():
    ENDED.clear()
    run_many()
    assert ENDED["results"] >= 200, ENDED


def holds(data: st.DataObject, table: Table, chosen: tuple[str, ...], twice: bool) -> None:
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        cfg = configured(data, table, chosen, folder)
        first = ended(cfg, folder / "run")
        ENDED["results" if first else "refused"] += 1
        event("results" if first else "refused")
        if not first:
            return
        sound(table, cfg, folder / "run")
        if twice:
            assert ended(cfg, folder / "again")
            equal(folder / "run", folder / "again")


def configured(
    data: st.DataObject, table: Table, chosen: tuple[str, ...], folder: Path
) -> DictConfig:
    """The configuration for a table that is written into a folder."""
    cfg = composed(chosen).copy()
    values = data.draw(settings(cfg))
    values |= {
        "dataset.path": str(table.write(folder)),
        "dataset.columns": {
            "_target_": "negrec.data.columns.Columns",
            **{role: table.names.get(role) for role in ("user", "item", "timestamp", "position")},
            "rating": None,
        },
        "paths.cache_dir": str(folder / "cache"),
        "paths.runs_dir": str(folder),
    }
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, merge=False, force_add=True)
    return cfg


def ended(cfg: DictConfig, folder: Path) -> bool:
    """Whether the run came to its end; otherwise it was refused in one line."""
    folder.mkdir()
    try:
        experiment.run(cfg, folder, [])
    except Exception as error:
        line = explain.inside_a_job(error)
        if line is None:
            raise
    else:
        return True
    note(f"refused: {line}")
    assert "\n" not in line
    assert len(line) > 10
    return False


def sound(table: Table, cfg: DictConfig, folder: Path) -> None:
    """The results hang together, and with the table."""
    items = pl.read_parquet(folder / "items.parquet")
    users = pl.read_parquet(folder / "users.parquet")
    assert set(users["id"]) == set(table.ids("user"))
    assert set(items["id"]) <= set(table.ids("item"))
    assert items["item"].to_list() == list(range(1, len(items) + 1))
    metrics = json.loads((folder / "results.json").read_text())["metrics"]
    for name, value in metrics.items():
        assert value is not None or unknowable(name, metrics), name
    if cfg.trainer.metric is None:
        return
    ranks = pl.read_parquet(folder / "ranks.parquet")
    n = len(items) if cfg.evaluation.sampled is None else cfg.evaluation.sampled + 1
    assert ranks["target"].is_between(0, len(items)).all()
    inside = ranks.filter(pl.col("target") > 0)
    assert (inside["greater"] >= 0).all()
    assert (inside["ties"] >= 0).all()
    assert (inside["greater"] + inside["ties"] + 1 <= n).all()  # ranked in 1..V
    assert metrics["test/n"] == len(ranks)
    for name, value in metrics.items():
        if value is not None and name.startswith("test/") and "/hr_" in name:
            assert 0 <= value <= 1


def unknowable(name: str, metrics: dict[str, Any]) -> bool:
    """Whether a value is documented not to be a number."""
    room, _, what = name.partition("/")
    if name == "best/value":
        return "test/n" not in metrics or metrics["best/epoch"] < 0
    if what.startswith("balance_"):
        rates = [metrics[f"{room}/{what.replace('balance', 'hr')}_{c}"] for c in COHORTS]
        return None in rates or not any(rates)
    group = what.rpartition("_")[2]
    return metrics.get(f"{room}/n_{group}") == 0


def equal(one: Path, other: Path) -> None:
    """Two runs of one seed are the same to the last bit."""
    first, second = (json.loads((f / "results.json").read_text())["metrics"] for f in (one, other))
    measured = [name for name in first if not name.startswith("cost/")]
    assert {n: first[n] for n in measured} == {n: second[n] for n in measured}
    best = [Checkpoints(folder / "checkpoint").best for folder in (one, other)]
    assert best[0].exists() == best[1].exists()
    if best[0].exists():
        weights = [load(path).tensors for path in best]
        assert weights[0].keys() == weights[1].keys()
        for name, tensor in weights[0].items():
            # A buffer may be NaN until something is measured.
            assert_close(tensor, weights[1][name], rtol=0, atol=0, equal_nan=True)


def test_what_may_be_no_number():
    rates = {f"test/hr_10_{cohort}": 0.0 for cohort in COHORTS}
    assert unknowable("test/balance_10", rates)
    assert not unknowable("test/balance_10", {**rates, "test/hr_10_mid": math.pi / 10})
    assert not unknowable("test/ndcg_10", {"test/n": 5.0})
    assert unknowable("test/ndcg_10_tail", {"test/n_tail": 0.0})
