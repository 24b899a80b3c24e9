"""``negrec rescore``: other cut-offs and popularity groups for finished runs, without training."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from negrec.commandline import shorthand
from negrec.commandline.typed import Typed
from negrec.errors import InputError
from negrec.reporting import cells, rescore, runs
from negrec.tracking.runs import find_run

_KEYS = ("run", "sweep", "cutoffs", "cohorts", "paths.runs_dir")
# Made of the recommended lists or of the scores, which a run does not save.
_NOT_FROM_RANKS = ("coverage", "arp", "exposure_gini", "novelty", "probability_sum", "calibration")
_HELP = """\
cohorts, the most popular items first:
  cohorts=3              so many groups, each with an equal share of the training interactions
                         (default; head, mid and tail as in the run's own results)
  cohorts=mass:0.5,0.9   groups that end at these shares of the interactions
  cohorts=items:0.2,0.8  groups that end at these shares of the catalogue: its top 20% is head
  cohorts=counts:100,10  head: items with 100 training interactions or more; mid: 10 or more

Two groups are called head and tail, three head, mid and tail, more g1, g2, ... METRIC is one of hr,
ndcg, mrr, recall, balance; all by default. The values of each run go to rescore.json and those of
each cell (mean, standard deviation and 95% interval over seeds) to rescore.csv, in the folder of
the run or sweep; results.json stays as it is. The popularity ranker and the oracle save no ranks.
"""


def main(arguments: Sequence[str]) -> int:
    """``negrec rescore run=ID|sweep=NAME [cutoffs=1,3] [cohorts=5] [METRIC ...]``; 0."""
    parser = argparse.ArgumentParser(
        prog="negrec rescore",
        usage="negrec rescore run=ID|sweep=NAME [cutoffs=1,3,50] [cohorts=...] [METRIC ...]",
        description="Recomputes metrics of finished runs from the saved rank of each test target, "
        "with other cut-offs or popularity groups and without training.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="run=ID", help="a finished run")
    parser.add_argument("sweep", metavar="sweep=NAME", help="or all finished runs of a sweep")
    parser.add_argument(
        "cutoffs", metavar="cutoffs=K,K", help="the k of the metrics (those of the runs)"
    )
    parser.add_argument("cohorts", metavar="cohorts=...", help="groups of items, see below (3)")
    parser.add_argument(
        "runs_dir", metavar="paths.runs_dir=FOLDER", help="where the runs lie (multirun)"
    )
    if not arguments or {"-h", "--help"} & set(arguments):
        parser.print_help()
        return 0
    typed = Typed.of(arguments)
    chosen = _metrics(typed)
    cohorts = typed.value("cohorts")
    cutoffs, groups = _cutoffs(typed), rescore.Groups.of("3" if cohorts is None else cohorts)
    found, folder = _runs(typed)
    sorted_ = cells.sort(found.finished)
    comparisons = sorted_.comparisons
    if not comparisons:
        raise InputError(f"no run in {folder} was measured on test targets: nothing to rescore")
    rescored = rescore.rescore(comparisons, groups, cutoffs, chosen)
    for comparison in comparisons:
        _print(rescore.table(rescored, comparison))
    if found.names:
        print(f"runs: {found.states}")
    for n, why in (
        (len(sorted_.superseded), "have the settings and the seed of a newer one"),
        (len(sorted_.untested), "were not measured on test targets"),
    ):
        if n:
            print(f"left out: {n} that {why}")
    for path in rescore.save(rescored, folder, comparisons):
        print(path)
    return 0


def _metrics(typed: Typed) -> list[str]:
    """The words that are no KEY=VALUE, after all words were looked at.

    Raises:
        InputError: one that cannot be meant.
    """
    if typed.flags:
        raise InputError(f"negrec rescore has no {typed.flags[0]}: see negrec rescore --help")
    chosen, seen = [], set()
    for word in typed.words:
        key, equals, _ = word.partition("=")
        if equals and key not in _KEYS:
            raise InputError(f"negrec rescore has no {key}=: it has {', '.join(_KEYS)}")
        if equals and key in seen:
            raise InputError(f"{key} is given twice: keep one of them")
        seen.add(key)
        if not equals:
            chosen.append(_metric(word))
    return chosen


def _metric(word: str) -> str:
    found = re.fullmatch(r"([a-z_]+?)(?:[_@](\d+))?", word.lower())
    name, k = found.groups() if found else (word, None)
    if name in _NOT_FROM_RANKS:
        raise InputError(
            f"{word} cannot be recomputed: it is made of the recommended items and their scores, "
            "of which a run saves the rank of each target alone; train with other "
            "evaluation.cutoffs"
        )
    if name not in rescore.METRICS:
        raise InputError(f"there is no metric {word!r}: {', '.join(rescore.METRICS)}")
    if k is not None:
        raise InputError(f"{word}: write the metric alone and its cut-off as {name} cutoffs={k}")
    return name


def _cutoffs(typed: Typed) -> list[int] | None:
    text = typed.value("cutoffs")
    if text is None:
        return None
    listed = text.strip("[]").split(",")
    if not all(k.strip().isdecimal() and int(k) >= 1 for k in listed):
        raise InputError(f"cutoffs={text} must be whole numbers from 1, such as cutoffs=1,3,50")
    return sorted({int(k) for k in listed})


def _runs(typed: Typed) -> tuple[runs.Runs, Path]:
    """The finished runs, and the folder that they share."""
    run_id, sweep = typed.value("run"), typed.value("sweep")
    if bool(run_id) == bool(sweep):
        raise InputError("one of the two is needed: negrec rescore run=ID or sweep=NAME")
    root = shorthand.runs_dir(typed, typed.words)
    if sweep:
        found = runs.find(root, [sweep])
        return found, found.folders[0]
    folder = find_run(str(run_id), root)
    run = runs.read(folder)
    if run is None:
        raise InputError(f"run={run_id}: files of it are missing or damaged in {folder}")
    if run.status != "FINISHED":
        raise InputError(
            f"run={run_id} is not finished ({run.status}): `negrec train run={run_id}` goes on "
            "with it"
        )
    return runs.Runs((), (folder,), (run,)), folder


def _print(table: Table) -> None:
    console = Console()
    if not console.is_terminal:  # a file has room for whole lines
        needed = Measurement.get(wide := Console(width=1000), wide.options, table).maximum
        console = Console(width=max(console.width, needed))
    console.print(table)
