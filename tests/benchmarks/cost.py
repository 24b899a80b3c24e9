"""What steps cost by catalogue, sampler and loss; a part of ``make bench``.

Seconds of training for 1,000 queries and the process's peak memory, of SASRec with D=64 in batches
of 256 random histories of Beauty's lengths. The table goes between its markers in README.md, and as
CSV into outputs/benchmarks. On a busy machine count the processor's seconds, with one thread:

    python -m tests.benchmarks.cost --threads=1 --clock=cpu
"""

import argparse
import csv
import os
import platform
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track

from negrec.commandline import bench, configuration
from negrec.errors import InputError
from tests.benchmarks.steps import CLOCKS, Clock, Steps, measured, shaped_like_beauty

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- cost table: begin -->", "<!-- cost table: end -->"

SIZES = (10_000, 100_000, 1_000_000)
LOSSES = {"bce, k=1": "bce", "gbce, k=256": "gbce", "sampled softmax, k=256": "sampled_softmax"}
SHARED = "sampler.share=sequence"


INDEXED = "genni index=clusters"


@dataclass(frozen=True)
class Row:
    """A sampler as it is measured.

    Attributes:
        name: as it is shown.
        one: its overrides for the loss with one negative.
        many: its overrides for the losses with 256.
    """

    name: str
    one: tuple[str, ...]
    many: tuple[str, ...]


ROWS = (
    Row("uniform", ("k=1",), ("k=256", SHARED)),
    Row("popularity", ("sampler=popularity", "k=1"), ("sampler=popularity", "k=256", SHARED)),
    Row("in_batch, k=256", ("sampler=in_batch",), ("sampler=in_batch",)),
    Row("mixed, k=275", ("sampler=mixed",), ("sampler=mixed",)),
    Row(
        "adaptive, of 4 k",
        ("sampler=adaptive", "k=1", "pool=4"),
        ("sampler=adaptive", "k=256", "pool=1024"),
    ),
    Row("genni beta=1", ("sampler=genni",), ("sampler=genni", "k=256")),
    Row(
        INDEXED,
        ("sampler=genni", "index=clusters"),
        ("sampler=genni", "index=clusters", "k=256"),
    ),
    Row("genni beta=0.1", ("sampler=genni", "beta=0.1"), ("sampler=genni", "beta=0.1", "k=256")),
)
FULL = "all items: softmax"

SECONDS = 2.0  # that the steps of a cell take, about
MOST, SLOW = 20, 1.0  # steps; seconds of a step that is measured once


@dataclass(frozen=True)
class Cell:
    """A catalogue with a sampler and a loss."""

    n_items: int
    sampler: str
    loss: str
    words: tuple[str, ...]


def cells() -> Iterator[Cell]:
    """All that are measured, the catalogues one after the other."""
    for n_items in SIZES:
        for row in ROWS:
            for name, loss in LOSSES.items():
                words = row.one if loss == "bce" else row.many
                yield Cell(n_items, row.name, name, (*words, f"loss={loss}"))
        yield Cell(n_items, FULL, "", ("loss=softmax",))


def cost_of(cfg: DictConfig, data: bench.Data) -> Steps | None:
    """A quick look, then as many steps as there is time for; None: the parts do not go together."""
    try:
        instantiate(cfg.objective)(data.info, data.sequences)
    except InputError:
        return None
    found = measured(cfg, data, steps=1, warm_up=1)
    each = found.each("wall")
    return found if each > SLOW else measured(cfg, data, min(MOST, 2 + int(SECONDS / each)))


def measure(threads: int) -> dict[Cell, Steps | None]:
    """Every cell, one after the other."""
    with configuration.opened():
        configs = {
            cell: compose("train", [f"trainer.threads={threads}", "model.dim=64", *cell.words])
            for cell in cells()
        }
    found: dict[Cell, Steps | None] = {}
    data = None
    for cell, cfg in track(configs.items(), "cost table", console=Console(stderr=True)):
        if data is None or data.info.n_items != cell.n_items:
            data = shaped_like_beauty(cell.n_items)
        found[cell] = cost_of(cfg, data)
    return found


def markdown(found: Mapping[Cell, Steps | None], threads: int, clock: Clock) -> str:
    """The table, a row for a catalogue with a sampler, a column for a loss."""
    seconds = "seconds" if clock == "wall" else "seconds of the processor"
    lines = [
        f"Training: {seconds} for 1,000 queries, and the process's peak memory. D=64, 2 blocks, "
        f"batches of 256 histories with 6.9 items in the mean, {threads} CPU "
        f"thread{'s' * (threads > 1)} ({processor()}).",
        "",
        "| items | sampler | " + " | ".join(LOSSES) + " |",
        "|---|---|" + "---|" * len(LOSSES),
    ]
    for n_items in SIZES:
        for sampler in [*(row.name for row in ROWS), FULL]:
            shown = [
                written(steps, clock)
                for cell, steps in found.items()
                if (cell.n_items, cell.sampler) == (n_items, sampler)
            ]
            shown += [""] * (len(LOSSES) - len(shown))
            lines.append(f"| {n_items:,} | {sampler} | " + " | ".join(shown) + " |")
    prepared = [
        f"{steps.first[clock] - steps.each(clock):.2g} s ({cell.n_items:,} items)"
        for cell, steps in found.items()
        if steps is not None and (cell.sampler, cell.loss) == (INDEXED, next(iter(LOSSES)))
    ]
    lines += ["", f"{INDEXED} also groups the items once in an epoch: {', '.join(prepared)}."]
    return "\n".join(lines)


def written(steps: Steps | None, clock: Clock) -> str:
    """A cell, to two digits."""
    if steps is None:
        return "refused"
    seconds = steps.per_1000_queries(clock)
    text = f"{seconds:.2g}" if seconds < 10 else f"{seconds:.0f}"
    mb = steps.peak_mb
    return f"{text} s, " + (f"{mb:.0f} MB" if mb < 1000 else f"{mb / 1000:.1f} GB")


def processor() -> str:
    """The CPU's name, where the system tells it."""
    try:
        names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def into_readme(table: str, readme: Path = ROOT / "README.md") -> bool:
    """Puts the table between its markers; False where there are none."""
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        return False
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")
    return True


def save(found: Mapping[Cell, Steps | None], path: Path) -> None:
    """Writes all figures as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        columns = [f"{clock}_seconds_per_1000_queries" for clock in CLOCKS]
        rows.writerow(["items", "sampler", "loss", *columns, "peak_mb", "steps"])
        for cell, steps in found.items():
            figures: list[object] = [""] * 4
            if steps is not None:
                seconds = [f"{steps.per_1000_queries(clock):.6g}" for clock in CLOCKS]
                figures = [*seconds, f"{steps.peak_mb:.0f}", steps.steps]
            rows.writerow([cell.n_items, cell.sampler, cell.loss or "softmax", *figures])


def write(threads: int, clock: Clock = "wall") -> None:
    """Measures, and writes the table to where it belongs."""
    found = measure(threads)
    place = ROOT / "outputs" / "benchmarks" / "cost.csv"
    save(found, place)
    table = markdown(found, threads, clock)
    print(table)
    where = "README.md" if into_readme(table) else f"README.md has no {BEGIN}: above only"
    print(f"cost table: {where}; {place.relative_to(ROOT)}; load {os.getloadavg()[0]:.2f}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    write(arguments.threads, arguments.clock)


if __name__ == "__main__":
    main()
