"""Where the numbers of a report come from, and what to type to get them again, or better ones."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import negrec
from negrec.reporting import wording
from negrec.reporting.cells import Comparison
from negrec.reporting.runs import SWEEP, Run, Runs

_NAMED_AT_MOST = 20  # commands
_CUT = {"seeds": "seeds per cell", "max_epochs": "epochs per run"}  # of an order


def repeat(found: Runs, comparisons: Sequence[Comparison]) -> Iterator[tuple[str, str]]:
    """What is needed to repeat the runs."""
    runs = [run for comparison in comparisons for run in comparison.runs]
    yield "sweep", ", ".join(found.names) or "single runs"
    yield "runs", f"{len(runs)} in the tables, of: {found.states}"
    yield "negrec", ", ".join(sorted({run.version for run in runs}))
    commits = sorted({run.git_commit or "not from a checkout" for run in runs})
    yield "commit", ", ".join(commits) + (" (several: not one code)" if len(commits) > 1 else "")
    for comparison in comparisons:
        data = {run.data_hash for run in comparison.runs}
        splits = sorted({run.split_hash for run in comparison.runs})
        more = f" and {len(splits) - 1} more, by seed" if len(splits) > 1 else ""
        yield comparison.title, f"data {', '.join(sorted(data))}; split {splits[0]}{more}"
        seeds = sorted({run.seed for run in comparison.runs})
        yield f"{comparison.title}, seeds", ", ".join(map(str, seeds))
    took = math.fsum(run.metric("cost/seconds") for run in runs)
    yield "time", f"{wording.duration(took)} of training and validation, all runs together"
    for folder in found.folders:
        for order in _orders(folder):
            yield from _foretold(order)
    hardware = sorted({run.hardware for run in runs if run.hardware})
    yield "hardware", "; ".join(hardware) or "not written down"
    yield "report", f"negrec {negrec.__version__}"


def _foretold(order: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What was expected of a command before its jobs ran, and what a budget left of it."""
    if isinstance(seconds := order.get("seconds"), int | float):
        at_once = order.get("at_once", 1)
        side_by_side = f"{at_once} job{'' if at_once == 1 else 's'} at once"
        about = f"{wording.duration(seconds)} for {order.get('jobs')} jobs, {side_by_side}"
        yield "foretold", f"{about}: {order['command']}"
    cut = [f"{order[key]} {what}" for key, what in _CUT.items() if order.get(key) is not None]
    if cut:
        yield "cut for its budget", f"to {' and '.join(cut)}: {order['command']}"


def commands(found: Runs) -> Iterator[str]:
    """What was typed."""
    single = []
    for folder in found.folders:
        orders = _orders(folder)
        yield from (order["command"] for order in orders)
        if not orders:
            single.append(folder)
    if single:
        kinds = dict.fromkeys(
            f"negrec train {' '.join(run.overrides)}"
            for run in found.finished
            if any(run.folder.is_relative_to(folder) for folder in single)
        )
        yield from [*kinds][:_NAMED_AT_MOST]
        if len(kinds) > _NAMED_AT_MOST:
            yield f"# and {len(kinds) - _NAMED_AT_MOST} more"


def go_on(found: Runs, runs: Sequence[Run]) -> Iterator[str]:
    """What to type to train runs that were still improving twice as long.

    A sweep's command with more epochs, else each run's own, which goes on where it stopped.

    Args:
        found: that they are from.
        runs: that were still improving in their last epoch.
    """
    if not runs:
        return
    longer = f"trainer.max_epochs={2 * max(run.epochs for run in runs)}"
    folders = [folder for folder in found.folders if _orders(folder)]
    for command in (order["command"] for folder in folders for order in _orders(folder)):
        words = [w for w in shlex.split(command) if not w.startswith("trainer.max_epochs=")]
        yield shlex.join([*words, longer])
    alone = [run for run in runs if not any(run.folder.is_relative_to(f) for f in folders)]
    for run in alone[:_NAMED_AT_MOST]:
        yield f"negrec train run={run.run_id} trainer.max_epochs={2 * run.epochs}"
    if len(alone) > _NAMED_AT_MOST:
        yield f"# and {len(alone) - _NAMED_AT_MOST} more"


def _orders(folder: Path) -> list[dict[str, Any]]:
    """The commands that a sweep wrote down of itself; none where it did not."""
    try:
        record = json.loads((folder / SWEEP).read_bytes())
        return [order for order in record["orders"] if isinstance(order["command"], str)]
    except (OSError, ValueError, KeyError, TypeError):
        return []
