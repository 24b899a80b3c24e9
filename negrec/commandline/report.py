"""``negrec report``: which sampler to use, from the runs of a sweep."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from negrec.commandline import shorthand
from negrec.commandline.typed import Typed
from negrec.errors import InputError
from negrec.reporting.report import DEFAULT_METRIC, refuse_foreign
from negrec.reporting.runs import Runs, find
from negrec.reporting.sections import FORMATS, Format, Tell
from negrec.tracking.events import FILE_NAME as EVENTS

_KEYS = ("sweep", "format", "metric", "runs", "out")
_TOLD_AT_MOST = 3  # failed jobs; the report names them all
_EPILOG = """\
examples:
  negrec report                                the newest sweep
  negrec report sweep=first,second             two sweeps as one
  negrec report sweep=first format=latex metric=ndcg_10
  negrec report runs=1a2b3c4d,5e6f7a8b         single runs, wherever they are
"""


def main(arguments: Sequence[str]) -> int:
    """``negrec report [sweep=NAME,...] [KEY=VALUE ...]``; 0, or 2 for bad input."""
    if {"-h", "--help"} & set(arguments):
        _parser().print_help()
        return 0
    typed = Typed.of(arguments)
    if typed.flags:
        raise InputError(f"report has no {typed.flags[0]} (negrec report --help)")
    given = {key: _value(typed, key) for key in _KEYS}
    rest = [word for word in typed.words if word.partition("=")[0] not in _KEYS]
    if strange := [word for word in rest if not word.lstrip("+").startswith("paths.")]:
        raise InputError(
            f"report knows no {strange[0]}: give {', '.join(f'{key}=' for key in _KEYS)} or "
            "paths.runs_dir= (negrec report --help)"
        )
    formats = _format(given["format"] or "all")
    metric = (given["metric"] or DEFAULT_METRIC).replace("@", "_").lower()
    root = shorthand.runs_dir(Typed((), tuple(rest)), rest)
    out = None if given["out"] is None else Path(given["out"])
    if out is not None:
        refuse_foreign(out)  # before anybody has waited
    found = find(root, _names(given["sweep"]), _names(given["runs"]))
    folder = report(found, out or folder_of(found, root), metric, formats)
    for sweep in found.folders:
        if folder.is_relative_to(sweep) and (sweep / EVENTS).exists() and attach(sweep, folder):
            print("it is an artifact of the sweep's run in MLflow, too")
    return 0


def attach(sweep: Path, folder: Path) -> bool:
    """Adds the report to the sweep's run in the tracking store; whether it has arrived."""
    from negrec.tracking import sync

    return sync.attach(sweep.absolute(), folder.absolute())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="negrec report",
        usage="negrec report [sweep=NAME[,NAME]] [KEY=VALUE ...]",
        description="Says which sampler to use, from the runs of a sweep: prints it, and writes a "
        "folder with a page for the browser, Markdown, LaTeX tables and figures.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for key, what in (
        ("sweep=NAME,...", "sweeps in the folder of runs; by default the newest"),
        (f"format={'|'.join(FORMATS)}", "what is written (all)"),
        ("metric=NAME", f"that sentences and figures tell, as {DEFAULT_METRIC} (the default)"),
        ("runs=ID,...", "only these runs"),
        ("out=FOLDER", "where to; by default the folder report of the sweep"),
        ("paths.runs_dir=FOLDER", "the folder of all runs (multirun)"),
    ):
        parser.add_argument(key, metavar=key, nargs="?", help=what)
    return parser


def _value(typed: Typed, key: str) -> str | None:
    if len([word for word in typed.words if word.partition("=")[0] == key]) > 1:
        raise InputError(f"{key} is given twice: keep one of them")
    value = typed.value(key)
    if value == "":
        raise InputError(f"{key}= names nothing: give a value, or leave it out")
    return value


def _names(text: str | None) -> list[str] | None:
    """A list, with or without Hydra's brackets."""
    if text is None:
        return None
    return [name for name in re.split(r"[,\s]+", text.strip("[] ")) if name]


def _format(text: str) -> Format:
    for known in FORMATS:
        if text == known:
            found: Format = known
            return found
    raise InputError(f"format={text}: give one of {', '.join(FORMATS)}")


def folder_of(found: Runs, root: Path) -> Path:
    """Where the report of some runs lies by default."""
    if len(found.folders) == 1 and found.names:
        return found.folders[0] / "report"
    names = "+".join(found.names) or "+".join(run.run_id for run in found.finished[:3])
    return root / "reports" / re.sub(r"[^\w.+-]", "-", names)


def report(
    found: Runs, folder: Path, metric: str = DEFAULT_METRIC, formats: Format = "all"
) -> Path:
    """Writes the report of runs, prints what it says, and returns its folder.

    Raises:
        InputError: see ``reporting.report.write``.
    """
    from rich.console import Console

    from negrec.reporting import grid
    from negrec.reporting.report import write

    console = Console(highlight=False)
    if found.newest:
        console.print(f"the newest sweep: {found.names[0]}", soft_wrap=True)
    with _progress() as tell:
        written = write(found, folder, metric, formats, tell)
    for section in written.sections:
        title = section.answer.comparison.title
        console.print(f"{title}: {section.answer.sentence}", style="bold", markup=False)
        for note in section.notes:
            console.print(note, markup=False)
        console.print(grid.terminal(replace(section.overview, title="")))
    if written.go_on:
        console.print("to train what was still improving for longer, type")
        for command in written.go_on:
            console.print(command, soft_wrap=True, markup=False)
    for kind in written.left_out:
        console.print(f"left out: {kind.count}, {kind.why}", markup=False)
        if kind.urgent:
            for what in kind.what[:_TOLD_AT_MOST]:
                console.print(f"  {what}", markup=False)
    shown = next(n for n in ("report.html", "report.md", "tables") if (folder / n).exists())
    console.print(f"report {folder / shown}", soft_wrap=True, markup=False)
    return folder


@contextmanager
def _progress() -> Iterator[Tell]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(stderr=True)
    progress = Progress(
        BarColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        task = progress.add_task("", total=1.0)
        yield lambda what, share: progress.update(task, completed=share, description=what)
