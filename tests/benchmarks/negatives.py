"""Many negatives for each query: ``python -m tests.benchmarks.negatives``.

gSASRec's setting on MovieLens-1M: 256 uniform negatives, gBCE with t=0.75, length 200, D=128, two
blocks, one head, batches of 128. Reference: the same encoder and loss written as public code does,
over padded windows, with a vector gathered for every negative of every position, (B, L, K, D).
Beside it the trainer as the configuration says, with a draw for each query, each sequence and the
whole batch. Every measurement is a fresh process; variants take turns, forwards and backwards, so
that a machine whose speed drifts slows them alike: quote the ratios. The reference takes some 10 GB
and 20 seconds a step. Data: ML-1M from ``$NEGREC_DATA_DIR``, else random histories of its shape. On
a busy machine count the processor's seconds, with one thread:

    python -m tests.benchmarks.negatives --threads=1 --clock=cpu
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
import torch
from hydra import compose
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F

from negrec.commandline import bench, configuration
from negrec.data import targets
from negrec.data.sequences import Sequences
from negrec.training.cost import Peak
from negrec.types import DatasetInfo, Jagged
from tests.benchmarks.catalogue import resident_mb
from tests.benchmarks.padded import PaddedTrainer
from tests.benchmarks.steps import CLOCKS, Clock, measured

PLAIN = "plain, (B, L, K, D) gathered"
SHARES = ("query", "sequence", "batch")
VARIANTS = (PLAIN, *(f"share={share}" for share in SHARES))
ASKED = (5.0, 1 / 3)  # times as fast at the least, and of the memory at the most
K, T, LENGTH, DIM, BATCH = 256, 0.75, 200, 128, 128
SETTING = (
    *("loss=gbce", f"k={K}", f"t={T}", f"max_length={LENGTH}", "sampler.exclude=none"),
    *(f"model.dim={DIM}", "model.heads=1", f"trainer.batch_size={BATCH}"),
)


class PlainTrainer(PaddedTrainer):
    """gBCE over K uniform negatives of each position."""

    def __init__(self, train: Jagged, n_items: int) -> None:
        super().__init__(train, n_items, LENGTH, BATCH, DIM, heads=1)
        self.order = np.random.default_rng(0).permutation(len(self.histories))

    def step(self, index: int) -> None:
        """Trains on the batch of this number."""
        start = index * self.batch_size
        inputs, targets = self.batch(self.order[start : start + self.batch_size])
        loss = self.loss(inputs, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def loss(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean over the positions with a target."""
        negatives = torch.randint(1, self.n_items + 1, (*targets.shape, K))
        candidates = torch.cat([targets[:, :, None], negatives], 2)
        vectors = self.model.items(candidates)  # (B, L, 1 + K, D)
        scores = torch.einsum("bld,blkd->blk", self.model(inputs), vectors)
        beta = 1 - T * (1 - K / (self.n_items - 1))
        positive = beta * F.softplus(-scores[:, :, 0])
        negative = F.softplus(scores[:, :, 1:]).sum(2)
        return ((positive + negative) / (1 + K))[targets > 0].mean()


def load() -> tuple[str, DatasetInfo, Jagged]:
    """ML-1M where it is at hand, else random histories of its shape."""
    folder = os.environ.get("NEGREC_DATA_DIR")
    if folder and (Path(folder) / "ml-1m-sasrec.parquet").exists():
        from negrec import experiment

        words = ["dataset=ml-1m-sasrec", f"paths.data_dir={folder}", f"max_length={LENGTH}"]
        with configuration.opened():
            cfg = compose("train", words)
        split, _ = experiment.prepare(cfg, experiment.read(cfg))
        return "ML-1M", split.info, split.train
    rng = np.random.default_rng(0)
    users, n_items = 6_040, 3_416
    lengths = np.clip(rng.lognormal(4.55, 1.0, users), 18, 2_000).astype(np.int64)  # mean 150
    items = torch.from_numpy(rng.integers(1, n_items + 1, int(lengths.sum())))
    train = Jagged(items, torch.from_numpy(np.concatenate([[0], lengths.cumsum()])))
    counts = torch.bincount(items - 1, minlength=n_items)
    return "random histories of its shape", DatasetInfo(users, n_items, LENGTH, counts), train


