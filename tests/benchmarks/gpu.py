"""Measures negrec on the GPU of this machine: ``make bench-gpu``.

Every figure is the median of rounds in which all variants of a table take turns. Training is timed
by the trainer itself over whole epochs (the device is waited for at their ends), on random data of
the named data sets' shapes; ten steps before, in which kernels are compiled, are not counted.
"PyTorch alone" is ``trainer.kernels=torch``. Memory is the most that tensors took on the device.
"""

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from hydra import compose
from hydra.utils import instantiate
from rich.console import Console
from rich.table import Table

from negrec.commandline import bench, configuration
from negrec.commandline.console import quiet
from negrec.data import targets
from negrec.data.sequences import Sequences
from negrec.evaluation.evaluator import Evaluator
from negrec.kernels import native
from negrec.kernels.attention import attend
from negrec.models.sasrec import SASRec
from negrec.packing import pack
from negrec.training import cost
from negrec.training.checkpoint import Checkpoints
from negrec.types import DatasetInfo, HeldOut, Jagged
from tests.benchmarks.steps import shaped_like_beauty

T = TypeVar("T")
Words = tuple[str, ...]


class Shape(NamedTuple):
    """Batches whose attention is timed: so many sequences, of lengths from a shortest on."""

    name: str
    sequences: int
    shortest: int
    longest: int
    dim: int
    heads: int


SHAPES = (
    Shape("256 of 1 to 50, D=64, 2 heads", 256, 1, 50, 64, 2),
    Shape("128 of 200, D=128, 1 head", 128, 200, 200, 128, 1),
    Shape("64 of 512, D=128, 2 heads", 64, 512, 512, 128, 2),
)

PLAIN = "trainer.kernels=torch"
BF16 = "trainer.precision=bf16"
COMPILED = "trainer.compile=true"

BEAUTY: dict[str, Words] = {
    "uniform": (),
    "uniform, PyTorch alone": (PLAIN,),
    "uniform, bf16": (BF16,),
    "uniform, compiled": (COMPILED,),
    "uniform, bf16, compiled": (BF16, COMPILED),
    "genni beta=1": ("sampler=genni",),
    "genni beta=1, PyTorch alone": ("sampler=genni", PLAIN),
    "genni beta=0.1": ("sampler=genni", "beta=0.1"),
    "genni beta=0.1, PyTorch alone": ("sampler=genni", "beta=0.1", PLAIN),
    "full softmax": ("loss=softmax",),
}
GSASREC = (
    *("loss=gbce", "k=256", "max_length=200", "trainer.batch_size=128"),
    *("model.dim=128", "model.heads=1", "model.layout=sasrec", "model.tied=false"),
)
ML_1M: dict[str, Words] = {
    "256 for each query": GSASREC,
    "256 for each sequence": (*GSASREC, "sampler.share=sequence"),
    "256 for the batch": (*GSASREC, "sampler.share=batch"),
    "256 for each sequence, bf16": (*GSASREC, "sampler.share=sequence", BF16),
    "256 for each sequence, PyTorch alone": (*GSASREC, "sampler.share=sequence", PLAIN),
}
CATALOGUES = (12_101, 100_000, 1_000_000)
AT_ONCE = (1, 2, 4, 8)  # processes that share the GPU


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        device: "cuda"; "cpu" where this program tests itself.
        rounds: of each table.
        users: of Beauty's shape, and of ML-1M's.
        catalogues: sizes.
        steps: of a measurement at one of these.
        at_once: numbers of processes.
        words: overrides for all that is trained.
        attended: sequences of a batch whose attention is timed; None: as many as the shape says.
    """

    device: str = "cuda"
    rounds: int = 3
    users: tuple[int, int] = (22_363, 6_040)
    catalogues: tuple[int, ...] = CATALOGUES
    steps: int = 20
    at_once: tuple[int, ...] = AT_ONCE
    words: Words = ()
    attended: int | None = None


TINY = Scale("cpu", 1, (24, 8), (50, 70), 2, (1, 2), ("trainer.batch_size=8",), 2)


@dataclass(frozen=True)
class Found:
    """What training costs.

    Attributes:
        epoch: seconds of the steps that were measured.
        step: milliseconds of one.
        peak: MiB that tensors took on the device; NaN on a CPU.
    """

    epoch: float
    step: float
    peak: float


def shaped_like_ml_1m(users: int) -> bench.Data:
    """Random histories of about ML-1M's lengths (mean 158), 3,416 items."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(math.log(96), 1.0, users).astype(np.int64), 17, 2_000)
    items = torch.from_numpy(rng.integers(1, 3_417, int(lengths.sum())))
    train = Jagged(items, torch.from_numpy(np.concatenate([[0], lengths.cumsum()])))
    info = DatasetInfo(users, 3_416, 200, torch.bincount(items - 1, minlength=3_416), train)
    sequences = Sequences(train, info.max_length, targets.NextItem())
    return bench.Data("ML-1M's shape", sequences.facts(info), sequences)


