"""Tracking: what a run was, what it measured, how it ended."""

from __future__ import annotations

import logging
import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from negrec.tracking.events import FILE_NAME, Event, EventLog
from negrec.tracking.redaction import without_secrets

log = logging.getLogger(__name__)

Status = Literal["FINISHED", "FAILED", "KILLED"]
RUN_ID_TAG = "negrec.run_id"

# The names and lengths that every MLflow store takes (mlflow/utils/validation.py).
_FORBIDDEN = re.compile(r"[^\w\-. :/]", re.ASCII)
_LONGEST_NAME = 250
_LONGEST_VALUE = 6000


class Tracker:
    """Keeps all that a run tracks in the run folder's ``events.jsonl``, and nowhere else.

    A run that was interrupted and goes on in the same folder continues its log: values, parameters
    and tags that are there already are not logged again. Secrets never enter the log
    (see :func:`~negrec.tracking.redaction.without_secrets`).

    Args:
        folder: the run folder; it exists.
        run_name: what a person calls the run.
        experiment: the experiment that the run belongs to.
    """

    def __init__(self, folder: Path, run_name: str, experiment: str = "negrec") -> None:
        self.folder = Path(folder).absolute()
        self.run_name = run_name
        self.run_id = run_name
        self.experiment = experiment
        self._log = EventLog(self.folder / FILE_NAME)
        self._log.repair()
        past = [event for event, _ in self._log.read()]
        self._resumed = any(event.kind == "run" for event in past)
        self._finished = False
        self._known: dict[str, dict[str, str | float]] = {"params": {}, "tags": {}}
        self._past_metrics: dict[tuple[str, int | None], float] = {}
        for event in past:
            if event.kind == "metrics":
                self._past_metrics |= {(n, event.step): float(v) for n, v in event.values.items()}
            elif event.kind in self._known:
                self._known[event.kind].update(event.values)

    def start(self, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Begins the run, or goes on with it.

        Args:
            params: the resolved configuration; nested mappings are flattened with dots.
            tags: facts about the run, such as hashes and versions; ``negrec.run_id`` is its id
                (``run=<id>``), the run's name where the tag is missing.
        """
        self.run_id = tags.get(RUN_ID_TAG, self.run_name)
        if not re.fullmatch(r"[^\s'\"`]+", self.run_id):
            raise ValueError(f"{RUN_ID_TAG}={self.run_id!r}: a run id has no spaces and no quotes")
        self._finished = False
        if self._resumed:
            self._log.append(Event("status", {"status": "RUNNING"}))
        else:
            about = {"run_id": self.run_id, "run_name": self.run_name}
            self._log.append(Event("run", about | {"experiment": self.experiment}))
        self._params(dict(_flat(params)))
        self.tag({**tags, RUN_ID_TAG: self.run_id})

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs the metrics of an epoch, or of the whole run, in one line.

        Values that an interrupted run logged before are dropped when the resumed run comes to
        the same step again; those of the whole run only where they are the same, as a finished run
        can be trained longer.

        Args:
            metrics: names as in "valid/hr_10"; NaN and infinities are allowed.
            step: the epoch; None for the whole run.
        """
        for name in metrics:
            if _name(name) != name:
                raise ValueError(f"metric {name!r}: letters, digits and _ - . : / only, 1 to 250")
        new = {
            name: float(value)
            for name, value in metrics.items()
            if (name, step) not in self._past_metrics
            or (step is None and not _same(float(value), self._past_metrics[name, step]))
        }
        if new:
            self._log.append(Event("metrics", new, step))

    def tag(self, tags: Mapping[str, str]) -> None:
        """Adds tags, or gives them new values."""
        clean = {_name(name): _text(value) for name, value in tags.items()}
        new = {name: value for name, value in clean.items() if self._news("tags", name, value)}
        if new:
            self._known["tags"].update(new)
            self._log.append(Event("tags", new))

    def artifact(self, path: Path) -> None:
        """Names a file or folder inside the run folder that belongs to the results."""
        self._log.append(Event("artifact", {"path": self._inside(path)}))

    def stores_model(self, in_sweep: bool) -> bool:
        """Whether the run's model belongs into the store.

        Args:
            in_sweep: the run is one of a sweep's.
        """
        return False

    def model(self, path: Path) -> None:
        """Names a folder inside the run folder that holds the run's model as a bundle."""
        self._log.append(Event("model", {"path": self._inside(path)}))

    def _inside(self, path: Path) -> str:
        inside = Path(path).resolve()
        folder = self.folder.resolve()
        if not inside.is_relative_to(folder) or inside == folder:
            raise ValueError(f"artifact {path}: it must lie inside the run folder {self.folder}")
        if not inside.exists():
            raise FileNotFoundError(f"artifact {path}: no such file or folder")
        return inside.relative_to(folder).as_posix()

    def finish(self, status: Status) -> None:
        """Ends the run; a second call changes nothing."""
        if not self._finished:
            self._finished = True
            self._log.append(Event("status", {"status": status}))

    def identify(self, seconds: float) -> str | None:
        """The store's own id of the run, for runs inside it; None where there is none (yet).

        Args:
            seconds: the longest wait for a store that has to be opened first.
        """
        return None

    def where(self) -> str:
        """One line that says where a person finds the run's values."""
        return f"values: {self._log.path}"

    def _params(self, params: Mapping[str, object]) -> None:
        clean: dict[str, str | float] = {}
        for name, value in params.items():
            clean.setdefault(_name(name), _text(value))
        known = self._known["params"]
        changed = [name for name in clean if name in known and known[name] != clean[name]]
        if changed:
            log.warning("tracking keeps the first values of %s", ", ".join(sorted(changed)))
        new = {name: value for name, value in clean.items() if name not in known}
        if new:
            known.update(new)
            self._log.append(Event("params", new))

    def _news(self, kind: str, name: str, value: str) -> bool:
        return self._known[kind].get(name) != value


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _name(name: object) -> str:
    """The name as every store takes it: no other characters, and a path in its normal form."""
    clean = _FORBIDDEN.sub("_", str(name))[:_LONGEST_NAME]
    usual = posixpath.normpath(clean)
    if usual != clean or usual == "." or usual.startswith(("/", "..")):
        return clean.replace("/", "_").lstrip(".") or "_"
    return clean


def _text(value: object) -> str:
    text = without_secrets(str(value))
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"
