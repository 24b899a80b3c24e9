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
    from negrec.commandline.forecasting import Outlook
    from negrec.sweeping.forecast import Cut


def show_plan(outlook: Outlook) -> None:
    """The cells with what is known of their cost, and how long all of it will take."""
    sweep, console = outlook.sweep, _console()
    console.print(f"sweep {sweep.name} in {_shown(sweep.folder)}", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("trial" if sweep.searches else "cell", overflow="fold")
    for column in ("jobs", "done", "s/epoch", "epochs", "a job", "disk"):
        table.add_column(column, justify="right")
    disk = 0.0
    for cell in sweep.cells:
        count = sweep.total if sweep.searches else len(cell.jobs)
        todo = outlook.todo(cell)
        row = [cell.label, str(count), str(count - todo)]
        forecast = outlook.forecasts.get(cell.key)
        if forecast is not None:
            row += [f"{forecast.epoch:.1f}", str(forecast.epochs)]
            row += [duration.words(forecast.seconds), _size(forecast.disk)]
            disk += todo * forecast.disk
        else:
            row += ["-"] * 4
        table.add_row(*row)
    console.print(table)
    if outlook.cut is not None:
        console.print(_kept(sweep, outlook.cut), soft_wrap=True)
    order, known = outlook.order, len(outlook.waiting)
    if not order.jobs:
        console.print("all jobs are done: there is nothing to run")
    elif order.seconds is None:
        console.print(f"{order.jobs} jobs to run, without a forecast")
    else:
        side_by_side = min(outlook.at_once, order.jobs)
        at_once = f"{side_by_side} at once" if side_by_side > 1 else "one after the other"
        unknown = "" if known == order.jobs else ", without the cells marked -"
        console.print(
            f"{order.jobs} jobs to run, {at_once}: about {duration.words(order.seconds)} and "
            f"{_size(disk)}{unknown}, if no early stopping ends them sooner; starting workers and "
            "tracking come on top",
            soft_wrap=True,
        )


def _console() -> Console:
    """Standard output, wide where it is no terminal: a file has no edge to break words at."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def _kept(sweep: Sweep, cut: Cut) -> str:
    what = []
    if cut.seeds is not None:
        what.append(f"{cut.seeds} seeds of each cell")
    if cut.max_epochs is not None:
        what.append(f"at most {cut.max_epochs} epochs")
    return f"for sweep.budget={sweep.frame.sweep.budget}: {' and '.join(what) or 'all of it fits'}"


def _shown(folder: Path) -> Path:
    """A folder as short as it can be said here."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


def _size(size: float) -> str:
    if size >= 1e9:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


@dataclass(frozen=True)
class Outcome:
    """What a sweep's jobs have come to.

    Attributes:
        finished: jobs with a result, of this command or an earlier one.
        folders: theirs.
        failed: jobs without one, and why, by their folders' names.
        missing: jobs that did not come to an end.
    """

    finished: int
    folders: list[Path]
    failed: dict[str, Past]
    missing: list[str]

    @classmethod
    def of(cls, sweep: Sweep, started: float) -> Outcome:
        """From the folders: of all jobs, or of a search those that it has made."""
        names = sweep.folders
        if sweep.searches:
            every = sorted(path.parent.name for path in sweep.folder.glob("*/train.log"))
            names = [name for name in every if name != jobs.SUPERSEDED]
        pasts = {name: jobs.look(sweep.folder / name) for name in names}
        if sweep.searches:  # what failed for an earlier command was drawn by another search
            old = [n for n, p in pasts.items() if p.status == "FAILED" and p.ended < started]
            pasts = {name: past for name, past in pasts.items() if name not in old}
        finished = [name for name, past in pasts.items() if past.status == "FINISHED"]
        return cls(
            len(finished),
            [sweep.folder / name for name in finished],
            {name: past for name, past in pasts.items() if past.status == "FAILED"},
            [name for name, past in pasts.items() if past.status not in ("FINISHED", "FAILED")],
        )

    def errors(self) -> dict[str, list[str]]:
        """What went wrong, and the commands that repeat the jobs."""
        found: dict[str, list[str]] = {}
        for name, past in self.failed.items():
            repeat = f"negrec train run={past.run_id}"
            failure = past.failure or Failure(f"see {name}/train.log", repeat, None)
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
    console = _console()
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
        if sweep.frame.sweep.tune is False and not sweep.searches:
            console.print(f"add to it with: the same command, more seeds, sweep.name={sweep.name}")
