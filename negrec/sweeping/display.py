"""What a person sees of a sweep: a line for each running job, and one for all of them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from negrec.sweeping import duration, jobs
from negrec.tracking.events import FILE_NAME, EventLog

_POLL_SECONDS = 1.0


@dataclass
class _Running:
    """A job on its way, as its events tell it."""

    folder: Path
    offset: int = 0
    epoch: int = 0
    epochs: int = 0
    metric: str = ""
    value: float | None = None
    best: float | None = None
    seconds: float | None = None

    def update(self) -> None:
        """Reads what was logged since the last time."""
        for event, end in EventLog(self.folder / FILE_NAME).read(self.offset):
            self.offset = end
            if event.kind == "params":
                self.epochs = int(event.values.get("trainer.max_epochs", self.epochs))
                self.metric = str(event.values.get("trainer.metric", self.metric))
            if event.kind == "metrics" and event.step is not None:
                self.epoch = max(self.epoch, event.step + 1)
                self.seconds = float(event.values.get("train/epoch_seconds", 0))
                found = event.values.get(f"valid/{self.metric}")
                if found is not None:
                    self.value = float(found)
                    self.best = max(self.value, self.best or self.value)

    @property
    def share(self) -> float:
        """Of the job's epochs that are done."""
        return self.epoch / self.epochs if self.epochs else 0.0

    def line(self) -> str:
        parts = [f"epoch {self.epoch}/{self.epochs}"]
        if self.value is not None:
            parts.append(f"{self.metric} {self.value:.4f} (best {self.best:.4f})")
        if self.seconds:
            parts.append(f"{self.seconds:.1f} s/epoch")
        return "  ".join(parts)


class Display:
    """Watches the folders of a sweep's jobs, whoever works on them, until it is left.

    On a terminal there is a line for each running job and one for the sweep, with the time left.
    Elsewhere only the end of each job is told.

    Args:
        folder: of the sweep.
        expected: seconds foretold of each job that is to run, by its folder's name; None where
            they are not known. Empty where a search decides on the way.
        total: jobs of the sweep, also the ones that are done.
        done: of these, before it began.
        at_once: jobs that run side by side.
        started: what ended earlier is not told, seconds since 1970.
    """

    def __init__(
        self,
        folder: Path,
        expected: Mapping[str, float | None],
        total: int,
        done: int,
        at_once: int,
        started: float,
        console: Console | None = None,
    ) -> None:
        self._folder = folder
        self._expected = dict(expected)
        self._total, self._done = total, done
        self._at_once = at_once
        self._started = started
        self._console = console or Console()
        self._running: dict[str, _Running] = {}
        self._told: set[str] = set()
        self._errors: set[str] = set()
        self._spent = self._foretold = 0.0
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._left.set()
        self._thread.join()
        self._look()  # the last job's end
        if self._live is not None:
            self._live.stop()

    def _watch(self) -> None:
        while not self._left.wait(_POLL_SECONDS):
            self._look()
            if self._live is not None:
                self._live.update(self._shown(), refresh=True)

    def _look(self) -> None:
        """Which jobs run, and which have ended since the last look."""
        for folder in sorted(self._folder.glob("*/")):
            if folder.name in self._told or folder.name == jobs.SUPERSEDED:
                continue
            past = jobs.look(folder)
            if past.status in ("FINISHED", "FAILED"):
                if past.ended >= self._started:
                    self._end(folder.name, past)
                elif self._expected and folder.name not in self._expected:
                    self._told.add(folder.name)  # done before, and not to be done again
                continue
            log_file = folder / "train.log"
            working = log_file.exists() and log_file.stat().st_mtime >= self._started
            if past.status == "RUNNING" and working:
                self._running.setdefault(folder.name, _Running(folder)).update()

    def _end(self, name: str, past: jobs.Past) -> None:
        self._told.add(name)
        self._done = min(self._done + 1, self._total)
        self._running.pop(name, None)
        foretold = self._expected.get(name)
        if past.status == "FINISHED" and foretold:
            self._spent, self._foretold = self._spent + past.seconds, self._foretold + foretold
        what = f"[{self._done}/{self._total}] {name}: "
        if past.failure is not None:
            new = past.failure.error not in self._errors
            self._errors.add(past.failure.error)
            what += f"FAILED: {past.failure.error}" if new else "FAILED, as before"
        elif past.value is None:
            what += "done"
        else:
            spent = duration.words(past.seconds)
            what += f"best valid/{past.metric} {past.value:.4f}, trained for {spent}"
        self._console.print(Text(what), soft_wrap=True)

    def seconds_left(self) -> float | None:
        """Until the last job's end, as far as the forecasts and the jobs so far tell."""
        waiting = {n: s for n, s in self._expected.items() if n not in self._told}
        if not waiting or any(seconds is None for seconds in waiting.values()):
            return None
        pace = self._spent / self._foretold if self._foretold else 1.0
        left = 0.0
        for name, seconds in waiting.items():
            job = self._running.get(name)
            left += (seconds or 0.0) * (1 - (job.share if job else 0.0))
        return pace * left / max(1, min(self._at_once, len(waiting)))

    def _shown(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for name, job in sorted(self._running.items()):
            table.add_row(name, job.line())
        left = self.seconds_left()
        words = "" if left is None else f"about {duration.words(left)} left"
        whole = Table.grid(padding=(0, 2))
        whole.add_row(
            f"{self._done}/{self._total} jobs",
            ProgressBar(total=max(self._total, 1), completed=self._done, width=40),
            words,
        )
        return Group(table, whole)
