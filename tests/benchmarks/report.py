"""How long a report over 1,000 runs takes: ``python -m tests.benchmarks.report``.

Writes run folders as ``negrec train`` leaves them (7 samplers x 7 data sets x 20 seeds and 20
killed, 30 epochs, as many test targets as Beauty has) and reports them in all formats, in a new
process as a user would. Asked: under 20 seconds.

    python -m tests.benchmarks.report --runs=FOLDER --rounds=3
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import polars as pl

from tests.reporting.fake_runs import write

ASKED = 20.0  # seconds
SAMPLERS = ("adaptive", "adaptive_mixed", "genni", "in_batch", "mixed", "popularity", "uniform")
DATA_SETS, SEEDS, KILLED, EPOCHS, TARGETS = 7, 20, 20, 30, 22_363
# What a run logs per epoch beside what the fake ones have.
LOGGED = {
    **{f"valid/other_{i}": 0.1 for i in range(40)},
    **{f"diag/{name}": 0.4 for name in ("hardness", "distinct", "mean_count", "vanishing")},
}


def make(folder: Path) -> None:
    """A sweep of so many runs."""
    generator = np.random.default_rng(0)
    k = np.arange(1, 101)
    calibration = pl.DataFrame({"k": k, "probability": 0.3 / k, "precision": 0.1 / k})
    for data_set in range(DATA_SETS):
        for at, sampler in enumerate(SAMPLERS):
            for seed in range(SEEDS):
                value = 0.02 + 0.01 * at + generator.normal(0, 0.001)
                run = write(
                    folder / f"d{data_set}-{sampler}-s{seed}",
                    sampler=sampler,
                    dataset=f"d{data_set}",
                    seed=seed,
                    valid=0.8 * value,
                    test=value,
                    epochs=EPOCHS,
                    best_epoch=22,
                    epoch_seconds=1.0 + at,
                    targets=TARGETS,
                    data_hash=f"d{data_set}",
                    split_hash=f"s{data_set}",
                    epoch_metrics=LOGGED,
                )
                calibration.write_parquet(run / "calibration.parquet")
    for seed in range(SEEDS, SEEDS + KILLED):
        write(folder / f"killed-s{seed}", status="KILLED", seed=seed)
    record = {"name": folder.name, "command": "negrec train -m ..."}
    (folder / "sweep.json").write_text(json.dumps(record))


def main() -> int:
    """Makes the runs where they are not there yet, and reports them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--runs", type=Path, help="folder for the runs; kept for another time")
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = asked.runs or Path(temporary)
        if not (root / "big" / "sweep.json").exists():
            make(root / "big")
        words = ["report", "sweep=big", f"paths.runs_dir={root}", f"out={Path(temporary) / 'out'}"]
        seconds = []
        for _ in range(asked.rounds):
            load, began = os.getloadavg()[0], time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "negrec", *words],
                check=True,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            seconds.append(time.perf_counter() - began)
            print(f"{seconds[-1]:.1f} s, load {load:.1f} on {os.cpu_count()} CPU threads")
    print(f"median {median(seconds):.1f} s of {ASKED:.0f} s")
    return 0 if median(seconds) < ASKED else 1


if __name__ == "__main__":
    sys.exit(main())
