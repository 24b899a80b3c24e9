"""The jobs of a sweep, as their folders tell them: done, failed, or still to do."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from negrec.writing import replacing

Retry = Literal["failed", "all", "none"]
Status = Literal["NEW", "RUNNING", "KILLED", "FAILED", "FINISHED"]

# Where runs lie that others took the place of; no part of the sweep's results.
SUPERSEDED = "superseded"
_FAILURE = "failure.json"
# What Hydra writes before a job begins, and the lock of who works on it.
_HYDRAS = (".hydra", "train.log", "run.lock")


@dataclass(frozen=True)
class Failure:
    """Why a job has no result.

    Attributes:
        error: the reason, in one line.
        command: what repeats the job alone.
        key: of the job; None where it failed before its data was read.
    """

    error: str
    command: str
    key: str | None

    def write(self, folder: Path) -> None:
        """Keeps it in the job's folder."""
        with replacing(folder / _FAILURE) as file:
            file.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Past:
    """What became of a job so far.

    Attributes:
        status: NEW where it never began; RUNNING also where its process was killed.
        run_id: of its run, None where there is none.
        key: what determines its result, as a hash; None where it is not known.
        value: its best validation value, where it is finished.
        metric: the name of that value.
        seconds: of training and validation, where it is finished.
        failure: why it failed, where it did.
        resumable: whether its run was untouched by the failure, as when the data was not there.
        git_commit: of negrec when it ran; None where it is not known.
        ended: when it finished or failed, seconds since 1970.
    """

    status: Status
    run_id: str | None = None
    key: str | None = None
    value: float | None = None
    metric: str = ""
    seconds: float = 0.0
    failure: Failure | None = None
    resumable: bool = False
    git_commit: str | None = None
    ended: float = 0.0


def look(folder: Path) -> Past:
    """What a job's folder says."""
    run = _json(folder / "run.json")
    run_id, key, commit = run.get("run_id"), run.get("key"), run.get("git_commit")
    status: Status = run.get("status", "NEW")
    results = _json(folder / "results.json").get("metrics")
    if status == "FINISHED" and not results:
        status = "KILLED"  # somebody deleted its results: measured again
    if status == "FINISHED" and results:
        return Past(
            status,
            run_id,
            key,
            results.get("best/value"),
            run["config"]["trainer.metric"],
            results.get("cost/seconds", 0.0),
            git_commit=commit,
            ended=(folder / "results.json").stat().st_mtime,
        )
    failed = _json(folder / _FAILURE)
    if failed:
        failure = Failure(**failed)
        resumable = status in ("RUNNING", "KILLED")
        ended = (folder / _FAILURE).stat().st_mtime
        key = key or failure.key
        return Past("FAILED", run_id, key, failure=failure, resumable=resumable, ended=ended)
    return Past(status, run_id, key)


def settled(folder: Path, key: str, retry: Retry, started: float) -> Past | None:
    """What the job came to, where it need not run; None where it must, and the way is clear.

    An interrupted job goes on in its folder. What a job left that runs anew is moved aside. The
    caller is alone in the folder.

    Args:
        folder: of the job.
        key: what determines its result now.
        retry: what is done anew.
        started: when the command was given; what was done since is not done again.
    """
    past = look(folder)
    if past.key in (None, key):
        done = past.status == "FINISHED" and retry != "all"
        left = past.status == "FAILED" and retry == "none"
        if done or left or (past.status in ("FINISHED", "FAILED") and past.ended >= started):
            return past
        if past.status in ("NEW", "RUNNING", "KILLED"):
            return None
    if past.resumable:
        (folder / _FAILURE).unlink()
        return None
    set_aside(folder, past.run_id)
    return None


def set_aside(folder: Path, run_id: str | None) -> None:
    """Moves what a job left to the sweep's folder for such runs, where it can still be found."""
    target = folder.parent / SUPERSEDED / f"{folder.name}_{run_id or int(time.time())}"
    target.mkdir(parents=True, exist_ok=True)
    # The record goes last: killed on the way, the next attempt moves the rest.
    entries = sorted(folder.iterdir(), key=lambda path: path.name in ("run.json", _FAILURE))
    for entry in entries:
        if entry.name not in _HYDRAS:
            entry.rename(target / entry.name)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):  # absent, or being written
        return {}
    return found if isinstance(found, dict) else {}
