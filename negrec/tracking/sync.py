"""The verb ``negrec sync``: sends to MLflow what a run kept back."""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass
from pathlib import Path

from negrec.errors import InputError
from negrec.tracking.events import FILE_NAME, Event, EventLog
from negrec.tracking.mlflow import Delivery, Progress, absolute_uri, shown_at
from negrec.tracking.runs import find_run

DEFAULT_URI = "sqlite:///mlflow.db"


@dataclass(frozen=True, slots=True)
class Synced:
    """What a run's MLflow holds after an attempt to send the rest.

    Attributes:
        complete: everything has arrived.
        values: metric values that were sent this time.
        progress: how far the run has been sent.
    """

    complete: bool
    values: int
    progress: Progress


def sync(folder: Path, uri: str | None = None) -> Synced:
    """Sends what MLflow has not got of a run; nothing arrives twice.

    Args:
        folder: the run folder.
        uri: where to; by default where the run was tracked, or the store of the working
            directory for a run with ``tracking=none``.
    """
    events = EventLog(folder / FILE_NAME)
    if not events.size:
        raise InputError(f"{events.path}: no events, the run has nothing to send")
    before = Progress.read(folder)
    uri = absolute_uri(uri or before.uri or DEFAULT_URI)
    delivery = Delivery(folder, uri, before.artifact_root)
    complete = delivery.finish(math.inf, patience=math.inf)
    after = Progress.read(folder)
    same = (before.uri, before.mlflow_run) == (after.uri, after.mlflow_run)
    values = sum(
        len(event.values)
        for event, end in events.read(before.sent if same else 0)
        if event.kind == "metrics" and end <= after.sent
    )
    return Synced(complete, values, after)


def attach(folder: Path, path: Path) -> bool:
    """Adds a file or folder to a run that has ended, and sends it; whether it has arrived.

    Args:
        folder: the run's, or the sweep's.
        path: inside it.
    """
    events = EventLog(folder / FILE_NAME)
    events.append(Event("artifact", {"path": path.relative_to(folder).as_posix()}))
    # Without a store so far (tracking=none) it waits for `negrec sync`, as the values do.
    return bool(Progress.read(folder).uri) and sync(folder).complete


def main(argv: list[str]) -> int:
    """``negrec sync run=ID [uri=URI]``; 0 when everything has arrived, 1 when not."""
    parser = argparse.ArgumentParser(
        prog="negrec sync", description="Send to MLflow what a run kept back while it was away."
    )
    parser.add_argument("run", metavar="run=ID", help="the run's id, or its folder")
    parser.add_argument(
        "uri", metavar="uri=URI", nargs="?", help="where to; by default where the run was tracked"
    )
    parser.add_argument("--root", default="multirun", help="the folder of all runs (%(default)s)")
    given = parser.parse_args(argv)
    run = given.run.removeprefix("run=")
    is_folder = (Path(run) / FILE_NAME).is_file()
    folder = Path(run) if is_folder else find_run(run, Path(given.root))
    done = sync(folder.absolute(), given.uri and given.uri.removeprefix("uri="))
    if done.complete:
        print(f"{done.values} values sent, everything is there; {shown_at(done.progress)}")
        return 0
    reason = done.progress.trouble or "another process is sending this run"
    print(
        f"negrec: not everything could be sent ({reason}); it stays in {folder / FILE_NAME}",
        file=sys.stderr,
    )
    return 1
