"""``negrec data convert``: a table of one's own as Parquet, read once and for all."""

from __future__ import annotations

import argparse
import secrets
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import polars as pl
from rich.console import Console

from negrec.data.cleaning import Rows, Rules, read
from negrec.data.columns import AUTO, Columns, find
from negrec.data.readers.base import files, scan
from negrec.data.timestamps import PER_SECOND, unit_of
from negrec.errors import InputError

_ROLES = tuple(field.name for field in fields(Columns))
_KEYS = (*_ROLES, "events", "min_rating", "force")
_HELP = """\
Columns that are not named are guessed, rating=null leaves one out. The table is read as `negrec
train` reads it, so that the new one gives the same data: columns user_id and item_id (integers
where all are whole numbers, else text), timestamp (Unix time in UTC, in the coarsest of seconds,
milliseconds and microseconds that loses nothing), position and rating, rows in the old order.

examples:
  negrec data convert my.csv -o my.parquet
  negrec data convert log.csv.gz user=uid item=sku timestamp=ts events=view,addtocart -o my.parquet
  negrec data convert days/ rating=stars min_rating=4 -o liked.parquet
"""


def main(arguments: Sequence[str]) -> int:
    """``negrec data convert TABLE [user=NAME ...] -o NEW.parquet``; 0."""
    parser = argparse.ArgumentParser(
        prog="negrec data convert",
        usage="negrec data convert TABLE [user=NAME] [item=NAME] [timestamp=NAME] ... -o FILE",
        description="Writes a table (CSV, JSON lines, Parquet, or a folder of Parquet files) as "
        "Parquet with the columns that negrec reads.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", metavar="TABLE", help="the file or folder")
    for role in _ROLES:
        parser.add_argument(role, metavar=f"{role}=NAME", help=f"the column of {role}s")
    parser.add_argument("events", metavar="events=A,B", help="keep rows of these events only")
    parser.add_argument("min_rating", metavar="min_rating=X", help="drop rows rated lower")
    parser.add_argument("force", metavar="force=true", help="overwrite the new file")
    parser.add_argument("-o", metavar="FILE", help="the new file, *.parquet")
    if not arguments or {"-h", "--help"} & set(arguments):
        parser.print_help()
        return 0
    table, new, given = _words(arguments)
    if new.exists() and given.get("force") != "true":
        raise InputError(f"there is {new} already: give another name, or force=true")
    rules = Rules(min_rating=_number(given), events=_events(given))
    return _convert(table, new, _columns(given, rules), rules)


def _words(arguments: Sequence[str]) -> tuple[Path, Path, dict[str, str]]:
    """The table, the new file, and the settings."""
    tables, new, given = [], None, dict[str, str]()
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.partition("=")
        if word in ("-o", "--output"):
            if not rest:
                raise InputError("-o needs the name of the new file: -o my.parquet")
            new = Path(rest.pop(0))
        elif word.startswith("-"):
            raise InputError(f"negrec data convert has no {word}: see negrec data convert --help")
        elif not equals or Path(word).exists():
            tables.append(Path(word))
        elif key not in _KEYS:
            raise InputError(f"negrec data convert has no {key}=: it has {', '.join(_KEYS)}")
        elif key in given:
            raise InputError(f"{key} is given twice: keep one of them")
        else:
            given[key] = value
    if len(tables) != 1:
        what = "several tables" if tables else "no table"
        raise InputError(f"{what}: negrec data convert my.csv -o my.parquet")
    if new is None:
        raise InputError("-o my.parquet is missing: where the new file is to be")
    if new.suffix != ".parquet":
        raise InputError(f"-o {new}: the new file's name must end in .parquet")
    if given.get("force", "false") not in ("true", "false"):
        raise InputError(f"force must be true or false, got {given['force']}")
    return tables[0], new, given


def _events(given: dict[str, str]) -> tuple[str, ...] | None:
    if "events" not in given:
        return None
    names = (name.strip() for name in given["events"].strip("[]").split(","))
    return tuple(name for name in names if name)


def _number(given: dict[str, str]) -> float | None:
    if "min_rating" not in given:
        return None
    try:
        return float(given["min_rating"])
    except ValueError as error:
        raise InputError(f"min_rating must be a number, got {given['min_rating']}") from error


def _columns(given: dict[str, str], rules: Rules) -> Columns:
    def column(role: str) -> str | None:
        name = given.get(role, AUTO)
        needed = role != "event" or rules.events is not None
        return name if needed and name != "null" else None

    # A table needs users and items: `find` says so where one is null.
    return Columns(**{role: column(role) for role in _ROLES})  # type: ignore[arg-type]


def _convert(path: Path, new: Path, columns: Columns, rules: Rules) -> int:
    table = scan(path)
    found = find(path, table, columns)
    size = sum(file.stat().st_size for file in files(path)) / 2**20
    console = Console(stderr=True)
    console.print(f"{path}: {found}", highlight=False, soft_wrap=True, markup=False)
    with console.status(f"reading {path} ({size:,.1f} MiB)"):
        rows = read(path, table, found, rules, ratings=True)
    if len(rows.frame) == 0:
        raise InputError(f"{path}: nothing is left of its {rows.read.interactions:,} rows")
    part = new.with_name(f".{new.name}.part-{secrets.token_hex(4)}")
    try:
        with console.status(f"writing {new}"):
            unit = _write(rows, part)
        part.replace(new)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{new} cannot be written: {reason}") from error
    finally:
        part.unlink(missing_ok=True)
    dropped = {"of other events": rows.other_events, "below min_rating": rows.below_rating}
    told = [f"{n:,} {why}" for why, n in dropped.items() if n]
    print(f"read {rows.read}" + (f"; dropped {', '.join(told)}" if told else ""))
    times = "no timestamps" if unit is None else f"timestamps in {unit}"
    print(f"wrote {new}: {len(rows.frame):,} rows, {new.stat().st_size / 2**20:,.1f} MiB, {times}")
    print(f"negrec train {shlex.quote(str(new))}")
    return 0


def _write(rows: Rows, file: Path) -> str | None:
    """Writes the rows piece by piece; what its times are in, None where there are none."""
    chosen = [
        _own("user", rows.user_ids).alias("user_id"),
        _own("item", rows.item_ids).alias("item_id"),
    ]
    unit = None
    if "timestamp" in rows.frame.columns:
        unit, divisor = _unit(rows.frame["timestamp"])
        time = pl.col("timestamp")
        chosen.append(time.cast(pl.Datetime("us")) if divisor is None else time // divisor)
    chosen += [pl.col(name) for name in ("position", "rating") if name in rows.frame.columns]
    rows.frame.lazy().select(chosen).sink_parquet(file, compression="zstd")
    return unit


def _own(role: str, ids: pl.Series) -> pl.Expr:
    """The user's own ids of a column of indices."""
    return pl.col(role).map_batches(ids.gather, return_dtype=ids.dtype, is_elementwise=True)


def _unit(times: pl.Series) -> tuple[str, int | None]:
    """The coarsest unit that says these microseconds exactly, and how many it has of them.

    None where a reader would take the numbers for another unit: moments around 1970.
    """
    for unit in ("seconds", "milliseconds", "microseconds"):
        divisor = 10**6 // PER_SECOND[unit]
        exact = divisor == 1 or (times % divisor == 0).all()
        largest = (times // divisor).abs().max()
        if exact and isinstance(largest, int) and unit_of(largest) == unit:
            return unit, divisor
        if exact:
            break
    return "datetimes", None
