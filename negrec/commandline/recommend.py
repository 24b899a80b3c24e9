"""``negrec recommend``: what a finished run's model recommends to whom."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import polars as pl
import torch
from omegaconf import DictConfig, OmegaConf
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from negrec.commandline.trained import trained
from negrec.commandline.typed import Typed, spelled_out
from negrec.data.cleaning import Rules, read
from negrec.data.columns import AUTO, Columns, find
from negrec.data.readers.base import ROW, scan
from negrec.errors import InputError, printable
from negrec.evaluation.ranks import Seen
from negrec.kernels.tiles import chunks
from negrec.serving.recommender import Histories, Recommender, Taken, found

_ROLES = ("user", "item", "timestamp", "position")  # of a table's columns
_KEYS = ("run", "users", "histories", "top", "seen", "out", "force", *_ROLES)
_AT_ONCE = 8192  # people whose lists are held in memory
_SHOWN = 10  # people whose lists are printed
_NEWEST = 5  # items of a history that are printed
_LISTED = 10  # recommendations that are printed
_NAMED = 5  # ids that a message names
_SINKS: dict[str, Callable[[pl.LazyFrame, Path], object]] = {
    ".parquet": pl.LazyFrame.sink_parquet,
    ".csv": pl.LazyFrame.sink_csv,
}
_HELP = """\
A user's history is all that the data set has of the user, validation and test items included: this
is use, not measurement, so the lists are not those that the run was tested with. The model was not
trained on the held-out items; negrec refit run=ID trains it on them too.

With histories=FILE.parquet (or .csv: any table of user, item and, better, time) lists are made for
the people of that file, from what it says of them alone. Nobody of them has to be in the data.
Items that the model does not know are skipped and counted. Who has no known item (or was not
trained on, with a model that reads no histories, such as mf) gets the most popular items; the
scores are then how often training shows them.

