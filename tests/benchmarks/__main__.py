"""Measures what the README states: ``make bench``.

Every figure is a median over rounds in which all variants take turns, so that a machine whose
speed drifts slows them alike; quote the ratios. Data: Amazon Beauty from ``$NEGREC_DATA_DIR``,
else a random set of its shape.
"""

import argparse
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.console import Console
from rich.progress import track
from rich.table import Table

from negrec.commandline import bench, configuration
from negrec.data import targets
from negrec.data.sequences import Sequences
from negrec.evaluation.evaluator import Evaluator
from negrec.losses.bce import BCE
from negrec.models.sasrec import SASRec
from negrec.objectives.ranking import Ranking
from negrec.samplers.base import Sampler
from negrec.samplers.genni import GenNi
from negrec.samplers.popularity import Popularity
from negrec.samplers.uniform import Uniform
from negrec.training.checkpoint import Checkpoints
from negrec.training.cost import Cost
from negrec.training.trainer import Trainer
from negrec.types import DatasetInfo, HeldOut, Jagged
from tests.benchmarks.padded import PaddedTrainer

CONF = Path(__file__).parents[2] / "conf"


@dataclass(frozen=True)
class Asked:
    """How much longer than another setting one may take.

    Attributes:
        words: the overrides that choose it.
        ratio: at the most; None where nothing is asked.
        base: name of the other.
    """

    words: tuple[str, ...]
    ratio: float | None
    base: str = "uniform"


SHARED = ("k=256", "sampler.share=sequence")
UFNREC = (
    *("k=100", "sampler/false_negatives=reverse"),
    *("objective=ranking_with_teacher", "mining_start=0"),
)
ASKED = {
    "uniform": Asked((), None),
    "popularity": Asked(("sampler=popularity",), 1.05),
    "in_batch, 256 for the batch": Asked(("sampler=in_batch", "k=256"), 1.3),
    "mixed": Asked(("sampler=mixed",), 1.4),
    "adaptive, pool=100 k=5": Asked(("sampler=adaptive", "pool=100", "k=5"), 1.6),
    "gbce, k=256 per sequence": Asked(("loss=gbce", *SHARED), 2.5),
    "full softmax": Asked(("loss=softmax",), 7),
    "genni beta=1": Asked(("sampler=genni",), 3.2),
    "genni beta=0.1": Asked(("sampler=genni", "beta=0.1"), 1.25),
    "uniform, k=100": Asked(("k=100",), None),
    "UFNRec, n=100, mining": Asked(UFNREC, 1.5, "uniform, k=100"),
}
ASKED_MIB = 300  # that full softmax may take more than uniform

STEPS = 30  # of a round, for the ratios

SAMPLERS: dict[str, Callable[[DatasetInfo], Sampler]] = {
    "uniform": partial(Uniform, k=1),
    "popularity": partial(Popularity, gamma=0.75, k=1),
    "genni beta=1": partial(GenNi, alpha=2.5),
    "genni beta=0.1": partial(GenNi, alpha=2.5, beta=0.1),
}


@dataclass(frozen=True)
class Data:
    """What is trained on, and the targets that are ranked."""

    name: str
    info: DatasetInfo
    train: Jagged
    held_out: HeldOut


def load() -> Data:
    """Beauty where it is at hand, else random data of its shape."""
    folder = os.environ.get("NEGREC_DATA_DIR")
    if folder and (Path(folder) / "beauty.parquet").exists():
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("train", ["dataset=beauty", f"paths.data_dir={folder}"])
        interactions = instantiate(
            cfg.dataset, cache_dir=cfg.paths.cache_dir, data_dir=cfg.paths.data_dir
        )
        split = instantiate(cfg.split)(interactions, max_length=50, seed=0)
        return Data("beauty", split.info, split.train, split.test)
    rng = np.random.default_rng(0)
    lengths = np.minimum(3 + rng.geometric(1 / 3.9, 22_363), 200)  # mean 6.9 after two held out
    items = torch.from_numpy(rng.integers(1, 12_102, lengths.sum()))
    offsets = torch.from_numpy(np.concatenate([[0], lengths.cumsum()]))
    counts = torch.bincount(items - 1, minlength=12_101)
    info = DatasetInfo(len(lengths), 12_101, 50, counts)
    held_out = HeldOut(
        torch.arange(len(lengths)), items[offsets[1:] - 1], items, offsets[:-1], offsets[1:] - 1
    )
    return Data("random data of beauty's shape", info, Jagged(items, offsets), held_out)


