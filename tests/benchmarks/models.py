"""What an epoch of each model takes beside one of SASRec: ``python -m tests.benchmarks.models``.

Every model as its yaml has it, targets and objective included, with the default sampler and loss,
on Amazon Beauty from ``$NEGREC_DATA_DIR``, else a random set of its shape. Models take turns in
rounds of some training steps, forwards and backwards, so that a machine whose speed drifts slows
them alike; the seconds are those of a whole epoch by its number of queries. Quote the ratios.

    python -m tests.benchmarks.models --rounds=5 --steps=30 --models=gru4rec,ligr
"""

import argparse
import os
from dataclasses import replace
from statistics import median

from hydra import compose
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import track
from rich.table import Table

from negrec.commandline import bench, configuration
from negrec.commandline.console import quiet
from negrec.data.sequences import Sequences
from tests.benchmarks.__main__ import CONF, Data, load

BASE = "sasrec"
ASKED = {"gru4rec": 1.5, "caser": 2.0, "bert4rec": 2.0, "sse_pt": 1.6, "cl4srec": 3.2, "ligr": 1.8}
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))


def windows(data: Data, cfg: DictConfig) -> bench.Data:
    """The training windows as a model's targets want them."""
    info = replace(data.info, train=data.train)
    targets = instantiate(cfg.targets)
    sequences = Sequences(data.train, info.max_length, targets, cfg.window)
    return bench.Data(data.name, sequences.facts(info), sequences)


def seconds(data: bench.Data, cfg: DictConfig, steps: int) -> float | None:
    """Of an epoch, by that of some steps; None where there is nothing to train."""
    cost = bench.cost_of(cfg, data, steps)
    assert data.info.target_counts is not None
    return None if cost is None else cost.seconds * float(data.info.target_counts.sum()) / 1000


def measured(
    data: Data, names: list[str], rounds: int, steps: int, threads: int
) -> dict[str, list[float]]:
    """Seconds of an epoch of every model that is trained, in every round."""
    with configuration.opened():
        words = [f"trainer.threads={threads}"]
        configs = {name: compose("train", [f"model={name}", *words]) for name in names}
    places = {name: windows(data, cfg) for name, cfg in configs.items()}
    found: dict[str, list[float]] = {}
    for turn in track(range(rounds), "rounds", console=Console(stderr=True)):
        for name in names if turn % 2 == 0 else names[::-1]:
            with quiet():
                value = seconds(places[name], configs[name], steps)
            if value is not None:
                found.setdefault(name, []).append(value)
    return found


def table(found: dict[str, list[float]], title: str) -> Table:
    """The ratios that are asked for beside those that are measured."""
    table = Table(title=title, caption="a ratio is the median over rounds; !: more than asked")
    for column in ("model", "s / epoch", f"x {BASE}", "min", "max", "asked"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for name, values in found.items():
        ratios = sorted(own / base for own, base in zip(values, found[BASE], strict=True))
        ratio, asked = median(ratios), ASKED.get(name)
        table.add_row(
            name,
            f"{median(values):.2f}",
            f"{ratio:.2f}" + (" !" if asked is not None and ratio > asked else ""),
            f"{ratios[0]:.2f}",
            f"{ratios[-1]:.2f}",
            "" if asked is None else f"{asked:.2f}",
        )
    return table


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.models",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="of a model in a round")
    parser.add_argument("--models", default=",".join(NAMES), help="some of them, A,B,C")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    names = [BASE, *(name for name in arguments.models.split(",") if name != BASE)]
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        parser.error(f"there is no model {', '.join(unknown)}: choose from {', '.join(NAMES)}")
    data = load()
    before = os.getloadavg()[0]
    found = measured(data, names, arguments.rounds, arguments.steps, arguments.threads)
    title = f"{data.name}, {arguments.threads} threads: {arguments.rounds} rounds"
    Console().print(table(found, f"{title} of {arguments.steps} steps"))
    Console().print(f"load average before and after: {before:.2f}, {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
