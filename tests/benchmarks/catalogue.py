"""Whether a step's cost depends on the catalogue: ``python -m tests.benchmarks.catalogue``.

SASRec with D=64 and one uniform negative, trained as the configuration says on random histories of
Beauty's lengths in batches of 256, over catalogues of 10 thousand to 5 million items; beside it the
same with PyTorch's own Adam (fused), whose step moves the whole table. Every measurement is a fresh
process; sizes and optimisers take turns, forwards and backwards, so that a machine whose speed
drifts slows them alike: quote the ratios. Memory is what building and training took beyond the
imports and the data, beside that of the item table with its two moments. On a busy machine count
the processor's seconds, with one thread:

    python -m tests.benchmarks.catalogue --threads=1 --clock=cpu
"""

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median

from hydra import compose
from rich.console import Console
from rich.progress import track
from rich.table import Table

from negrec.commandline import configuration
from tests.benchmarks.steps import CLOCKS, measured, shaped_like_beauty

SIZES = (10_000, 100_000, 1_000_000, 5_000_000)
OPTIMIZERS = {  # by name: its overrides, and up to which size it is measured
    "conf": ((), SIZES[-1]),
    "dense Adam": (
        ("~trainer.optimizer.rows", "trainer.optimizer._target_=torch.optim.Adam"),
        10**6,
    ),
}
ASKED = 1.5  # a step over the largest catalogue, times that over the smallest
DIM = 64


def one(n_items: int, optimizer: str, threads: int, steps: int) -> dict[str, float]:
    """Measures in this process, which does nothing else."""
    with configuration.opened():
        words, _ = OPTIMIZERS[optimizer]
        cfg = compose("train", [f"trainer.threads={threads}", f"model.dim={DIM}", *words])
    data = shaped_like_beauty(n_items)
    before = resident_mb()
    found = measured(cfg, data, steps, warm_up=5)
    return {
        **{clock: 1000 * found.each(clock) for clock in CLOCKS},
        "mb": found.peak_mb - before,
    }


def resident_mb() -> float:
    """What this process takes now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


def in_a_fresh_process(n_items: int, optimizer: str, threads: int, steps: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.catalogue", "--one", str(n_items), optimizer]
    command += [f"--threads={threads}", f"--steps={steps}"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: dict[tuple[str, int], list[dict[str, float]]], clock: str, title: str) -> Table:
    """Steps and memory by size; ! marks a ratio above what is asked."""
    table = Table(
        title=title,
        caption=f"x: times the smallest catalogue's, the median over rounds (asked of the "
        f"configuration's optimiser: {ASKED}); peak: beyond imports and data",
    )
    headers = ("optimiser", "items", "ms / step", "x", "min", "max", "peak MB")
    for header in (*headers, "table + moments", "peak of these"):
        table.add_column(header, justify="left" if header == "optimiser" else "right")
    for (optimizer, size), values in found.items():
        base = found[optimizer, SIZES[0]]
        times = sorted(v[clock] / b[clock] for v, b in zip(values, base, strict=True))
        missed = optimizer == "conf" and size == SIZES[-1] and median(times) > ASKED
        peak, needed = median(v["mb"] for v in values), 3 * 4 * DIM * size / 1e6
        table.add_row(
            optimizer,
            f"{size:,}",
            f"{median(v[clock] for v in values):.1f}",
            f"{median(times):.2f}" + (" !" if missed else ""),
            f"{times[0]:.2f}",
            f"{times[-1]:.2f}",
            f"{peak:,.0f}",
            f"{needed:,.0f}",
            f"{peak / needed:.2f}",
        )
    return table


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.catalogue",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40, help="of a measurement")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--one", nargs=2, metavar=("ITEMS", "OPTIMIZER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        size, optimizer = arguments.one
        print(json.dumps(one(int(size), optimizer, arguments.threads, arguments.steps)))
        return
    before = os.getloadavg()[0]
    cells = [(name, n) for name, (_, most) in OPTIMIZERS.items() for n in SIZES if n <= most]
    found: dict[tuple[str, int], list[dict[str, float]]] = defaultdict(list)
    turns = [
        cell
        for turn in range(arguments.rounds)
        for cell in (cells if turn % 2 == 0 else reversed(cells))
    ]
    for name, size in track(turns, "measurements", console=Console(stderr=True)):
        value = in_a_fresh_process(size, name, arguments.threads, arguments.steps)
        found[name, size].append(value)
    unit = "" if arguments.clock == "wall" else ", processor's seconds"
    title = f"D={DIM}, batch 256, k=1, {arguments.threads} threads{unit}: {arguments.rounds} rounds"
    console = Console(width=120)
    console.print(table(found, arguments.clock, f"{title} of {arguments.steps} steps"))
    console.print(f"load average before and after: {before:.2f}, {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