def epoch_seconds(data: Data, sampler: str, threads: int) -> float:
    """Seconds of one training epoch of the engine, as a run logs them."""
    torch.manual_seed(0)
    model = SASRec(data.info)
    sequences = Sequences(data.train, data.info.max_length, targets.NextItem())
    objective = Ranking(data.info, sequences, SAMPLERS[sampler], BCE())
    trainer = Trainer(
        sequences,
        0,
        max_epochs=1,
        batch_size=256,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3, fused=True),
        threads=threads,
        progress=False,
    )
    logged: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(
            model,
            objective,
            Checkpoints(Path(folder)),
            lambda _: {"ndcg_10": 0.0},
            lambda metrics, _: logged.update(metrics),
        )
    return logged["train/epoch_seconds"]


def padded_seconds(data: Data) -> float:
    """Seconds of one epoch of the plain padded trainer."""
    trainer = PaddedTrainer(data.train, data.info.n_items)
    started = time.perf_counter()
    trainer.epoch()
    return time.perf_counter() - started


def evaluation_seconds(data: Data) -> float:
    """Seconds of ranking the whole catalogue for every user."""
    torch.manual_seed(0)
    model = SASRec(data.info).eval()
    evaluator = Evaluator(data.held_out, data.info)
    started = time.perf_counter()
    with torch.no_grad():
        evaluator(model)
    return time.perf_counter() - started