def train(data: bench.Data, words: Words, scale: Scale, most: int = 10**9) -> Found:
    """An epoch, or so many of its steps, by the trainer, after ten that are not counted."""
    with configuration.opened():
        fixed = (f"trainer.device={scale.device}", "trainer.metric=null")
        cfg = compose("train", [*fixed, *words, *scale.words])
    seconds: dict[int, float] = {}
    peak = cost.Peak()
    with quiet(), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        model = instantiate(cfg.model)(data.info)
        objective = instantiate(cfg.objective)(data.info, data.sequences)
        settings = {"max_epochs": 2, "checkpoint_minutes": math.inf, "progress": False}
        trainer = instantiate(cfg.trainer, **settings)(data.sequences, cfg.seed)
        steps = min(len(trainer.loader), most)
        trainer.loader = cost.Excerpt(trainer.loader, (min(steps, 10), steps))

        def note(metrics: Mapping[str, float], epoch: int) -> None:
            seconds[epoch] = metrics["train/epoch_seconds"]

        trainer.fit(model, objective, Checkpoints(Path(folder)), lambda _: {}, note)
    mb = peak.mb(trainer.device) if scale.device == "cuda" else None
    return Found(seconds[1], 1000 * seconds[1] / steps, (mb or math.nan) * 1e6 / 2**20)


def in_turns(variants: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """What each variant gives in each round."""
    found: dict[str, list[T]] = {name: [] for name in variants}
    for turn in range(rounds):
        names = list(variants)
        for name in names if turn % 2 == 0 else reversed(names):
            found[name].append(variants[name]())
    return found


def trained(title: str, data: bench.Data, all_words: Mapping[str, Words], scale: Scale) -> Table:
    """Epochs of some settings, as times of the first one's."""
    variants = {n: partial(train, data, words, scale) for n, words in all_words.items()}
    found = in_turns(variants, scale.rounds)
    table = Table(title=title)
    for header in ("", "s / epoch", "ms / step", "x", "peak MiB"):
        table.add_column(header, justify="left" if not header else "right")
    base = [f.epoch for f in next(iter(found.values()))]
    for name, values in found.items():
        ratio = median(f.epoch / b for f, b in zip(values, base, strict=True))
        epoch, step = median(f.epoch for f in values), median(f.step for f in values)
        peak = max(f.peak for f in values)
        table.add_row(name, f"{epoch:.2f}", f"{step:.2f}", f"{ratio:.2f}", f"{peak:,.0f}")
    return table


def catalogues(scale: Scale) -> Table:
    """GenNi's steps by the size of the catalogue, by Triton and by PyTorch."""
    variants = {}
    for size in scale.catalogues:
        data = shaped_like_beauty(size, scale.users[0])
        for name, words in (("kernels", ()), ("PyTorch alone", (PLAIN,))):
            for sampler in (("sampler=uniform",), ("sampler=genni",)):
                if name == "kernels" or sampler != ("sampler=uniform",):
                    key = f"{size:,}", sampler[0].removeprefix("sampler="), name
                    measure = partial(train, data, (*sampler, *words), scale, scale.steps)
                    variants[key] = measure
    table = Table(title=f"GenNi beta=1 by the catalogue, {scale.steps} steps")
    for header in ("items", "sampler", "by", "ms / step", "peak MiB"):
        table.add_column(header, justify="left" if header in ("sampler", "by") else "right")
    for key, values in in_turns(variants, scale.rounds).items():
        step, peak = median(f.step for f in values), max(f.peak for f in values)
        table.add_row(*key, f"{step:.2f}", f"{peak:,.0f}")
    return table


def attention_ms(shape: Shape, dtype: torch.dtype, plain: bool, scale: Scale) -> float:
    """Milliseconds of attention and its gradient over one batch."""
    native.choose("auto")  # whatever was trained last
    sequences = scale.attended or shape.sequences
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(shape.shortest, shape.longest + 1, (sequences,), generator=generator)
    rows = pack(torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])).to(scale.device)
    qkv = torch.randn(int(lengths.sum()), 3 * shape.dim, generator=generator)
    qkv = qkv.to(scale.device, dtype).requires_grad_()
    times = []
    with native.plain() if plain else nullcontext():
        for _ in range(3 + 10):
            wait(scale.device)
            started = time.perf_counter()
            out = attend(qkv, rows, shape.heads, 0.2)
            torch.autograd.grad(out, qkv, torch.ones_like(out))
            wait(scale.device)
            times.append(1000 * (time.perf_counter() - started))
    return median(times[3:])


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def attention(scale: Scale) -> Table:
    """The kernel over offsets beside PyTorch's attention over packed rows."""
    table = Table(title="attention, forward and backward, dropout 0.2: ms")
    for header in ("batch", "numbers", "from offsets", "packed rows, PyTorch", "x"):
        table.add_column(header, justify="left" if header in ("batch", "numbers") else "right")
    for shape in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            ways = {
                name: partial(attention_ms, shape, dtype, name == "plain", scale)
                for name in ("own", "plain")
            }
            found = in_turns(ways, scale.rounds)
            own, plain = median(found["own"]), median(found["plain"])
            kind = str(dtype).removeprefix("torch.")
            row = (f"{own:.3f}", f"{plain:.3f}", f"{plain / own:.2f}")
            table.add_row(shape.name, kind, *row)
    return table


