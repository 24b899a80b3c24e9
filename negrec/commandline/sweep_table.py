"""What a sweep says before and after its jobs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from negrec.commandline.plan import Sweep
from negrec.sweeping import duration, jobs
from negrec.sweeping.jobs import Failure, Past

if TYPE_CHECKING:
    from negrec.sweeping.record import Record


def is_open(sweep: Sweep, name: str) -> bool:
    """Whether a job is to run, as far as its folder tells."""
    past, retry = jobs.look(sweep.folder / name), sweep.frame.sweep.retry
    if past.status == "FINISHED":
        return bool(retry == "all")
    return not (past.status == "FAILED" and retry == "none")


def show_plan(sweep: Sweep, record: Record) -> None:
    """The cells with what is known of their cost, and how long all of it will take."""
    console = Console()
    console.print(f"sweep {sweep.name} in {_shown(sweep.folder)}", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("trial" if sweep.searches else "cell", overflow="fold")
    for column in ("jobs", "done", "s/epoch", "epochs at most", "each job", "disk"):
        table.add_column(column, justify="right")
    open_jobs, open_seconds, disk, known = 0, 0.0, 0.0, True
    for cell in sweep.cells:
        names = [folder for _, folder in cell.jobs.values()]
        left = [name for name in names if sweep.searches or is_open(sweep, name)]
        count = sweep.total if sweep.searches else len(names)
        todo = sweep.total if sweep.searches else len(left)
        forecast = record.forecasts.get(cell.key)
        row = [cell.label, str(count), str(count - todo)]
        if forecast is not None:
            row += [f"{forecast.epoch:.1f}", str(forecast.epochs)]
            row += [duration.words(forecast.seconds), _size(forecast.disk)]
            open_seconds += todo * forecast.seconds
            disk += todo * forecast.disk
        else:
            known = known and not todo
            row += ["-"] * 4
        open_jobs += todo
        table.add_row(*row)
    console.print(table)
    if record.seeds or record.max_epochs:
        console.print(_cut(sweep, record), soft_wrap=True)
    if not open_jobs:
        console.print("all jobs are done: there is nothing to run")
    elif record.forecasts:
        side_by_side = min(record.at_once, open_jobs)
        at_once = f"{side_by_side} at once" if side_by_side > 1 else "one after the other"
        console.print(
            f"{open_jobs} jobs to run, {at_once}: at most "
            f"{duration.words(open_seconds / side_by_side)} and {_size(disk)}"
            f"{'' if known else ', without the cells marked -'}; early stopping may end sooner",
            soft_wrap=True,
        )


def _cut(sweep: Sweep, record: Record) -> str:
    budget = sweep.frame.sweep.budget
    what = []
    if record.seeds is not None:
        what.append(f"{record.seeds} seeds of each cell")
    if record.max_epochs is not None:
        what.append(f"at most {record.max_epochs} epochs")
    return f"for sweep.budget={budget}: {' and '.join(what)}"


def _shown(folder: Path) -> Path:
    """A folder as short as it can be said here."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


@dataclass(frozen=True)
class Outcome:
    """What a sweep's jobs have come to.

    Attributes:
        finished: jobs with a result, of this command or an earlier one.
        failed: jobs without one, and why, by their folders' names.
        missing: jobs that did not come to an end.
    """

    finished: int
    failed: dict[str, Past]
    missing: list[str]

    @classmethod
    def of(cls, sweep: Sweep, started: float) -> Outcome:
        """From the folders: of all jobs, or of a search those of this command."""
        names = sweep.folders
        if sweep.searches:
            every = [path.name for path in sweep.folder.glob("*/") if path.name != jobs.SUPERSEDED]
            names = [n for n in every if (sweep.folder / n / ".hydra").is_dir()]
        pasts = {name: jobs.look(sweep.folder / name) for name in names}
        return cls(
            sum(past.status == "FINISHED" for past in pasts.values()),
            {name: past for name, past in pasts.items() if past.status == "FAILED"},
            [name for name, past in pasts.items() if past.status not in ("FINISHED", "FAILED")],
        )

    def errors(self) -> dict[str, list[str]]:
        """What went wrong, and the commands that repeat the jobs."""
        found: dict[str, list[str]] = {}
        for name, past in self.failed.items():
            failure = past.failure or Failure(f"see {name}/train.log", f"run={past.run_id}", None)
            found.setdefault(failure.error, []).append(failure.command)
        return found

    @property
    def metrics(self) -> dict[str, float]:
        """For the tracking store."""
        return {
            "sweep/finished": float(self.finished),
            "sweep/failed": float(len(self.failed)),
            "sweep/unfinished": float(len(self.missing)),
        }


def show_outcome(sweep: Sweep, outcome: Outcome, seconds: float, interrupted: bool) -> None:
    """How many jobs are done, what failed and how it is repeated, and what comes next."""
    console = Console()
    counts = [f"{outcome.finished} finished"]
    if outcome.failed:
        counts.append(f"{len(outcome.failed)} failed")
    if outcome.missing:
        counts.append(f"{len(outcome.missing)} not done")
    console.print(
        f"sweep {sweep.name}: {', '.join(counts)}; {duration.words(seconds)}", soft_wrap=True
    )
    for error, commands in outcome.errors().items():
        console.print(f"failed: {error}", style="red", soft_wrap=True, markup=False)
        for command in commands:  # whole lines, to be copied
            console.print(f"    {command}", soft_wrap=True, markup=False, highlight=False)
    if interrupted or outcome.missing:
        console.print("the same command goes on where it stopped:")
        console.print(f"  {sweep.command}", soft_wrap=True, markup=False)
    if outcome.finished:
        console.print(f"compare them with: negrec report sweep={sweep.name}", soft_wrap=True)
