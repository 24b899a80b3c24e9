"""What every measured process shares; it runs in the peers' environments and imports none of ours.

A process is given two paths: the data (``.npz``, see ``exchange`` in ``__main__``) and its work
folder, and prints its measurements as one line of JSON, the last one.
"""

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

DIM, BLOCKS, HEADS, LENGTH, BATCH, DROPOUT, TOP = 64, 2, 2, 50, 256, 0.5, 20


@dataclass
class Span:
    """Seconds of a ``with`` block: by the clock, and of the processor in all threads."""

    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> Self:
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wall, self.cpu = self.so_far()

    def so_far(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu

    def times(self, factor: float) -> Self:
        return type(self)(self.wall * factor, self.cpu * factor)


def peak_mb() -> float:
    """The most that this process ever took: interpreter, libraries and data included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def threads() -> int:
    return int(os.environ["OMP_NUM_THREADS"])


def data() -> tuple[Path, Path]:
    """The data file and a folder to work in."""
    return Path(sys.argv[1]), Path(sys.argv[2])


def report(peak_training: float, note: str = "", **spans: Span) -> None:
    """Says what was measured; a span that is left out is no part of the library."""
    found = {name: asdict(span) for name, span in spans.items()}
    print(json.dumps({"spans": found, "peak": peak_training, "note": note}), flush=True)