def evaluation_seconds(data: bench.Data, plain: bool, scale: Scale) -> float:
    """Seconds of ranking all items for all users."""
    native.choose("auto")
    torch.manual_seed(0)
    device = torch.device(scale.device)
    train = data.sequences.train
    last = train.offsets[1:] - 1
    users = torch.arange(len(last))
    held_out = HeldOut(users, train.values[last], train.values, train.offsets[:-1], last)
    model = SASRec(data.info).eval().to(device)
    evaluator = Evaluator(held_out, data.info)
    seconds = []
    with torch.no_grad(), native.plain() if plain else nullcontext():
        for _ in range(2):  # the first one compiles
            started = time.perf_counter()
            evaluator(model)
            seconds.append(time.perf_counter() - started)
    return seconds[1]


def evaluation(data: bench.Data, scale: Scale) -> Table:
    table = Table(title=f"full ranking of {scale.users[0]:,} users, Beauty's shape")
    for header in ("by", "seconds"):
        table.add_column(header, justify="left" if header == "by" else "right")
    ways = {"kernels": False, "PyTorch alone": True}
    variants = {n: partial(evaluation_seconds, data, plain, scale) for n, plain in ways.items()}
    for name, seconds in in_turns(variants, scale.rounds).items():
        table.add_row(name, f"{median(seconds):.2f}")
    return table


def at_once(scale: Scale) -> Table:
    """Small runs side by side on one GPU, each a process, as a sweep's launcher starts them."""
    table = Table(
        title="small runs side by side (uniform, Beauty's shape)",
        caption="steps of all processes in a second; start-up is not counted",
    )
    for header in ("processes", "steps / s", "x"):
        table.add_column(header, justify="right")
    alone = math.nan
    for n in scale.at_once:
        command = [sys.executable, "-m", "tests.benchmarks.gpu", "--one", "--device", scale.device]
        command += ["--tiny"] if scale == TINY else []
        threads = str(max(1, (os.cpu_count() or 1) // n))
        environment = {**os.environ, "OMP_NUM_THREADS": threads}
        started = [
            subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(n)
        ]
        for process in started:  # all are ready before the first one begins
            assert process.stdout is not None
            if "ready" not in process.stdout.readline():
                raise RuntimeError("a process did not start")
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        rates = [1000 / float(process.communicate()[0].splitlines()[-1]) for process in started]
        alone = sum(rates) if n == 1 else alone
        table.add_row(str(n), f"{sum(rates):.1f}", f"{sum(rates) / alone:.2f}")
    return table


def one(scale: Scale) -> None:
    """One of several processes: says that it is ready, waits, and prints ms a step."""
    data = shaped_like_beauty(scale.catalogues[0], scale.users[0])
    train(data, (), scale, scale.steps)
    print("ready", flush=True)
    sys.stdin.readline()
    print(train(data, (), scale).step, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line; the exit code is 2 where there is no GPU."""
    parser = argparse.ArgumentParser(prog="make bench-gpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--tiny", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        print("make bench-gpu measures a GPU, and PyTorch finds none here", file=sys.stderr)
        return 2
    scale = TINY if chosen.tiny else Scale(chosen.device, chosen.rounds)
    if chosen.one:
        one(scale)
        return 0
    console = Console(width=100)
    name = torch.cuda.get_device_name() if chosen.device == "cuda" else "a CPU: a test of itself"
    console.print(f"{name}; PyTorch {torch.__version__}, CUDA {torch.version.cuda}")
    beauty = shaped_like_beauty(scale.catalogues[0], scale.users[0])
    console.print(trained("Beauty's shape, D=64, batch 256, k=1", beauty, BEAUTY, scale))
    ml_1m = shaped_like_ml_1m(scale.users[1])
    console.print(trained("ML-1M's shape, gBCE, D=128, length 200", ml_1m, ML_1M, scale))
    console.print(catalogues(scale))
    console.print(attention(scale))
    console.print(evaluation(beauty, scale))
    console.print(at_once(scale))
    console.print(f"load average of the machine: {os.getloadavg()[0]:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
