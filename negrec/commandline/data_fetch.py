"""``negrec data fetch``: named data sets, downloaded, checked and converted."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from negrec.commandline.data_list import data_dir, entries, refuse_others
from negrec.commandline.typed import Typed
from negrec.data.download import Show
from negrec.data.registry import Entry, Fetched, fetch
from negrec.errors import InputError

_KEYS = ("from", "force", "paths.data_dir")


def main(arguments: Sequence[str]) -> int:
    """``negrec data fetch NAME [NAME ...]``; 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="negrec data fetch",
        usage="negrec data fetch NAME [NAME ...] [from=FILE] [force=true] [paths.data_dir=FOLDER]",
        description="Downloads data sets from where their owners publish them, checks them, and "
        "writes each as NAME.parquet. A download that was cut goes on when the command is typed "
        "again; nothing is written by halves.",
    )
    parser.add_argument("names", metavar="NAME", help="see negrec data list")
    parser.add_argument(
        "given", metavar="from=FILE", help="an archive or file that you have: nothing is downloaded"
    )
    parser.add_argument("force", metavar="force=true", help="again, where NAME.parquet is there")
    parser.add_argument(
        "data_dir", metavar="paths.data_dir=FOLDER", help="where it is written ($NEGREC_DATA_DIR)"
    )
    if not arguments or {"-h", "--help"} & set(arguments):
        parser.print_help()
        return 0
    typed = Typed.of(arguments)
    refuse_others(typed, "fetch", _KEYS)
    force = typed.value("force") or "false"
    if force not in ("true", "false"):
        raise InputError(f"force={force} must be true or false")
    names = list(dict.fromkeys(word for word in typed.words if "=" not in word))
    text = typed.value("from")
    given = None if text is None else Path(text).expanduser()
    chosen = _chosen(names, given)
    folder = data_dir(typed)
    spent: list[Path] = []  # removed at the end: two data sets may be made of one archive
    for entry in chosen:
        target = folder / entry.path
        if target.exists() and force == "false":
            print(f"{entry.name}: is there already, {target}; force=true fetches it again")
            continue
        print(f"{entry.name}: {entry.source.url if given is None else given}", flush=True)
        with _bar(entry.name) as show:
            fetched = fetch(entry, folder, given, show)
        _tell(entry, fetched)
        spent += [] if fetched.archive is None else [fetched.archive]
    for archive in spent:
        archive.unlink(missing_ok=True)
    return 0


def _chosen(names: Sequence[str], given: Path | None) -> list[Entry]:
    """The data sets of these names, judged before anything is downloaded.

    Raises:
        InputError: no such name, or one that cannot be fetched as it is asked for.
    """
    if not names:
        raise InputError("name a data set: negrec data fetch NAME (negrec data list shows them)")
    known = {entry.name: entry for entry in entries(names)}
    for name in names:
        if name not in known:
            there = [entry.name for entry in entries()]
            near = difflib.get_close_matches(name, there, n=2, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(there)}"
            raise InputError(f"there is no data set {name!r}: {hint} (negrec data list)")
        source = known[name].source
        if source.reader is None:
            raise InputError(f"{name}: its yaml names no source.reader: it cannot be converted")
        if source.manual is not None and given is None:
            raise InputError(
                f"{name} needs your own download: {source.url}: {source.manual}; then "
                f"negrec data fetch {name} from=FILE"
            )
    if given is not None and len(names) > 1:
        raise InputError(f"from={given} is one data set's: name one, not {', '.join(names)}")
    return [known[name] for name in names]


@contextmanager
def _bar(name: str) -> Iterator[Show]:
    """A progress bar where somebody looks."""
    console = Console(stderr=True)
    columns = (
        *(TextColumn("{task.description}"), BarColumn(), DownloadColumn()),
        *(TransferSpeedColumn(), TimeRemainingColumn()),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _tell(entry: Entry, fetched: Fetched) -> None:
    source = entry.source
    print(f"  {fetched.path}: {fetched.counts}")
    if fetched.incomplete:
        _warn(f"{entry.name}: {fetched.incomplete:,} rows without a user, item or time left out")
    if source.counts is not None and fetched.counts != source.counts:
        _warn(
            f"{entry.name} holds {fetched.counts}, and should hold {source.counts}: its owners "
            "changed it, or it was prepared in another way"
        )
    if source.checksum is None or fetched.archive is None:
        print(f"  sha256 of what came: {fetched.sha256} (nothing to compare it with)")
    print(f"  licence: {source.licence}")
    print(f"  cite: {source.citation}")


def _warn(line: str) -> None:
    print(f"negrec: warning: {line}", file=sys.stderr)
