"""Run folders as `negrec train` leaves them, without training: for tests of what reads runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

CONFIG: Mapping[str, object] = {
    "trainer._target_": "negrec.training.trainer.Trainer",
    "trainer.max_epochs": 20,
    "trainer.metric": "ndcg_10",
    "trainer.optimizer.lr": 0.001,
    "trainer.device": "auto",
    "trainer.threads": 1,
    "evaluation._target_": "negrec.evaluation.evaluator.Evaluator",
    "evaluation.cutoffs": [5, 10],
    "evaluation.seen": "filter",
    "evaluation.batch_size": 512,
    "evaluation.sampled": None,
    "dataset._target_": "negrec.data.tables.load",
    "split._target_": "negrec.data.splits.leave_one_out.LeaveOneOut",
    "split.seed": 0,
    "loss._target_": "negrec.losses.bce.BCE",
    "model._target_": "negrec.models.sasrec.SASRec",
    "model.dim": 64,
    "max_length": 50,
}
COHORTS = ("", "_head", "_mid", "_tail")


def write(
    folder: Path,
    *,
    run_id: str | None = None,
    sampler: str = "uniform",
    loss: str = "bce",
    dataset: str = "beauty",
    split: str = "leave_one_out",
    seed: int = 0,
    k: int | None = 1,
    valid: float = 0.03,
    test: float | Mapping[str, float] = 0.03,
    popularity: float = 0.01,
    oracle: float | None = None,
    epochs: int = 4,
    best_epoch: int = 3,
    epoch_seconds: float = 2.0,
    status: str = "FINISHED",
    data_hash: str = "d0",
    split_hash: str = "s0",
    trials: int = 0,
    written: float | None = None,
    targets: int = 60,
    config: Mapping[str, object] | None = None,
    choices: Mapping[str, str] | None = None,
    epoch_metrics: Mapping[str, float] | None = None,
) -> Path:
    """Writes a run folder and returns it.

    Args:
        folder: of the run.
        run_id: its id; by default made of the folder's name.
        valid: the best validation value, reached at ``best_epoch``.
        test: hr_10 on test, of which the other metrics are made; or some of them by name.
        popularity: hr_10 of the popularity ranker.
        epoch_seconds: of training; validation takes half a second more.
        written: when the results were written, seconds since 1970.
        targets: of the test.
        config, choices: more of them.
        epoch_metrics: logged in every epoch, such as {"diag/hardness": 0.5}.
    """
    folder.mkdir(parents=True, exist_ok=True)
    run_id = run_id or folder.name
    full = {
        **CONFIG,
        "dataset.name": dataset,
        "trainer.max_epochs": epochs,
        "sampler._target_": f"negrec.samplers.{sampler}.{sampler.title()}",
        "seed": seed,
        **({} if k is None else {"k": k, "sampler.k": k}),
        **(config or {}),
    }
    options = {"sampler": sampler, "loss": loss, "dataset": dataset, "split": split}
    options |= {"model": "sasrec", "sampler/false_negatives": "none", "experiment": "None"}
    record: dict[str, Any] = {
        "run_id": run_id,
        "overrides": [f"sampler={sampler}", f"dataset={dataset}", f"seed={seed}"],
        "config": full,
        "config_hash": "c0",
        "data_hash": data_hash,
        "split_hash": split_hash,
        "key": f"key-{run_id}",
        "version": "0.1.0",
        "git_commit": "abcdef0123456789",
        "hardware": "cpu (x86_64), 1 of 2 CPU threads",
        "trials": trials,
        "sweep": folder.parent.name,
        "choices": options | dict(choices or {}),
        "status": status,
    }
    (folder / "run.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    _write_events(folder, epochs, best_epoch, valid, epoch_seconds, epoch_metrics or {})
    if status != "FINISHED":
        return folder
    metrics = _metrics("test", test, targets)
    metrics |= _metrics("popularity", {"hr_10": popularity, "hr_10_mid": 0, "hr_10_tail": 0})
    if oracle is not None:
        metrics |= _metrics("oracle", oracle)
    seconds = epochs * (epoch_seconds + 0.5)
    metrics |= {
        "cost/peak_mb": 900.0,
        "cost/seconds": seconds,
        "cost/seconds_to_best": best_epoch * (epoch_seconds + 0.5),
        "best/epoch": best_epoch - 1.0,
        "best/value": valid,
    }
    results = {
        "run_id": run_id,
        "epochs": epochs,
        "best_epoch": best_epoch,
        "converged": best_epoch < epochs or not epochs,
        "metrics": metrics,
    }
    path = folder / "results.json"
    path.write_text(json.dumps(results, indent=1), encoding="utf-8")
    if written is not None:
        import os

        os.utime(path, (written, written))
    _write_ranks(folder, metrics["test/hr_10"] or 0.0, targets, seed)
    return folder


def _metrics(
    prefix: str, values: float | Mapping[str, float], targets: int = 60
) -> dict[str, float | None]:
    """All metrics, from the hit rate at 10 where they are not given."""
    given = dict(values) if isinstance(values, Mapping) else {"hr_10": values}
    hr = given.get("hr_10", 0.0)
    by_cohort = {"": 1.0, "_head": 2.0, "_mid": 0.7, "_tail": 0.3}
    found: dict[str, float | None] = {}
    for suffix, factor in by_cohort.items():
        rate = given.get(f"hr_10{suffix}", factor * hr)
        found |= {f"hr_10{suffix}": rate, f"hr_5{suffix}": 0.6 * rate}
        found |= {f"ndcg_10{suffix}": rate / 2, f"ndcg_5{suffix}": 0.4 * rate}
        found |= {f"mrr{suffix}": 0.4 * rate, f"n{suffix}": targets / (3 if suffix else 1)}
    rates = np.array([found[f"hr_10_{name}"] or 0.0 for name in ("head", "mid", "tail")])
    total = rates.sum()
    gaps = np.abs(rates[:, None] - rates).sum()
    balance = None if total == 0 else 1 - gaps / (6 * total)
    found |= {"balance_10": balance, "balance_5": balance, "n_cold": 0.0, "coverage_10": 0.2}
    return {f"{prefix}/{name}": value for name, value in (found | given).items()}


def _write_events(
    folder: Path,
    epochs: int,
    best_epoch: int,
    valid: float,
    seconds: float,
    more: Mapping[str, float],
) -> None:
    def line(kind: str, values: Mapping[str, object], step: int | None = None) -> str:
        return json.dumps({"kind": kind, "time": 1, "step": step, "values": values}) + "\n"

    text = line("run", {"run_id": folder.name, "run_name": folder.name, "experiment": "negrec"})
    text += line("status", {"status": "RUNNING"})
    for epoch in range(epochs):
        # Rises to the best epoch, ever slower, and falls from there.
        after = epoch + 1 - best_epoch
        risen = (1 - np.exp(-3 * (epoch + 1) / best_epoch)) / (1 - np.exp(-3))
        value = valid * float(1 - 0.01 * after if after > 0 else risen)
        values = {"train/loss": 1 / (epoch + 1), "train/epoch_seconds": seconds}
        values |= {"train/sampler_share": 0.1, "valid/ndcg_10": value, "valid/hr_10": 2 * value}
        text += line("metrics", {**values, **more}, epoch)
    (folder / "events.jsonl").write_text(text, encoding="utf-8")


def _write_ranks(folder: Path, rate: float, targets: int, seed: int) -> None:
    """One target per user; the share ``rate`` of them is ranked first, the others at 101."""
    hit = np.random.default_rng(seed).random(targets) < rate
    pl.DataFrame(
        {
            "user": np.arange(targets),
            "target": np.arange(targets) % 30 + 1,
            "greater": np.where(hit, 0, 100),
            "ties": np.zeros(targets, dtype=np.int64),
            "cohort": pl.Series(np.arange(targets) % 3, dtype=pl.Int8),
        }
    ).write_parquet(folder / "ranks.parquet")