def one(variant: str, threads: int, steps: int) -> dict[str, float | str]:
    """Measures in this process, which does nothing else."""
    torch.set_num_threads(threads)
    name, info, train = load()
    before = resident_mb()
    if variant == PLAIN:
        found = plain(info, train, max(1, steps // 10))
    else:
        with configuration.opened():
            cfg = compose("train", [f"trainer.threads={threads}", *SETTING, f"sampler.{variant}"])
        found = ours(cfg, info, train, steps)
    return {**found, "beyond": found["mb"] - before, "data": name}


def ours(cfg: DictConfig, info: DatasetInfo, train: Jagged, steps: int) -> dict[str, float]:
    sequences = Sequences(train, LENGTH, targets.NextItem())
    data = bench.Data("", sequences.facts(info), sequences)
    found = measured(cfg, data, steps)
    return {**{clock: found.each(clock) for clock in CLOCKS}, "mb": found.peak_mb}


def plain(info: DatasetInfo, train: Jagged, steps: int) -> dict[str, float]:
    peak = Peak()
    trainer = PlainTrainer(train, info.n_items)
    trainer.step(0)
    started, started_cpu = time.perf_counter(), time.process_time()
    for index in range(steps):
        trainer.step(1 + index)
    wall, cpu = time.perf_counter() - started, time.process_time() - started_cpu
    mb = peak.mb(torch.device("cpu"))
    return {"wall": wall / steps, "cpu": cpu / steps, "mb": float("nan") if mb is None else mb}


def in_a_fresh_process(variant: str, threads: int, steps: int) -> dict[str, float | str]:
    command = [sys.executable, "-m", "tests.benchmarks.negatives", "--one", variant]
    command += [f"--threads={threads}", f"--steps={steps}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float | str] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: dict[str, list[dict[str, float]]], clock: Clock, title: str) -> Table:
    """Seconds and memory beside the reference's; ! marks what misses what is asked."""
    table = Table(
        title=title,
        caption=f"medians over rounds; asked: {ASKED[0]:.0f} times as fast and less than a third "
        "of the memory; beyond: what building and training took beside imports and data",
    )
    for column in ("", "s / step", "times as fast", "min", "max", "peak MB", "of it", "beyond MB"):
        table.add_column(column, justify="left" if not column else "right")
    for name, values in found.items():
        base = found[PLAIN]
        times = sorted(b[clock] / v[clock] for v, b in zip(values, base, strict=True))
        memory = median(v["mb"] / b["mb"] for v, b in zip(values, base, strict=True))
        missed = [name != PLAIN and median(times) < ASKED[0], name != PLAIN and memory > ASKED[1]]
        table.add_row(
            name,
            f"{median(v[clock] for v in values):.3f}",
            f"{median(times):.1f}" + (" !" if missed[0] else ""),
            f"{times[0]:.1f}",
            f"{times[-1]:.1f}",
            f"{median(v['mb'] for v in values):,.0f}",
            f"{memory:.2f}" + (" !" if missed[1] else ""),
            f"{median(v['beyond'] for v in values):,.0f}",
        )
    return table


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.negatives",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20, help="of a measurement; of plain a tenth")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--one", choices=VARIANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    threads, steps = arguments.threads, arguments.steps
    if arguments.one:
        print(json.dumps(one(arguments.one, threads, steps)))
        return
    before = os.getloadavg()[0]
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    turns = [
        variant
        for turn in range(arguments.rounds)
        for variant in (VARIANTS if turn % 2 == 0 else reversed(VARIANTS))
    ]
    for variant in track(turns, "measurements", console=Console(stderr=True)):
        found[variant].append(in_a_fresh_process(variant, threads, steps))
    unit = "" if arguments.clock == "wall" else ", processor's seconds"
    title = (
        f"{found[PLAIN][0]['data']}, K={K}, D={DIM}, {BATCH} x {LENGTH}, {threads} threads{unit}"
    )
    console = Console(width=110)
    console.print(table(found, arguments.clock, f"{title}: {arguments.rounds} rounds"))
    console.print(f"load average before and after: {before:.2f}, {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
