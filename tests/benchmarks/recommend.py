"""What lists for everybody take: ``python -m tests.benchmarks.recommend``.

SASRec with its default settings and random weights, histories of random items whose lengths are
those of Amazon Beauty (at least 5, 8.9 in the mean). Asked: the top 20 of 12,000 items for 100,000
users, written to Parquet, in 30 s on two cores.

    python -m tests.benchmarks.recommend --users=100000 --items=12000 --threads=2
"""

import argparse
import os
import resource
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from negrec.commandline import recommend
from negrec.models.sasrec import SASRec
from negrec.scoring import ItemScorer
from negrec.serving import recommender as serving
from negrec.serving.recommender import Recommender, Taken
from negrec.types import Batch, DatasetInfo

SECONDS = 30.0
SHORTEST = 5


class Clock:
    """Seconds by name; what is timed inside of something else is not booked twice."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._inner = [0.0]

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        self._inner.append(0.0)
        yield
        whole = time.perf_counter() - started
        self.seconds[name] += whole - self._inner.pop()
        self._inner[-1] += whole


class TimedModel(SASRec):
    """A model that books its time."""

    clock: Clock

    def represent(self, batch: Batch) -> Tensor:
        with self.clock.timed("encode"):
            return super().represent(batch)


class TimedRecommender(Recommender):
    """A recommender that books its time."""

    clock: Clock

    def of(self, taken: Taken) -> serving.Histories:
        with self.clock.timed("read ids"):
            return super().of(taken)

    def top(
        self, histories: serving.Histories, k: int, seen: serving.Seen = "filter"
    ) -> tuple[Tensor, Tensor]:
        with self.clock.timed("score and pick"):
            return super().top(histories, k, seen)

    def frame(self, people: pl.Series, items: Tensor, scores: Tensor) -> pl.DataFrame:
        with self.clock.timed("own ids"):
            return super().frame(people, items, scores)


def histories(users: int, items: int, mean: float) -> Taken:
    """Random ones; own ids are texts."""
    rng = np.random.default_rng(0)
    lengths = SHORTEST - 1 + rng.geometric(1 / (mean - SHORTEST + 1), users)
    return Taken(
        pl.Series([f"user {i}" for i in range(users)]),
        pl.Series([f"item {i}" for i in range(items)]),
        np.repeat(np.arange(users), lengths),
        rng.integers(0, items, lengths.sum()),
    )


def measured(users: int, items: int, mean: float, k: int, threads: int) -> Clock:
    """Seconds of each phase."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    clock, taken = Clock(), histories(users, items, mean)
    info = DatasetInfo(users, items, max_length=50, counts=torch.ones(items, dtype=torch.int64))
    model = TimedModel(info, scorer=ItemScorer).eval()
    recommender = TimedRecommender(model, info, taken.item_ids, taken.user_ids)
    model.clock = recommender.clock = clock
    with tempfile.TemporaryDirectory() as folder, clock.timed("write"):
        read = recommender.of(taken)
        lists = recommend._lists(recommender, taken.user_ids, read, k, "filter")
        recommend._write(Path(folder) / "recs.parquet", lists)
    return clock


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.recommend",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--length", type=float, default=8.9, help="of a history, in the mean")
    parser.add_argument("--top", type=int, default=20)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    seconds = measured(asked.users, asked.items, asked.length, asked.top, asked.threads).seconds
    table = Table(
        title=f"top {asked.top} of {asked.items:,} items for {asked.users:,} users, histories of "
        f"{asked.length:g} items, {asked.threads} threads"
    )
    table.add_column("phase")
    table.add_column("seconds", justify="right")
    for name, value in seconds.items():
        table.add_row(name, f"{value:.2f}")
    whole = sum(seconds.values())
    table.add_row("together", f"{whole:.2f}" + (" !" if whole > SECONDS else ""), style="bold")
    Console().print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Console().print(
        f"at most {SECONDS:.0f} s are asked for; peak memory of the process {peak:.0f} MB; load "
        f"average before and after: {before:.2f}, {os.getloadavg()[0]:.2f}"
    )


if __name__ == "__main__":
    main()
