"""Measures what the README states: ``make bench``.

Every figure is a median over rounds in which all variants take turns, so that a machine whose
speed drifts slows them alike; quote the ratios. Data: Amazon Beauty from ``$NEGREC_DATA_DIR``,
else a random set of its shape.
"""

import argparse
import itertools
import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from negrec.commandline.console import quiet
from negrec.data import targets
from negrec.data.sequences import Sequences
from negrec.evaluation.evaluator import Evaluator
from negrec.models.base import SequenceModel
from negrec.models.sasrec import SASRec
from negrec.training import trainer
from negrec.training.checkpoint import Checkpoints
from negrec.training.cost import Cost
from negrec.types import DatasetInfo, HeldOut, Jagged, slices
from tests.benchmarks import cost
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
ESTIMATE = "per training epoch"  # what a run says of an epoch's time after its first steps

# Epochs that are timed, with the seconds that the GenNi paper printed of one V100 on Beauty.
EPOCHS = {
    "uniform": ((), 2.44),
    "popularity": (("sampler=popularity", "gamma=0.75"), None),
    "genni beta=1": (("sampler=genni", "alpha=2.5"), 6.30),
    "genni beta=0.1": (("sampler=genni", "alpha=2.5", "beta=0.1"), 2.47),
}
EVALUATION = "evaluation of all users"
ASKED_FASTER = 10  # than the plain padded trainer, an epoch of uniform negatives
ASKED_EVALUATION = 1.0  # of an epoch of uniform negatives, ranking all users' targets


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
    lengths = np.minimum(3 + rng.geometric(1 / 3.9, 22_363), 200)  # of training: mean 6.9
    ends = torch.from_numpy((lengths + 2).cumsum())  # the last two of everybody are held out
    items = torch.from_numpy(rng.integers(1, 12_102, int(ends[-1])))
    begins = ends - torch.from_numpy(lengths) - 2
    train = slices(items, begins, ends - 2)
    counts = torch.bincount(train.values - 1, minlength=12_101)
    info = DatasetInfo(len(lengths), 12_101, 50, counts, train)
    held_out = HeldOut(torch.arange(len(lengths)), items[ends - 1], items, begins, ends - 1)
    return Data("random data of beauty's shape", info, train, held_out)


@dataclass(frozen=True)
class Trained:
    """A model after some epochs.

    Attributes:
        model: as trained.
        seconds: of each epoch, as a run logs them.
        cpu_seconds: of the processor in all threads, with the saving of what was trained.
    """

    model: SequenceModel
    seconds: list[float]
    cpu_seconds: list[float]


def trained(data: Data, words: Sequence[str], threads: int, epochs: int = 1) -> Trained:
    """Trains as ``negrec train`` does with the words; nothing is validated."""
    with configuration.opened():
        cfg = compose("train", [f"trainer.threads={threads}", *words])
    torch.manual_seed(0)
    sequences = Sequences(data.train, data.info.max_length, instantiate(cfg.targets), cfg.window)
    info = sequences.facts(data.info)
    model = instantiate(cfg.model)(info)
    objective = instantiate(cfg.objective)(info, sequences)
    settings = {"max_epochs": epochs, "metric": None, "progress": False}
    engine = instantiate(cfg.trainer, **settings)(sequences, cfg.seed)
    seconds: list[float] = []
    clock = [time.process_time()]

    def log(metrics: Mapping[str, float], epoch: int) -> None:
        seconds.append(metrics["train/epoch_seconds"])
        clock.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder, quiet():
        engine.fit(model, objective, Checkpoints(Path(folder)), lambda _: {}, log)
    return Trained(model, seconds, [b - a for a, b in itertools.pairwise(clock)])


def epoch_seconds(data: Data, name: str, threads: int) -> float:
    """Seconds of one training epoch of ``EPOCHS``."""
    words, _ = EPOCHS[name]
    return trained(data, words, threads).seconds[0]


def padded_seconds(data: Data) -> float:
    """Seconds of one epoch of the plain padded trainer."""
    trainer = PaddedTrainer(data.train, data.info.n_items)
    started = time.perf_counter()
    trainer.epoch()
    return time.perf_counter() - started


def evaluation_seconds(data: Data, lists: bool = False) -> float:
    """Seconds of ranking the whole catalogue for every user, with the top 20 where asked for."""
    torch.manual_seed(0)
    model = SASRec(data.info).eval()
    evaluator = Evaluator(data.held_out, data.info, lists=lists)
    started = time.perf_counter()
    with torch.no_grad():
        evaluator(model)
    return time.perf_counter() - started


