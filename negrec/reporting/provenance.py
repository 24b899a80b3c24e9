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
_CUT = {"seeds": "seeds per cell", "max_epochs": "epochs per run"}  # of a sweep's record


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
    for name, record in zip(found.names, map(_record, found.folders), strict=False):
        if isinstance(seconds := record.get("seconds"), int | float):
            at_once = record.get("at_once", 1)
            yield (
                f"foretold for {name}",
                f"{wording.duration(seconds)}, {at_once} job{'' if at_once == 1 else 's'} at once",
            )
        cut = [f"{record[key]} {what}" for key, what in _CUT.items() if record.get(key) is not None]
        if cut:
            yield f"{name} was cut for its budget to", " and ".join(cut)
    hardware = sorted({run.hardware for run in runs if run.hardware})
    yield "hardware", "; ".join(hardware) or "not written down"
    yield "report", f"negrec {negrec.__version__}"


def commands(found: Runs) -> Iterator[str]:
    """What was typed."""
    single = []
    for folder in found.folders:
        command = _record(folder).get("command")
        if isinstance(command, str):
            yield command
        else:
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
    typed = {folder: _record(folder).get("command") for folder in found.folders}
    for command in typed.values():
        if isinstance(command, str):
            words = [w for w in shlex.split(command) if not w.startswith("trainer.max_epochs=")]
            yield shlex.join([*words, longer])
    folders = [folder for folder, command in typed.items() if isinstance(command, str)]
    alone = [run for run in runs if not any(run.folder.is_relative_to(f) for f in folders)]
    for run in alone[:_NAMED_AT_MOST]:
        yield f"negrec train run={run.run_id} trainer.max_epochs={2 * run.epochs}"
    if len(alone) > _NAMED_AT_MOST:
        yield f"# and {len(alone) - _NAMED_AT_MOST} more"


def _record(folder: Path) -> Mapping[str, Any]:
    """What a sweep wrote down of itself; nothing where it did not."""
    try:
        record = json.loads((folder / SWEEP).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
