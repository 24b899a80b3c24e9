"""One run by several processes, and runs side by side: ``python -m tests.benchmarks.ranks``.

Whole commands in alternation: data, cache and modules are warm. The first table is of one run: a
process with one thread and with two, and two ranks (torchrun) with one thread each. The second is
of a sweep: its jobs one after the other, by joblib one at a time (what the launcher itself costs),
and by joblib two at a time.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

PLAIN = ("-m", "negrec", "train")
RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", *PLAIN)
ONE_RUN = {
    "1 process, 1 thread": (PLAIN, ("trainer.threads=1",)),
    "1 process, 2 threads": (PLAIN, ("trainer.threads=2",)),
    "2 ranks, 1 thread each": (RANKS, ("trainer.threads=1",)),
}
JOBLIB = "hydra/launcher=joblib"
SWEEPS = {
    "one after the other, 1 thread": ("trainer.threads=1",),
    "one after the other, 2 threads": ("trainer.threads=2",),
    "joblib, 1 at a time, 1 thread": (JOBLIB, "hydra.launcher.n_jobs=1", "trainer.threads=1"),
    "joblib, 2 at a time, 1 thread each": (JOBLIB, "hydra.launcher.n_jobs=2", "trainer.threads=1"),
}


def run(command: Sequence[str], words: Sequence[str]) -> float:
    """Seconds of a command, from its start to its last line."""
    left = ("OMP_NUM_THREADS", "RANK", "WORLD_SIZE")
    variables = {name: value for name, value in os.environ.items() if name not in left}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *command, *words],
        check=True,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - began


def epochs(folder: Path) -> list[float]:
    """Training seconds of each epoch but the first of the only run in a folder."""
    (log,) = folder.glob("*/*/events.jsonl")
    values = [json.loads(line) for line in log.read_text().splitlines()]
    name = "train/epoch_seconds"
    return [x["values"][name] for x in values if x["kind"] == "metrics" and name in x["values"]][1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="beauty")
    parser.add_argument("--epochs", type=int, default=4, help="of one run; the first is left out")
    parser.add_argument("--jobs", type=int, default=4, help="of a sweep")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--words", nargs="*", default=[], help="further ones for each command")
    arguments = parser.parse_args()
    common = (f"dataset={arguments.dataset}", "tracking=none", *arguments.words)
    of_one = (*common, f"trainer.max_epochs={arguments.epochs}")
    of_sweep = (*common, "trainer.max_epochs=1", f"seed=range({arguments.jobs})", "sweep.probe=0")
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, {arguments}")
    taken: dict[str, list[float]] = {name: [] for name in (*ONE_RUN, *SWEEPS)}
    trained: dict[str, list[float]] = {name: [] for name in ONE_RUN}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "runs"
        there = f"paths.runs_dir={folder}"
        for number in range(arguments.rounds + 1):  # the first one warms the disk's cache
            for name, (command, words) in ONE_RUN.items():
                seconds = run(command, (*of_one, *words, there))
                if number:
                    taken[name].append(seconds)
                    trained[name] += epochs(folder)
                shutil.rmtree(folder)
            for name, words in SWEEPS.items() if number else ():
                taken[name].append(run((*PLAIN, "-m"), (*of_sweep, *words, there, "sweep.name=s")))
                shutil.rmtree(folder)
    alone = statistics.median(trained["1 process, 1 thread"])
    print("\n| one run | s/epoch | times as fast | whole command, s |\n|---|---|---|---|")
    for name in ONE_RUN:
        each, whole = statistics.median(trained[name]), statistics.median(taken[name])
        print(f"| {name} | {each:.2f} | {alone / each:.2f} | {whole:.1f} |")
    first = statistics.median(taken["one after the other, 1 thread"])
    print(f"\n| {arguments.jobs} runs of one epoch | s/run | times as fast |\n|---|---|---|")
    for name in SWEEPS:
        whole = statistics.median(taken[name])
        print(f"| {name} | {whole / arguments.jobs:.2f} | {first / whole:.2f} |")


if __name__ == "__main__":
    main()
