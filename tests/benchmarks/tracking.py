"""What an MLflow in trouble costs a training: ``python -m tests.benchmarks.tracking``.

The same training without tracking and towards a server that refuses, one that answers each call
after 10 s, and one that returns 500, in alternation. What is compared is ``cost/seconds``, that is
training and validation; asked: at most 1.05 times as long.

The process that sends imports MLflow once, 2 to 3 s of one core. With a core to spare (the
default: one thread) that costs the training next to nothing; with a thread for every core it is
those seconds, whatever the length, so that 5 % asks for a training of a minute or more:

    python -m tests.benchmarks.tracking --threads=2 --seconds=90 --rounds=3
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.tracking.stores import free_port, sick

ASKED = 1.05


def cost(folder: Path, epochs: int, threads: int, *words: str) -> float:
    """Seconds of a training and its validations, in a process of its own."""
    fixed = ["dataset=synthetic", f"trainer.max_epochs={epochs}", f"trainer.threads={threads}"]
    fixed += ["trainer.patience=null", f"hydra.run.dir={folder}"]
    command = [sys.executable, "-m", "negrec", "train", *fixed, *words]
    variables = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    subprocess.run(command, check=True, env=variables, capture_output=True)
    metrics = json.loads((folder / "results.json").read_bytes())["metrics"]
    return float(metrics["cost/seconds"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each training, about")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    threads = arguments.threads
    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        addresses = {
            "refusing": f"http://127.0.0.1:{free_port()}",
            "slow": stack.enter_context(sick(10, 200)),
            "500": stack.enter_context(sick(0, 500)),
        }
        # The end of a run may wait for a server; that is no part of the training.
        variants = {"none": ["tracking=none"]} | {
            name: [f"tracking.uri={uri}", "tracking.flush_seconds=3"]
            for name, uri in addresses.items()
        }
        trial = 5
        epoch = cost(root / "warm", trial, threads, "tracking=none") / trial
        epochs = math.ceil(arguments.seconds / epoch)
        print(f"{os.cpu_count()} cores, {threads} threads, {epochs} epochs, seconds:")
        taken: dict[str, list[float]] = {name: [] for name in variants}
        for number in range(arguments.rounds):
            # Each variant takes each place in turn: a machine that slows down is fair to all.
            order = [*variants][number % len(variants) :] + [*variants][: number % len(variants)]
            for name in order:
                folder = root / f"{name}-{number}"
                taken[name].append(cost(folder, epochs, threads, *variants[name]))
            row = "  ".join(f"{name} {taken[name][-1]:6.2f}" for name in variants)
            print(f"{row}  load {os.getloadavg()[0]:.1f}", flush=True)
    for name in addresses:
        ratios = [one / other for one, other in zip(taken[name], taken["none"], strict=True)]
        shown = " ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"{name}: median {statistics.median(ratios):.3f} of {shown} (asked: {ASKED})")


if __name__ == "__main__":
    main()
