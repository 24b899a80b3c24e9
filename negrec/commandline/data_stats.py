"""``negrec data stats``: what data sets are like, before anything is trained on them."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from negrec.commandline import configuration, explain, shorthand
from negrec.commandline.trained import Trained, trained
from negrec.commandline.typed import Typed, quoted
from negrec.errors import InputError

if TYPE_CHECKING:
    from negrec.data.interactions import Interactions, Ints
    from negrec.data.order import Shuffled
    from negrec.evaluation.evaluator import Evaluator
    from negrec.reporting.data_sheet import Asked, Described, Part
    from negrec.types import HeldOut

_SPLITS = ("leave_one_out", "global_temporal")
_OWN = ("dataset", "out", "shuffles", "model", "run")
_OF_DATA = ("dataset.", "paths.")
_SINGLE = ("seed", "max_length")
_SHUFFLES = 5
_HELP = """\
examples:
  negrec data stats dataset=beauty
  negrec data stats clicks.csv dataset.min_interactions=5
  negrec data stats dataset=beauty,ml-1m                    several, side by side
  negrec data stats dataset=beauty model=sasrec +experiment=strong trainer.max_epochs=20
  negrec data stats run=<id>                                the data of a finished run, its model

With model=NAME a model is trained first, with the other words as for `negrec train`, and then asked
for the test targets after histories as they are and after shuffled ones; a second such command
finds it trained. run=ID does this with a finished run. Tables, sentences and figures go to the
folder: stats.json, stats.md, popularity.png and popularity.svg.
"""


@dataclass(frozen=True)
class Asking:
    """What was asked for.

    Attributes:
        subjects: a word for each data set: "dataset=NAME" or a file's path.
        rest: overrides for all of them.
        out: the folder; None where it follows from the names.
        shuffles: of each test.
        model: to be trained, or None.
        run: a finished run in place of data sets, or None.
    """

    subjects: list[str]
    rest: list[str]
    out: Path | None
    shuffles: int
    model: str | None
    run: str | None


def main(arguments: Sequence[str]) -> int:
    """``negrec data stats dataset=NAME,NAME|FILE|run=ID [KEY=VALUE ...]``; 0, 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="negrec data stats",
        usage="negrec data stats dataset=NAME|FILE|run=ID [out=FOLDER] [shuffles=5] [model=NAME] "
        "[KEY=VALUE ...]",
        description="Describes data sets: counts, lengths, times, popularity cohorts, what each "
        "split leaks, and how much the order of histories carries.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", metavar="dataset=NAME,NAME", help="named data sets")
    parser.add_argument("file", metavar="FILE", help="tables of your own, Parquet or CSV")
    parser.add_argument("run", metavar="run=ID", help="or the data and the model of a finished run")
    parser.add_argument("out", metavar="out=FOLDER", help="(data_stats/NAMES)")
    parser.add_argument("shuffles", metavar="shuffles=N", help="of each shuffle test (5)")
    parser.add_argument("model", metavar="model=NAME", help="also train and ask a model, see below")
    parser.add_argument(
        "more", metavar="KEY=VALUE", help="dataset.KEY, paths.KEY, max_length, seed; see below"
    )
    if not arguments or {"-h", "--help"} & set(arguments):
        parser.print_help()
        return 0
    given = asked(arguments)
    with explain.explained():
        found = list(_found(given))
        names = _distinct([each.data.name for each in found])
        folder = given.out or Path("data_stats") / _file_name("+".join(names))
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        models = []
        for name, each in zip(names, found, strict=True):
            code, asked_ = _model(each, given, folder / "runs", name)
            if code:
                return code
            models.append(asked_)
        with _progress() as told:
            described = [
                describe(name, each, given.shuffles, asked_, partial(told, name))
                for name, each, asked_ in zip(names, found, models, strict=True)
            ]
    show(described)
    with _writing(folder):
        for path in save(described, int(found[0].cfg.seed), folder):
            print(path)
    return 0


# ---- what was asked for