Without -o ten lists are printed, and no file is written. Names: dataset.items=names.csv.
"""


@dataclass(frozen=True)
class Asked:
    """What was typed.

    Attributes:
        run: the run's id.
        users: file that lists the people; None: all there are.
        histories: table of their histories; None: the data set.
        top: length of the lists.
        seen: what becomes of the history's items; None: as the run was measured.
        columns: of the tables, by what they say.
        out: the file that is written; None: none.
        rest: overrides for the run.
        flags: Hydra's.
    """

    run: str
    users: Path | None
    histories: Path | None
    top: int
    seen: Seen | None
    columns: dict[str, str]
    out: Path | None
    rest: tuple[str, ...]
    flags: tuple[str, ...]


def main(arguments: Sequence[str]) -> int:
    """``negrec recommend run=ID [users=FILE|histories=FILE] [top=20] [-o FILE]``; 0 or 2."""
    parser = argparse.ArgumentParser(
        prog="negrec recommend",
        usage="negrec recommend run=ID [users=ids.txt|histories=file.parquet] [top=20] "
        "[seen=filter|keep] [-o recs.parquet]",
        description="Writes the best items for each user, in your own ids with scores.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, text in (
        ("run=ID", "a finished run"),
        (
            "users=FILE",
            "whom to recommend to: a text file with one id per line, or a table's column",
        ),
        ("histories=FILE", "a table of what people took, in place of the data set"),
        ("top=N", "items of a list (20)"),
        ("seen=S", "filter: leave out items of the history; keep: do not; default: as measured"),
        ("out=FILE", "recs.parquet or recs.csv: user, rank, item, score; the same as -o FILE"),
        ("force=true", "replace the file if it exists"),
        ("user=NAME", "the column of that table (item=, timestamp=, position=); else guessed"),
        ("KEY=VALUE", "as for negrec train, such as dataset.items=names.csv"),
    ):
        parser.add_argument(name.lower(), metavar=name, help=text)
    if not arguments or {"-h", "--help"} & set(arguments):
        parser.print_help()
        return 0
    asked = _asked(Typed.of(spelled_out(arguments, "recs.parquet")))
    run = trained(asked.run, asked.rest, asked.flags)
    data, split, trainer = run.parts.interactions, run.parts.split, run.parts.trainer
    torch.set_num_threads(trainer.threads)
    recommender = Recommender(
        run.model.to(trainer.device),
        split.info,
        data.item_ids.gather(split.catalogue),
        data.user_ids,
        None if data.names is None else data.names.gather(split.catalogue),
    )
    columns = {**_columns(run.cfg), **asked.columns}
    taken = (
        Taken(data.user_ids, data.item_ids, data.user, data.item)
        if asked.histories is None
        else _table(asked.histories, columns)
    )
    histories, people = recommender.of(taken), taken.user_ids
    if asked.users is not None:
        rows = _rows(asked.users, columns, people, asked.histories or data.name)
        histories, people = histories.select(rows), people.gather(rows.numpy())
    _tell(recommender, histories)
    seen = asked.seen or ("keep" if run.parts.test.seen == "keep" else "filter")
    n_items = len(recommender.item_ids)
    k = min(asked.top, n_items)
    print(f"top {k:,} of {n_items:,} items, seen={seen}")
    if asked.out is not None:
        _write(asked.out, _lists(recommender, people, histories, k, seen))
    if asked.out is None or sys.stdout.isatty():
        _show(recommender, people, histories, k, seen)
    if asked.out is None:
        print(f"-o recs.parquet writes the lists of all {len(people):,} users")
    return 0


def _asked(given: Typed) -> Asked:
    for key in _KEYS:
        if sum(word.startswith(f"{key}=") for word in given.words) > 1:
            raise InputError(f"{key} is given twice: keep one of them")
    run, top, seen, out = (given.value(key) for key in ("run", "top", "seen", "out"))
    if not run:
        raise InputError("a run is needed: negrec recommend run=ID")
    if top is not None and (not top.isdecimal() or int(top) < 1):
        raise InputError(f"top={top} must be a whole number from 1")
    if seen not in (None, "filter", "keep"):
        raise InputError(f"seen={seen} must be filter or keep")
    for key in ("users", "histories", "out"):
        if given.value(key) == "":
            raise InputError(f"{key}= wants the name of a file")
    force = given.value("force") or "false"
    if force not in ("true", "false"):
        raise InputError(f"force={force} must be true or false")
    if out is not None:
        _refuse(Path(out), force == "true")
    users, histories = given.value("users"), given.value("histories")
    return Asked(
        run,
        None if users is None else Path(users),
        None if histories is None else Path(histories),
        int(top or 20),
        seen,  # type: ignore[arg-type] # it was looked at above
        {role: name for role in _ROLES if (name := given.value(role)) is not None},
        None if out is None else Path(out),
        tuple(word for word in given.words if word.partition("=")[0] not in _KEYS),
        given.flags,
    )


def _refuse(out: Path, force: bool) -> None:
    """Refuses a file that cannot be written, before anything is computed."""
    if out.suffix.lower() not in _SINKS:
        raise InputError(f"{out}: its name must end in one of {', '.join(_SINKS)}")
    if not out.parent.is_dir():
        raise InputError(f"{out}: there is no folder {out.parent}")
    if out.is_dir():
        raise InputError(f"{out} is a folder: name a file")
    if out.exists() and not force:
        raise InputError(f"{out} exists: choose another name, or add force=true")


def _columns(cfg: DictConfig) -> dict[str, str]:
    """The names that columns have in the data set, where they were given."""
    given = OmegaConf.select(cfg, "dataset.columns") or {}
    return {role: given[role] for role in _ROLES if given.get(role) not in (None, AUTO)}


def _table(path: Path, columns: Mapping[str, str]) -> Taken:
    """The histories in a file.

    Args:
        path: of the file.
        columns: names by what they say; others, and those that the file does not have, are guessed.

    Raises:
        InputError: what is no table, or has values that cannot be used.
    """
    table = scan(path)
    there = table.collect_schema().names()
    given = {role: name for role, name in columns.items() if name in there}
    try:
        chosen = find(path, table, Columns(**given, rating=None))
        rows = read(path, table, chosen, Rules())
    except InputError as error:  # it advises as for a data set
        raise InputError(str(error).replace("dataset.columns.", "")) from error
    print(f"{path}: {chosen}")
    keys = [key for key in ("user", "timestamp", "position") if key in rows.frame.columns]
    ordered = rows.frame.sort(keys, maintain_order=True)
    user, item = (ordered[role].cast(pl.Int64).to_numpy() for role in ("user", "item"))
    return Taken(rows.user_ids, rows.item_ids, user, item)


def _rows(users: Path, columns: Mapping[str, str], ids: pl.Series, where: object) -> Tensor:
    """The places of the asked people among those there are; each once, in the order of the file.

    Args:
        users: the file.
        columns: names by what they say.
        ids: of all there are.
        where: what they are in, for messages.

    Raises:
        InputError: nobody is left.
    """
    asked = _listed(users, columns).drop_nulls()
    if asked.is_empty():
        raise InputError(f"{users} holds no user: a line each, or a table's column")
    once = asked.unique(maintain_order=True)
    if len(once) < len(asked):
        twice = asked.filter(asked.is_duplicated()).unique(maintain_order=True)
        print(f"{users}: more than once, and given one list each: {_some(twice)}")
    rows = found(once, ids, "user")
    unknown = once.filter(rows.is_null())
    if len(unknown):
        print(f"{users}: left out, since not in {where}: {_some(unknown)}")
    if len(unknown) == len(once):
        raise InputError(
            f"{users}: none of its {len(once):,} users is in {where}, whose ids look like "
            f"{', '.join(map(str, ids.head(3)))}"
        )
    return torch.from_numpy(rows.drop_nulls().to_numpy(writable=True))


def _listed(users: Path, columns: Mapping[str, str]) -> pl.Series:
    """The ids in a file: a line each, or a table's column."""
    if users.suffix.lower() == ".txt":
        if not users.is_file():
            raise InputError(f"there is no file {users}")
        try:
            lines = users.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{users} is no text in UTF-8: {error.reason}") from error
        return pl.Series([line.strip() for line in lines if line.strip()], dtype=pl.String)
    table = scan(users)
    there = [name for name in table.collect_schema().names() if name != ROW]
    likely = [name for name in (columns.get("user"), "user", "user_id") if name in there]
    if len(there) > 1 and not likely:
        raise InputError(
            f"{users}: which column holds the users? name it with user=NAME, one of "
            f"{', '.join(there)}"
        )
    return table.select([*likely, *there][0]).collect().to_series()


