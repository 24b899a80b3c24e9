"""The log of all that a run tracks: one JSON line per event, appended and never rewritten."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from negrec.writing import unwritable

log = logging.getLogger(__name__)

Kind = Literal["run", "params", "tags", "metrics", "artifact", "model", "status"]
FILE_NAME = "events.jsonl"


def _now() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """Something a run tracked.

    Attributes:
        kind: "run" (run_id, run_name, experiment: the first event), "params", "tags", "metrics",
            "artifact" and "model" (path inside the run folder; a model's is that of a bundle),
            "status" (RUNNING, FINISHED, FAILED, KILLED).
        values: name to value; metrics are floats, all others text.
        step: the epoch of metrics; None for those of the whole run.
        time: milliseconds since 1970, the time that MLflow shows.
    """

    kind: Kind
    values: Mapping[str, str | float]
    step: int | None = None
    time: int = field(default_factory=_now)

    def to_json(self) -> str:
        """One line of strict JSON, where NaN and infinities are the text "nan", "inf", "-inf"."""
        values = {
            name: str(value) if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self.values.items()
        }
        line = {"kind": self.kind, "time": self.time, "step": self.step, "values": values}
        return json.dumps(line, allow_nan=False)

    @classmethod
    def from_json(cls, line: bytes) -> Event:
        """The event of a line; ValueError, KeyError or TypeError where it is none."""
        found = json.loads(line)
        kind, values = found["kind"], dict(found["values"])
        if kind not in get_args(Kind):
            raise ValueError(f"unknown kind {kind!r}")
        if kind == "metrics":
            values = {name: float(value) for name, value in values.items()}
        return cls(kind, values, found["step"], int(found["time"]))


class EventLog:
    """The file of a run's events; one process writes, others may read at the same time.

    The times of its lines never go back, whatever the clock does.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._latest: int | None = None

    @property
    def size(self) -> int:
        """Bytes; 0 where there is no file yet."""
        return self.path.stat().st_size if self.path.exists() else 0

    def repair(self) -> None:
        """Cuts off a last line that a killed process did not finish."""
        if not self.path.exists():
            return
        whole = self.path.read_bytes().rfind(b"\n") + 1
        if whole < self.size:
            log.warning("%s: the torn last line is cut off", self.path)
            os.truncate(self.path, whole)

    def append(self, event: Event) -> None:
        """Adds a line that is in the file, whole, when this returns; else not at all.

        Raises:
            InputError: the file cannot be written.
        """
        if self._latest is None:
            self._latest = max((past.time for past, _ in self.read()), default=0)
        self._latest = max(self._latest, event.time)
        line = replace(event, time=self._latest).to_json().encode() + b"\n"
        try:
            with self.path.open("ab", buffering=0) as file:
                before = file.tell()
                try:
                    written = 0
                    while written < len(line):
                        written += file.write(line[written:])
                except OSError:
                    # A full disk: half a line here would spoil the next event.
                    os.truncate(self.path, before)
                    raise
        except OSError as error:
            raise unwritable(self.path, error) from error

    def read(self, offset: int = 0) -> list[tuple[Event, int]]:
        """The whole events from an offset on, each with the offset behind it."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(offset)
            data = file.read()
        events = []
        for line in data.splitlines(keepends=True):
            offset += len(line)
            if not line.endswith(b"\n"):
                break
            try:
                events.append((Event.from_json(line), offset))
            except (ValueError, KeyError, TypeError) as error:
                # A machine that lost power: one damaged line must not cost the others.
                log.warning("%s: damaged line before byte %d: %s", self.path, offset, error)
        return events