def asked(arguments: Sequence[str]) -> Asking:
    """The words, told apart.

    Raises:
        InputError: naming the word that cannot be meant.
    """
    typed = Typed.of(arguments)
    if typed.flags:
        raise InputError(f"negrec data stats has no {typed.flags[0]}: see negrec data stats --help")
    own: dict[str, str] = {}
    subjects, rest = [], []
    for word in typed.words:
        key, equals, value = word.partition("=")
        if not equals or Path(word).exists():
            subjects.append(word)
        elif key in own:
            raise InputError(f"{key} is given twice: keep one of them")
        elif key in _OWN:
            own[key] = value
        else:
            rest.append(word)
    named = own.get("dataset", "").strip("[]").split(",")
    subjects += [f"dataset={name.strip()}" for name in named if name.strip()]
    run, model = own.get("run"), own.get("model")
    if run is not None and (subjects or model is not None):
        raise InputError("run=ID stands for its own data and model: leave out the others")
    if run is None and not subjects:
        raise InputError(
            "a data set is needed: negrec data stats dataset=NAME, a file of your own, or run=ID"
        )
    if model is not None and "," in model:
        raise InputError(f"model={model}: one model can be trained at a time")
    for key in (word.partition("=")[0] for word in rest):
        if run is not None and not key.startswith("paths."):
            raise InputError(f"{key}= has no say in a finished run: leave it out")
        if run is None and model is None and not _of_data(key):
            raise InputError(
                f"negrec data stats has no {key}=: it has {', '.join(f'{own}=' for own in _OWN)}, "
                "dataset.KEY, paths.KEY, max_length and seed; with model=NAME those of `negrec "
                "train` too"
            )
    shuffles = own.get("shuffles", str(_SHUFFLES))
    if not re.fullmatch("[1-9][0-9]*", shuffles):
        raise InputError(f"shuffles must be a whole number from 1, got shuffles={shuffles}")
    out = Path(own["out"]) if own.get("out") else None
    return Asking(list(dict.fromkeys(subjects)), rest, out, int(shuffles), model, run)


def _of_data(key: str) -> bool:
    return key.startswith(_OF_DATA) or key in _SINGLE


@dataclass(frozen=True)
class Found:
    """A data set, read.

    Attributes:
        words: overrides that make the configuration.
        cfg: that configuration; of a training where a model was asked for.
        data: its interactions.
        trained: the finished run that was named in its place, or None.
    """

    words: tuple[str, ...]
    cfg: DictConfig
    data: Interactions
    trained: Trained | None = None


def _found(given: Asking) -> Iterator[Found]:
    """Reads what is to be described; everything is refused before anything is counted."""
    from negrec import experiment

    if given.run is not None:
        run = trained(given.run, given.rest)
        yield Found((), run.cfg, run.parts.interactions, run)
        return
    for subject in given.subjects:
        if given.model is None:
            # With a split, so that none is chosen and told of: both are described.
            words: tuple[str, ...] = (subject, *given.rest, f"split={_SPLITS[0]}")
        else:
            # The point is the table, and not one run more among the others.
            words = (subject, f"model={given.model}", "tracking=none", *given.rest)
        words = shorthand.expand(Typed((), words)).words
        cfg = _composed(words)
        yield Found(words, cfg, experiment.read(cfg))


