"""How long a large table takes to become a training set: ``python -m tests.benchmarks.reading``.

Makes a table of the size of MovieLens-20M (138,493 users, 26,744 items, 20 million rows in order
of time) as Parquet and as CSV, with texts or numbers for ids, and reads each in a new process on
two threads: table -> cleaning -> cache, then both splits and their training sequences. Then four
processes at once start from the warm cache; their Pss is their own memory and a fair part of the
shared. Asked: 60 seconds and 4 GiB from a cold cache.

    python -m tests.benchmarks.reading 2_000_000 --tables csv parquet --ids text --folder FOLDER
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ASKED_SECONDS, ASKED_GIB = 60.0, 4.0
ROWS, USERS, ITEMS = 20_000_000, 138_493, 26_744
TIMES = ("seconds", "iso")
THREADS = 2
PROCESSES = 4
STAGES = ("read", "leave_one_out", "its sequences", "global_temporal", "sequences of it")


def make(folder: Path, rows: int, ids: str, times: str) -> None:
    """Writes the table in both formats, in order of time as logs are."""
    import numpy as np
    import polars as pl

    name = f"{rows}-{ids}-{times}"
    if (folder / f"{name}.csv").exists():
        return
    rng = np.random.default_rng(0)
    scale = rows / ROWS
    users, items = max(10, int(USERS * scale)), max(10, int(ITEMS * scale**0.5))
    user = np.minimum(rng.integers(0, users, rows), rng.integers(0, users, rows))
    item = (items * rng.random(rows) ** 3).astype(np.int64)  # a few items take most
    second = np.sort(rng.integers(1_100_000_000, 1_400_000_000, rows))
    frame = pl.DataFrame({"user_id": user, "item_id": item, "timestamp": second})
    if ids == "text":
        frame = frame.with_columns(
            pl.format("user-{}@example.org", "user_id").alias("user_id"),
            pl.format("B{}", pl.col("item_id").cast(pl.String).str.zfill(9)).alias("item_id"),
        )
    if times == "iso":
        when = pl.from_epoch("timestamp").dt.strftime("%Y-%m-%dT%H:%M:%SZ")
        frame = frame.with_columns(when.alias("timestamp"))
    frame.write_parquet(folder / f"{name}.parquet")
    frame.write_csv(folder / f"{name}.csv")


def child(path: Path, cache: Path) -> None:
    """Reads the table; prints seconds and memory as JSON and waits for the end of its input."""
    began = time.perf_counter()
    from negrec.data.columns import Columns
    from negrec.data.sequences import Sequences
    from negrec.data.splits.global_temporal import GlobalTemporal
    from negrec.data.splits.leave_one_out import LeaveOneOut
    from negrec.data.tables import load
    from negrec.data.targets import NextItem

    seconds = {"import": time.perf_counter() - began}

    @contextmanager
    def timed(stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[stage] = time.perf_counter() - began

    with timed(STAGES[0]):
        data = load(None, str(path), Columns(), cache, path.parent)
    peak = {STAGES[0]: _peak()}
    with timed(STAGES[1]):
        split = LeaveOneOut()(data, 200, 0)
    with timed(STAGES[2]):
        sequences = Sequences(split.train, 200, NextItem())
    peak[STAGES[2]] = _peak()
    held = {"one": _pss()}
    del split, sequences
    with timed(STAGES[3]):
        split = GlobalTemporal()(data, 200, 0)
    with timed(STAGES[4]):
        sequences = Sequences(split.train, 200, NextItem())
    peak[STAGES[4]] = _peak()
    hashes = [data.hash, split.hash]
    print(
        json.dumps({"seconds": seconds, "peak": peak, "held": held, "hashes": hashes}), flush=True
    )
    sys.stdin.read()
    del data, split, sequences


def _peak() -> float:
    """Largest resident memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _pss(pid: int | str = "self") -> float:
    """A process's own memory and its part of the shared, in GiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 2**20


def start(path: Path, cache: Path) -> "subprocess.Popen[str]":
    """A process that reads the table on two threads."""
    threads = {"OMP_NUM_THREADS": str(THREADS), "POLARS_MAX_THREADS": str(THREADS)}
    return subprocess.Popen(
        [sys.executable, "-m", __spec__.name, "--child", str(path), str(cache)],
        env={**os.environ, **threads},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def measured(path: Path, cache: Path) -> dict[str, Any]:
    """What one process says of itself."""
    out, _ = start(path, cache).communicate()
    said: dict[str, Any] = json.loads(out)
    return said


def shared(path: Path, cache: Path) -> list[float]:
    """Pss of processes that hold the same data, in GiB."""
    processes = [start(path, cache) for _ in range(PROCESSES)]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    pss = [_pss(process.pid) for process in processes]
    for process in processes:
        process.communicate()
    return pss


def main() -> int:
    """Measures each kind of table and prints a line for each."""
    if "--child" in sys.argv:
        child(Path(sys.argv[2]), Path(sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("rows", type=int, nargs="?", default=ROWS)
    parser.add_argument("--tables", nargs="+", default=["parquet", "csv"])
    parser.add_argument("--ids", nargs="+", default=["text", "numbers"])
    parser.add_argument("--times", nargs="+", default=["seconds"], choices=TIMES)
    parser.add_argument("--folder", type=Path, help="for the tables; kept for another time")
    asked = parser.parse_args()
    table = Table(title=f"{asked.rows:,} rows, {THREADS} threads of {os.cpu_count()}")
    columns = ("table", "ids", "times", "load", *STAGES, "cold s", "peak GiB", "warm read s",
               "warm peak", f"Pss of {PROCESSES}, GiB")  # fmt: skip
    for column in columns:
        table.add_column(column, justify="left" if column in columns[:3] else "right")
    good = True
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        for ids in asked.ids:
            for times in asked.times:
                # In a process of its own: a child's peak begins with its parent's memory.
                code = f"from {__spec__.name} import *; from pathlib import *; import sys"
                code += "; make(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])"
                words = [str(folder), str(asked.rows), ids, times]
                subprocess.run([sys.executable, "-c", code, *words], check=True)
                for kind in asked.tables:
                    path = folder / f"{asked.rows}-{ids}-{times}.{kind}"
                    cache = Path(tempfile.mkdtemp(dir=temporary))
                    load = os.getloadavg()[0]
                    cold, warm = measured(path, cache), measured(path, cache)
                    seconds = cold["seconds"]
                    # One split is what a run makes: the slower counts.
                    ready = seconds["read"] + max(
                        seconds[STAGES[1]] + seconds[STAGES[2]],
                        seconds[STAGES[3]] + seconds[STAGES[4]],
                    )
                    peak = max(cold["peak"].values())
                    good &= ready <= ASKED_SECONDS and peak <= ASKED_GIB
                    table.add_row(
                        *(kind, ids, times, f"{load:.1f}"),
                        *(f"{seconds[stage]:.1f}" for stage in STAGES),
                        f"{ready:.1f}",
                        f"{peak:.2f}",
                        f"{warm['seconds']['read']:.2f}",
                        f"{max(warm['peak'].values()):.2f}",
                        " ".join(f"{gib:.2f}" for gib in shared(path, cache)),
                    )
                    print(path.name, json.dumps(cold), file=sys.stderr)
    Console(width=200).print(table)
    print(f"asked: {ASKED_SECONDS:.0f} s and {ASKED_GIB:.0f} GiB from a cold cache")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
