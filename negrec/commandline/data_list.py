"""``negrec data list``: the named data sets."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from dataclasses import astuple
from pathlib import Path
from urllib.parse import urlsplit

from hydra import compose
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from yaml import YAMLError

from negrec.commandline import configuration
from negrec.commandline.typed import Typed
from negrec.data.registry import Entry
from negrec.errors import InputError


def main(arguments: Sequence[str]) -> int:
    """``negrec data list [paths.data_dir=FOLDER]``; 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="negrec data list",
        usage="negrec data list [paths.data_dir=FOLDER]",
        description="The data sets that `negrec data fetch NAME` brings and `negrec train "
        "dataset=NAME` uses. One of your own: FOLDER/dataset/NAME.yaml with a source, the folder "
        "named by NEGREC_CONF_DIR.",
    )
    parser.add_argument(
        "data_dir", metavar="paths.data_dir=FOLDER", help="where data lie ($NEGREC_DATA_DIR)"
    )
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        return 0
    typed = Typed.of(arguments)
    refuse_others(typed, "list", ("paths.data_dir",))
    folder = data_dir(typed)
    show(entries(), folder)
    return 0


def refuse_others(typed: Typed, verb: str, keys: Sequence[str]) -> None:
    """Refuses flags and keys that a subcommand does not have, and keys given twice."""
    if typed.flags:
        raise InputError(f"negrec data {verb} has no {typed.flags[0]}: see --help")
    given = [word.partition("=")[0] for word in typed.words if "=" in word]
    for key in given:
        if key not in keys:
            raise InputError(f"negrec data {verb} has no {key}=: it has {', '.join(keys)}")
        if given.count(key) > 1:
            raise InputError(f"{key} is given twice: keep one of them")


def data_dir(typed: Typed) -> Path:
    """Where this command looks for data sets."""
    words = [word for word in typed.words if word.startswith("paths.")]
    with configuration.opened():
        return Path(str(configuration.composed(words).paths.data_dir)).expanduser()


def entries(wanted: Collection[str] | None = None) -> list[Entry]:
    """The data sets of the configuration that have a source, the user's own among them.

    Args:
        wanted: these only; None: all. Names that there are not are left out.

    Raises:
        InputError: one of them cannot be read.
    """
    found = []
    with configuration.opened() as loader:
        for name in loader.get_group_options("dataset", ObjectType.CONFIG):
            if wanted is None or name in wanted:
                try:
                    node = compose(f"dataset/{name}").get("dataset")
                    found += [_entry(name, node)] if node and "source" in node else []
                except (HydraException, OmegaConfBaseException, YAMLError) as error:
                    line = " ".join(str(error).split())
                    raise InputError(f"dataset/{name}.yaml cannot be used: {line}") from error
    return found


def _entry(name: str, node: DictConfig) -> Entry:
    source = instantiate(node.source, _convert_="all")
    return Entry(name, str(node.path), node.columns.timestamp is not None, source)


def table(listed: Sequence[Entry], folder: Path, narrow: bool = False) -> Table:
    """What ``negrec data list`` shows; narrow: with two lines for a data set."""
    shown = Table(
        box=None,
        padding=(0, 1, 0, 0),
        caption=f"here: in {folder}\n*: needs your own download, negrec data fetch NAME from=FILE",
        caption_justify="left",
    )
    shown.add_column("name\n  from, licence" if narrow else "name", overflow="fold")
    for name in ("users", "items", "interactions"):
        shown.add_column(name, justify="right", no_wrap=True)
    for name in ("times", "here") if narrow else ("times", "here", "from", "licence"):
        shown.add_column(name, no_wrap=True)
    for one in listed:
        source = one.source
        known = astuple(source.counts) if source.counts is not None else (None, None, None)
        host = (urlsplit(source.url).hostname or "").removeprefix("www.").removeprefix("files.")
        where = host if source.manual is None else f"{host} *"
        licence = source.licence.partition(" - ")[0]
        shown.add_row(
            f"{one.name}\n  {where}, {licence}" if narrow else one.name,
            *("?" if n is None else f"{n:,}" for n in known),
            "yes" if one.timestamps else "no",
            "yes" if (folder / one.path).exists() else "no",
            *(() if narrow else (where, licence)),
        )
    return shown


def show(listed: Sequence[Entry], folder: Path) -> None:
    """Within a terminal's width; a file has room for whole lines."""
    console, wide = Console(markup=False, highlight=False), Console(width=1000)
    shown = table(listed, folder)
    needed = Measurement.get(wide, wide.options, shown).maximum
    if not console.is_terminal:
        console.width = needed
    elif console.width < needed:
        shown = table(listed, folder, narrow=True)
    console.print(shown)