def speed(data: Data, rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds of every variant in every round."""
    torch.set_num_threads(threads)
    variants: dict[str, Callable[[], float]] = {
        "plain padded trainer": partial(padded_seconds, data),
        **{name: partial(epoch_seconds, data, name, threads) for name in SAMPLERS},
        "evaluation of all users": partial(evaluation_seconds, data),
    }
    epoch_seconds(data, "uniform", threads)  # the first epoch of a process pays for start-up
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in track(range(rounds), "rounds", console=Console(stderr=True)):
        for name, measure in variants.items():
            seconds[name].append(measure())
    return seconds


def peak_mb(sampler: str, threads: int) -> float:
    """Peak memory of a fresh process that trains one epoch."""
    command = [sys.executable, "-m", "tests.benchmarks", "--peak", sampler]
    command += ["--threads", str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measured(data: Data, rounds: int, threads: int, steps: int) -> dict[str, list[Cost]]:
    """What the settings of ``ASKED`` cost in every round, by the way of ``negrec bench``."""
    sequences = Sequences(data.train, data.info.max_length, targets.NextItem())
    shared = bench.Data(data.name, sequences.facts(data.info), sequences)
    with configuration.opened():
        configs = {
            name: compose("train", [f"trainer.threads={threads}", *asked.words])
            for name, asked in ASKED.items()
        }
    costs: dict[str, list[Cost]] = {name: [] for name in configs}
    for turn in track(range(rounds), "ratios", console=Console(stderr=True)):
        for name in configs if turn % 2 == 0 else reversed(configs):
            cost = bench.cost_of(configs[name], shared, steps)
            assert cost is not None
            costs[name].append(cost)
    return costs


def ratios(data: Data, rounds: int, threads: int, steps: int) -> Table:
    """The ratios that are asked for beside those that are measured."""
    costs = measured(data, rounds, threads, steps)
    table = Table(
        title=f"{data.name}, batch 256, {threads} threads: {rounds} rounds of {steps} steps",
        caption="a ratio is the median over rounds; peak: of the process, in MiB",
    )
    for column in ("", "asked", "measured", "min", "max", "sampler", "peak", "more than uniform"):
        table.add_column(column, justify="left" if not column else "right")
    peak = {
        name: max(cost.peak_mb or math.nan for cost in each) * 1e6 / 2**20
        for name, each in costs.items()
    }
    for name, asked in ASKED.items():
        pairs = zip(costs[name], costs[asked.base], strict=True)
        found = sorted(own.seconds / base.seconds for own, base in pairs)
        ratio, more = median(found), peak[name] - peak["uniform"]
        missed = asked.ratio is not None and ratio > asked.ratio
        of = "" if asked.base == "uniform" else f" of {asked.base}"
        limit = f" (asked {ASKED_MIB})" if name == "full softmax" else ""
        table.add_row(
            name,
            "" if asked.ratio is None else f"{asked.ratio:.2f}{of}",
            f"{ratio:.2f}" + (" !" if missed else ""),
            f"{found[0]:.2f}",
            f"{found[-1]:.2f}",
            f"{median(cost.sampler_share for cost in costs[name]):.0%}",
            f"{peak[name]:,.0f}",
            f"{more:+.0f}{limit}" + (" !" if limit and more > ASKED_MIB else ""),
        )
    return table


def start_up() -> Iterator[tuple[str, float]]:
    """Seconds until ``--help`` is printed, and until training has done its first 20 steps."""
    program = [sys.executable, "-m", "negrec"]
    with tempfile.TemporaryDirectory() as folder:
        warm = ["train", "trainer.max_epochs=1", "trainer.progress=false"]
        subprocess.run([*program, *warm], cwd=folder, capture_output=True, check=True)

        def until(command: list[str], sign: str) -> float:
            started = time.perf_counter()
            process = subprocess.Popen(
                [*program, *command],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert process.stdout is not None
            seconds = next(time.perf_counter() - started for line in process.stdout if sign in line)
            process.stdout.read()
            process.wait()
            return seconds

        yield "negrec --help", median(until(["--help"], "usage") for _ in range(5))
        small = [*warm, "trainer.batch_size=64"]
        yield (
            "negrec train: to the first 20 steps, existing store",
            median(until(small, "per training epoch") for _ in range(3)),
        )


def tables(data: Data, rounds: int, threads: int) -> None:
    """Measures everything and prints it."""
    console = Console(width=100)
    load_before = os.getloadavg()[0]
    seconds = speed(data, rounds, threads)
    uniform = seconds["uniform"]
    padded = seconds["plain padded trainer"]
    table = Table(
        title=f"{data.name}, D=64, 2 blocks, batch 256, k=1, {threads} threads; median of {rounds}"
    )
    for column in ("", "seconds", "min", "max", "x uniform", "padded trainer takes"):
        table.add_column(column, justify="left" if not column else "right")
    for name, values in seconds.items():
        against = median(v / u for v, u in zip(values, uniform, strict=True))
        faster = median(p / v for v, p in zip(values, padded, strict=True))
        row = (median(values), min(values), max(values))
        table.add_row(name, *(f"{v:.2f}" for v in row), f"{against:.2f}", f"{faster:.1f} x")
    console.print(table)
    console.print(ratios(data, rounds, threads, STEPS))
    peaks = {name: peak_mb(name, threads) for name in ("uniform", "genni beta=1")}
    for name, peak in peaks.items():
        console.print(f"peak memory, {name}: {peak:.0f} MB ({peak - peaks['uniform']:+.0f} MB)")
    for name, value in start_up():
        console.print(f"{name}: {value:.2f} s")
    console.print(f"load average before and after: {load_before:.2f}, {os.getloadavg()[0]:.2f}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ratios", action="store_true", help="only the ratios that are asked for")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a round of --ratios")
    parser.add_argument("--peak", choices=SAMPLERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        epoch_seconds(load(), arguments.peak, arguments.threads)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    if arguments.ratios:
        Console().print(ratios(load(), arguments.rounds, arguments.threads, arguments.steps))
        return
    tables(load(), arguments.rounds, arguments.threads)


if __name__ == "__main__":
    main()