def speed(data: Data, rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds of every variant in every round."""
    torch.set_num_threads(threads)
    variants: dict[str, Callable[[], float]] = {
        "plain padded trainer": partial(padded_seconds, data),
        **{name: partial(epoch_seconds, data, name, threads) for name in EPOCHS},
        EVALUATION: partial(evaluation_seconds, data),
        f"{EVALUATION}, with lists": partial(evaluation_seconds, data, lists=True),
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
            found = bench.cost_of(configs[name], shared, steps)
            assert found is not None
            costs[name].append(found)
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
        name: max(one.peak_mb or math.nan for one in each) * 1e6 / 2**20
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
            f"{median(one.sampler_share for one in costs[name]):.0%}",
            f"{peak[name]:,.0f}",
            f"{more:+.0f}{limit}" + (" !" if limit and more > ASKED_MIB else ""),
        )
    return table


def start_up() -> Iterator[tuple[str, float]]:
    """Seconds until ``--help`` is printed, and until the first step, with a warm cache."""
    program = [sys.executable, "-m", "negrec"]
    warm = ["train", "trainer.max_epochs=1", "trainer.progress=false"]
    data = os.environ.get("NEGREC_DATA_DIR")
    beauty = data is not None and (Path(data) / "beauty.parquet").exists()
    with tempfile.TemporaryDirectory() as folder:

        def until(command: list[str], sign: str) -> tuple[float, str]:
            """Seconds until a line with the sign, and that line; the command ends there."""
            started = time.perf_counter()
            with subprocess.Popen(
                [*program, *command],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ) as process:
                assert process.stdout is not None
                lines = ((time.perf_counter() - started, line) for line in process.stdout)
                found = next(pair for pair in lines if sign in pair[1])
                process.kill()
            return found

        def until_the_first_step(command: list[str]) -> float:
            seconds, line = until(command, ESTIMATE)
            # "about 4.2 s per training epoch (88 steps)" comes after its first steps.
            each, steps = re.search(r"about ([\d.]+) s.*\((\d+) steps\)", line).groups()
            return seconds - trainer._ESTIMATE_AFTER * float(each) / int(steps)

        yield "negrec --help", median(until(["--help"], "usage")[0] for _ in range(5))
        commands = {"the embedded data": [*warm, "trainer.batch_size=64"]}
        if beauty:
            commands["dataset=beauty"] = [*warm, "dataset=beauty"]
        for name, command in commands.items():
            until(command, ESTIMATE)  # fills the cache, and makes the store
            seconds = median(until_the_first_step(command) for _ in range(5))
            yield f"negrec train, {name}: to the first step, cached", seconds


def epochs_table(
    data: Data, seconds: Mapping[str, list[float]], rounds: int, threads: int
) -> Table:
    """Seconds of epochs and evaluations beside what is asked of them; ! marks what is missed."""
    table = Table(
        title=f"{data.name}, D=64, 2 blocks, batch 256, k=1, {threads} threads; median of {rounds}",
        caption=f"asked: the padded trainer takes {ASKED_FASTER} times an epoch of uniform; an "
        f"evaluation at most {ASKED_EVALUATION:.1f} of it; less than the V100 of arXiv:2208.03645, "
        "whose seconds are in the last columns",
    )
    headers = ("", "seconds", "min", "max", "x uniform", "padded takes", "V100", "x V100")
    for column in headers:
        table.add_column(column, justify="left" if not column else "right")

    def ratio(own: list[float], base: list[float]) -> float:
        return median(a / b for a, b in zip(own, base, strict=True))

    for name, values in seconds.items():
        times = ratio(values, seconds["uniform"])
        faster = ratio(seconds["plain padded trainer"], values)
        slow = name == EVALUATION and times > ASKED_EVALUATION
        missed = name == "uniform" and faster < ASKED_FASTER
        _, published = EPOCHS.get(name, ((), None))
        beside = ("", "")
        if published is not None and data.name == "beauty":
            against = median(values) / published
            beside = (f"{published:.2f}", f"{against:.2f}" + (" !" if against >= 1 else ""))
        table.add_row(
            name,
            *(f"{value:.2f}" for value in (median(values), min(values), max(values))),
            f"{times:.2f}" + (" !" if slow else ""),
            f"{faster:.1f} x" + (" !" if missed else ""),
            *beside,
        )
    return table


def tables(data: Data, rounds: int, threads: int) -> None:
    """Measures everything and prints it."""
    console = Console(width=100)
    load_before = os.getloadavg()[0]
    seconds = speed(data, rounds, threads)
    console.print(epochs_table(data, seconds, rounds, threads))
    console.print(ratios(data, rounds, threads, STEPS))
    peaks = {name: peak_mb(name, threads) for name in ("uniform", "genni beta=1")}
    for name, peak in peaks.items():
        console.print(f"peak memory, {name}: {peak:.0f} MB ({peak - peaks['uniform']:+.0f} MB)")
    for name, value in start_up():
        console.print(f"{name}: {value:.2f} s")
    console.print(f"load average before and after: {load_before:.2f}, {os.getloadavg()[0]:.2f}")
    cost.write(threads)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ratios", action="store_true", help="only the ratios that are asked for")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a round of --ratios")
    parser.add_argument("--peak", choices=EPOCHS, help=argparse.SUPPRESS)
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
