"""What is in no table of a report, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from negrec.reporting.cells import Sorted
from negrec.reporting.runs import Runs

_NAMED_AT_MOST = 20  # runs of one kind


@dataclass(frozen=True)
class LeftOut:
    """Runs that are in no table.

    Attributes:
        why: of all of them.
        what: one line each; empty where their number says enough.
        count: of them.
        urgent: whether something went wrong that wants to be looked into.
    """

    why: str
    what: tuple[str, ...]
    count: int
    urgent: bool = False


def left_out(found: Runs, sorted_runs: Sorted) -> Iterator[LeftOut]:
    """Everything that is in no table, and why."""
    counted = Counter(run.status for run in found.unfinished)
    for status in sorted(counted):
        runs = [run for run in found.unfinished if run.status == status]
        yield _of_kind(
            f"{status.lower()}, not finished",
            [f"{run.run_id} ({run.folder.name}): negrec train run={run.run_id}" for run in runs],
        )
    if found.failed:
        told = [
            f"{failed.folder.name}: {failed.error}"
            + (f"; to repeat it: {failed.command}" if failed.command else "")
            for failed in found.failed
        ]
        yield replace(_of_kind("failed", told), urgent=True)
    if found.superseded:
        yield LeftOut("set aside by the sweep: others took their place", (), found.superseded)
    if found.damaged:
        yield _of_kind(
            "incomplete: something was deleted or broken",
            [f"{damaged.folder.name}: {damaged.reason}" for damaged in found.damaged],
        )
    if sorted_runs.superseded:
        yield _of_kind(
            "run twice with the same setting and seed: the newest counts",
            [
                f"{old.run_id} ({old.folder.name}), for which {new.run_id} ({new.folder.name}) "
                "counts"
                for old, new in sorted_runs.superseded
            ],
        )
    if sorted_runs.untested:
        yield _of_kind(
            "never measured on the test targets",
            [f"{run.run_id} ({run.folder.name})" for run in sorted_runs.untested],
        )


def _of_kind(why: str, what: Sequence[str]) -> LeftOut:
    shown = [*what[:_NAMED_AT_MOST]]
    if len(what) > _NAMED_AT_MOST:
        shown.append(f"and {len(what) - _NAMED_AT_MOST} more")
    return LeftOut(why, tuple(shown), len(what))