def _some(ids: pl.Series) -> str:
    """How many, and the first of them."""
    more = ", ..." if len(ids) > _NAMED else ""
    return f"{len(ids):,} ({', '.join(map(str, ids.head(_NAMED)))}{more})"


def _tell(recommender: Recommender, histories: Histories) -> None:
    """What is known of whom."""
    print(f"users: {len(histories):,}, with {len(histories.items.values):,} items in all")
    if histories.skipped:
        print(f"items skipped, which the model does not know: {histories.skipped:,}")
    strangers = int((~recommender.knows(histories)).sum())
    if strangers:
        why = (
            "without a known item"
            if recommender.model.reads
            else "of whom this model, which reads no histories, learnt nothing"
        )
        print(
            f"users {why}: {strangers:,}; each gets the most popular items, with how often "
            "training shows them as scores"
        )


def _lists(
    recommender: Recommender, people: pl.Series, histories: Histories, k: int, seen: Seen
) -> Iterator[pl.DataFrame]:
    """Tables of user, rank, item, score, of some people at a time."""
    parts = list(chunks(len(people), _AT_ONCE))
    console = Console(stderr=True)
    for part in track(parts, "users", console=console, disable=not console.is_terminal):
        items, scores = recommender.top(histories.select(part), k, seen)
        yield recommender.frame(people[part], items, scores)


def _write(out: Path, lists: Iterator[pl.DataFrame]) -> None:
    """Writes tables one after the other into one file, which is complete or not there."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as aside:
            parts: list[Path] = []
            n_rows = 0
            for table in lists:
                parts.append(Path(aside) / f"{len(parts)}.parquet")
                table.write_parquet(parts[-1])
                n_rows += len(table)
            whole = Path(aside) / out.name
            _SINKS[out.suffix.lower()](pl.scan_parquet(parts, glob=False), whole)
            whole.replace(out)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{out} cannot be written: {error}") from error
    print(f"wrote {n_rows:,} rows to {out}")


def _show(
    recommender: Recommender, people: pl.Series, histories: Histories, k: int, seen: Seen
) -> None:
    """Some lists beside the histories they come from."""
    few = slice(0, _SHOWN)
    histories, people = histories.select(few), people[few]
    items, scores = recommender.top(histories, min(k, _LISTED), seen)
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("user", "history, newest first", "recommended", "score"):
        table.add_column(name, justify="right" if name == "score" else "left")
    ends = histories.items.offsets
    for row, person in enumerate(people):
        taken = histories.items.values[ends[row] : ends[row + 1]]
        newest = _named(recommender, taken[-_NEWEST:].flip(0))
        if len(taken) > _NEWEST:
            newest.append(f"and {len(taken) - _NEWEST:,} earlier")
        listed = items[row] > 0
        best = _named(recommender, items[row][listed])
        values = [f"{score:.3f}" for score in scores[row][listed].tolist()]
        # A row for each item: a long name takes several lines, and its score stays beside it.
        for line in zip_longest([printable(str(person))], newest, best, values, fillvalue=""):
            table.add_row(*line)
        table.add_section()
    console = Console()
    console.print(table, markup=False, highlight=False)


def _named(recommender: Recommender, items: Tensor) -> list[str]:
    """Items for people: the name where there is one, and the id."""
    return [
        printable(str(own) if name is None else f"{name} ({own})")
        for name, own in zip(recommender.named(items), recommender.own(items), strict=True)
    ]
