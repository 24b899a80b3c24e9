"""Two workers on two cores against one job after the other: ``python -m tests.benchmarks.sweeps``.

Both run the same jobs, in alternation; data, cache and modules are warm. What is compared is the
whole command, from its start to its last line.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def seconds(folder: Path, launcher: str, arguments: argparse.Namespace) -> float:
    """Of a sweep of ``arguments.jobs`` seeds."""
    words = [f"hydra/launcher={launcher}", f"seed=range({arguments.jobs})", "sweep.probe=0"]
    words += [f"dataset={arguments.dataset}", f"trainer.max_epochs={arguments.epochs}"]
    words += [
        f"paths.runs_dir={folder}",
        f"sweep.name={launcher}",
        f"tracking={arguments.tracking}",
        f"trainer.threads={arguments.threads}",
    ]
    variables = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    began = time.perf_counter()
    command = [sys.executable, "-m", "negrec", "train", "-m", *words]
    subprocess.run(command, check=True, env=variables, stdout=subprocess.DEVNULL)
    taken = time.perf_counter() - began
    shutil.rmtree(folder / launcher)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tracking", default="none")
    # auto: one after the other with all cores, side by side with one each, as it is by default.
    parser.add_argument("--threads", default="auto")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {arguments}")
    with tempfile.TemporaryDirectory() as name:
        seconds(Path(name), "basic", arguments)  # warms what is read from disk
        taken = [
            (seconds(Path(name), "basic", arguments), seconds(Path(name), "joblib", arguments))
            for _ in range(arguments.rounds)
        ]
    ratios = [one / two for one, two in taken]
    for one, two in taken:
        print(f"one after the other {one:.1f} s, joblib {two:.1f} s: {one / two:.2f} times")
    print(f"median {statistics.median(ratios):.2f} times as fast (asked: 1.5)")


if __name__ == "__main__":
    main()
