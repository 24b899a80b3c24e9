"""Catalogues of a million items: ``python -m tests.benchmarks.large``.

Training steps and a full ranking at 1,000,000 items, and an epoch on data of Gowalla's shape
(86,168 users, 1,271,638 items, 6.4 million interactions) with the loss gbce, k=128 negatives that
a sequence shares, at length 200 as gSASRec trained it, with a validation ranking of 2,000 users.
The data are made up: popularity as of Zipf, lengths with a heavy tail. SASRec with its default
settings (D=64); each part in a process of its own, whose peak memory is shown beside the seconds.
Asked: at most 8 GiB each.

    python -m tests.benchmarks.large --parts "full softmax" ranking --items=1000000 --threads=2
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from negrec.commandline import bench, configuration
from negrec.commandline.console import quiet
from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.evaluation.evaluator import Evaluator
from negrec.training.checkpoint import Checkpoints
from negrec.types import DatasetInfo, HeldOut, Jagged

ASKED_GIB = 8.0
STEPS = {  # overrides that choose what is trained for some steps
    "uniform": [],
    "genni, beta=0.01": ["sampler=genni", "beta=0.01"],
    "genni, beta=1": ["sampler=genni"],
    "full softmax": ["loss=softmax"],
    "gbce, k=128 per sequence": ["loss=gbce", "k=128", "sampler.share=sequence"],
}
GOWALLA = "Gowalla's shape"
PARTS = (*STEPS, "ranking", GOWALLA)
GOWALLA_SHAPE = (86_168, 1_271_638, 6_397_903)  # users, items, interactions
RANKED = 2_000  # users


def made(
    users: int, items: int, interactions: int, max_length: int
) -> tuple[DatasetInfo, Jagged, HeldOut]:
    """Histories with the last item held out; facts of the rest."""
    rng = np.random.default_rng(0)
    # A heavy tail: the longest histories are some hundred times the mean.
    weight = rng.lognormal(0.0, 1.2, users)
    lengths = np.maximum((weight * interactions / weight.sum()).astype(np.int64), 3)
    chance = 1 / (np.arange(items) + 50.0)  # Zipf's law, flat at its head
    cumulated = np.cumsum(chance)
    drawn = np.searchsorted(cumulated, rng.random(lengths.sum()) * cumulated[-1])
    values = torch.from_numpy(rng.permutation(items)[drawn] + 1)
    end = torch.from_numpy(lengths.cumsum())
    start = end - torch.from_numpy(lengths)
    last = end - 1
    held_out = HeldOut(torch.arange(users), values[last], values, start, last)
    kept = torch.ones(len(values), dtype=torch.bool)
    kept[last] = False
    offsets = torch.cat([start.new_zeros(1), (last - start).cumsum(0)])
    train = Jagged(values[kept], offsets)
    counts = torch.bincount(train.values - 1, minlength=items)
    return DatasetInfo(users, items, max_length, counts, train), train, held_out


def composed(words: list[str], threads: int) -> DictConfig:
    """The configuration of a training."""
    with configuration.opened():
        return compose("train", [f"trainer.threads={threads}", *words])


def trained_steps(words: list[str], items: int, steps: int, threads: int) -> dict[str, Any]:
    """Some steps of 256 histories, 8 items each in the mean, as Beauty's are."""
    info, train, _ = made(20_000, items, 160_000, 50)
    sequences = Sequences(train, info.max_length, NextItem())
    data = bench.Data("made up", sequences.facts(info), sequences)
    with quiet():
        cost = bench.cost_of(composed(words, threads), data, steps)
    assert cost is not None
    queries = 256 * float(sequences.facts(info).target_counts.sum()) / len(sequences)
    return {
        "what": f"a step of {queries:,.0f} queries (of {steps})",
        "seconds": cost.seconds * queries / 1000,
    }


def ranked(items: int, threads: int) -> dict[str, Any]:
    """A ranking of some users among all items."""
    torch.set_num_threads(threads)
    info, _, held_out = made(20_000, items, 160_000, 50)
    torch.manual_seed(0)
    model = instantiate(composed([], threads).model)(info).eval()
    evaluator = Evaluator(held_out.select(slice(0, RANKED)), info)
    started = time.perf_counter()
    evaluator(model)
    return {"what": f"{RANKED:,} users", "seconds": time.perf_counter() - started}


def gowalla(threads: int, max_length: int, show: bool) -> dict[str, Any]:
    """One epoch and one validation by the trainer, checkpoints and all."""
    info, train, held_out = made(*GOWALLA_SHAPE, max_length)
    words = [*STEPS["gbce, k=128 per sequence"], "trainer.max_epochs=1", "trainer.batch_size=128"]
    cfg = composed([*words, f"max_length={max_length}", f"trainer.progress={show}"], threads)
    sequences = Sequences(train, max_length, NextItem())
    info = sequences.facts(info)
    torch.manual_seed(0)
    model = instantiate(cfg.model)(info)
    objective = instantiate(cfg.objective)(info, sequences)
    trainer = instantiate(cfg.trainer)(sequences, cfg.seed)
    users = torch.from_numpy(np.random.default_rng(1).permutation(info.n_users)[:RANKED])
    evaluator = Evaluator(held_out.select(users), info)
    logged: dict[str, float] = {}
    ranking = 0.0

    def validate(model: Any) -> Any:
        nonlocal ranking
        started = time.perf_counter()
        found = evaluator(model).metrics
        ranking += time.perf_counter() - started
        return found

    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(
            model,
            objective,
            Checkpoints(Path(folder)),
            validate,
            lambda metrics, _: logged.update(metrics),
        )
    return {
        "what": f"an epoch of {info.n_tokens:,} queries, length {max_length}; "
        f"validation of {RANKED:,} users {ranking:.1f} s",
        "seconds": logged["train/epoch_seconds"],
    }


def child(part: str, asked: argparse.Namespace) -> None:
    """Measures one part and prints what it found."""
    if part == "ranking":
        found = ranked(asked.items, asked.threads)
    elif part == GOWALLA:
        found = gowalla(asked.threads, asked.length, sys.stderr.isatty())
    else:
        found = trained_steps(STEPS[part], asked.items, asked.steps, asked.threads)
    found["gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(found))


def main() -> int:
    """Measures each part in a fresh process."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.large",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=5, help="of each part that trains steps")
    parser.add_argument("--length", type=int, default=200, help=f"of a window in {GOWALLA}")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--child", choices=PARTS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child, asked)
        return 0
    before = os.getloadavg()[0]
    table = Table(title=f"D=64, {asked.threads} threads; {asked.items:,} items but in {GOWALLA}")
    table.add_column("")
    table.add_column("what")
    table.add_column("seconds", justify="right")
    table.add_column("peak GiB", justify="right")
    good = True
    settings = [f"--{name}={getattr(asked, name)}" for name in ("items", "steps", "length")]
    for part in track(asked.parts, "parts", console=Console(stderr=True)):
        command = [sys.executable, "-m", __spec__.name, "--child", part, *settings]
        command += [f"--threads={asked.threads}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        good &= found["gib"] <= ASKED_GIB
        mark = "" if found["gib"] <= ASKED_GIB else " !"
        row = (part, found["what"], f"{found['seconds']:.2f}", f"{found['gib']:.2f}{mark}")
        table.add_row(*row)
        print(" | ".join(row), file=sys.stderr)
    Console(width=120).print(table)
    print(
        f"at most {ASKED_GIB:.0f} GiB are asked for; load average before and after: {before:.2f}, "
        f"{os.getloadavg()[0]:.2f}"
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