def _composed(words: Sequence[str]) -> DictConfig:
    try:
        with configuration.opened():
            return configuration.composed(words)
    except InputError:
        raise
    except Exception as error:
        raise explain.NotComposedError(words, error) from error


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write to {folder}: {error.strerror}; choose another folder with out=FOLDER"
        ) from error


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered where two are the same."""
    shown: list[str] = []
    for name in names:
        text, number = name, 2
        while text in shown:
            text, number = f"{name} ({number})", number + 1
        shown.append(text)
    return shown


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._()+-]+", "_", name)


# ---- what is found


def describe(
    name: str,
    found: Found,
    shuffles: int,
    asked_: Asked | None,
    told: Callable[[str], object] = lambda what: None,
) -> Described:
    """Counts all that is shown of a data set.

    Args:
        name: as it is shown.
        found: the data set.
        shuffles: of each shuffle test.
        asked_: what shuffling costs a model, where one was asked for.
        told: hears what is being done.
    """
    from negrec import seeding
    from negrec.data.interactions import Counts, recommended
    from negrec.data.order import shuffle_test
    from negrec.data.statistics import moments, statistics
    from negrec.reporting.data_sheet import Described

    data, cfg = found.data, found.cfg

    def test(stream: str, within: Ints | None) -> tuple[Shuffled, Shuffled]:
        rng = np.random.default_rng(seeding.stream_seed(cfg.seed, stream))
        return shuffle_test(data.user, data.item, shuffles, rng, within)

    told("lengths and times")
    numbers = statistics(data, cfg.max_length)
    splits = {}
    for split in _SPLITS:
        told(split)
        splits[split] = _part(split, found)
    if all(isinstance(refused, str) for refused in splits.values()):
        # How popular items are can be told all the same: of all interactions.
        splits["none"] = _part("none", found)
    told("shuffled histories")
    order = test("shuffled histories", None)
    equal_times = None
    if data.timestamp is not None:
        told("shuffled equal times")
        equal_times = test("shuffled equal times", moments(data.user, data.timestamp))
    return Described(
        name,
        data.hash,
        Counts(data.n_users, data.n_items, data.n_interactions),
        data.cleaning,
        recommended(data).seen,
        numbers,
        cfg.max_length,
        splits,
        order,
        equal_times,
        asked_,
    )


def _part(split: str, found: Found) -> Part | str:
    """What a split makes of a data set, or why it cannot be used."""
    from negrec.reporting.data_sheet import Part

    cfg = _composed([f"split={split}"]).split
    try:
        made = instantiate(cfg)(found.data, max_length=found.cfg.max_length, seed=found.cfg.seed)
    except InputError as error:
        return str(error)
    return Part.of(made)


def _model(found: Found, given: Asking, runs: Path, name: str) -> tuple[int, Asked | None]:
    """What shuffled histories cost the model that was asked for; and the exit code of training."""
    if found.trained is not None:
        return 0, _asked(found.trained, given.shuffles)
    if given.model is None:
        return 0, None
    from negrec import identity
    from negrec.commandline import train

    # The same command finds the same run, and goes on with it where it was cut off.
    digest = identity.digest(identity.part_of_the_result(found.cfg))[:8]
    folder = runs / _file_name(f"{name}-{given.model}-{digest}")
    record = folder / "run.json"
    if not record.exists() or json.loads(record.read_bytes())["status"] != "FINISHED":
        code = train.main([*found.words, f"hydra.run.dir={quoted(str(folder))}"])
        if code:
            return code, None
    run_id = json.loads(record.read_bytes())["run_id"]
    return 0, _asked(trained(run_id, [f"paths.runs_dir={quoted(str(runs))}"]), given.shuffles)


def _asked(run: Trained, shuffles: int) -> Asked:
    from negrec import seeding
    from negrec.evaluation.evaluator import Evaluator
    from negrec.evaluation.shuffling import K, order_effect
    from negrec.reporting.data_sheet import Asked

    split, test = run.parts.split, run.parts.test

    def evaluator(targets: HeldOut) -> Evaluator:
        return Evaluator(targets, split.info, [K], test.seen, test.batch_size)

    rng = np.random.default_rng(seeding.stream_seed(run.cfg.seed, "shuffled inputs"))
    max_length = split.info.max_length
    effect = order_effect(run.model, split.test, evaluator, max_length, shuffles, rng)
    return Asked(run.record["choices"]["model"], run.run_id, effect)


# ---- what is shown and saved


@contextmanager
def _progress() -> Iterator[Callable[[str, str], object]]:
    console = Console(stderr=True)
    with console.status("") as status:

        def told(name: str, what: str) -> None:
            if console.is_terminal:
                status.update(f"{name}: {what}")

        yield told


def show(described: Sequence[Described]) -> None:
    """Tables, then what they ask a person to decide."""
    from negrec.reporting.data_sheet import advice, sheets

    for sheet in sheets(described):
        _print(sheet.rich())
    console = Console(highlight=False, markup=False)
    for each in described:
        for line in advice(each):
            console.print(f"{each.name}: {line}", soft_wrap=True)


def _print(table: Table) -> None:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:  # a file has room for whole lines
        needed = Measurement.get(wide := Console(width=1000), wide.options, table).maximum
        console = Console(width=max(console.width, needed), highlight=False, markup=False)
    console.print(table)
    print()


def save(described: Sequence[Described], seed: int, folder: Path) -> list[Path]:
    """Writes stats.json, stats.md and the popularity curves; all of them, or none."""
    from negrec.reporting.data_sheet import as_dict, markdown
    from negrec.reporting.figures.output import drawn, save
    from negrec.reporting.figures.popularity import popularity, popularity_overlaid

    if len(described) == 1:
        parts = described[0].parts
        figure = popularity({name: part.counts for name, part in parts.items()})
    else:
        # By time where there are times, as in Apple's figure 3: the last split that can be used.
        last = {each.name: list(each.parts.items())[-1] for each in described}
        splits = dict.fromkeys(split for split, _ in last.values())
        counted = "; ".join(
            f"{split} ({', '.join(name for name, (used, _) in last.items() if used == split)})"
            for split in splits
        )
        figure = popularity_overlaid(
            {name: part.counts for name, (_, part) in last.items()},
            counted=f"Training part of {counted}.",
        )
    with TemporaryDirectory(dir=folder) as name:
        aside = Path(name)
        save(drawn(figure), aside, "popularity")
        text = json.dumps(as_dict(described, seed), indent=1) + "\n"
        (aside / "stats.json").write_text(text, encoding="utf-8")
        page = markdown(described, "popularity.svg")
        (aside / "stats.md").write_text(page, encoding="utf-8")
        return [path.replace(folder / path.name) for path in sorted(aside.iterdir())]
