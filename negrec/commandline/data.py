"""``negrec data``: list, fetch, describe and convert data sets."""

import difflib
from collections.abc import Sequence
from importlib import import_module

from negrec.errors import InputError

# Word -> the module of this room whose ``main`` gets the words behind it, and its help line.
SUBCOMMANDS = {
    "list": ("data_list", "the named data sets: size, licence, on disk or not"),
    "fetch": ("data_fetch", "download named data sets, check them, convert them to Parquet"),
    "stats": ("data_stats", "describe one data set, or several side by side"),
    "convert": ("data_convert", "write a table of your own as Parquet"),
}

_EXAMPLES = """\
examples:
  negrec data list
  negrec data fetch ml-1m
  negrec data fetch retailrocket from=archive.zip
  negrec data stats dataset=beauty
  negrec data convert my.csv user=uid item=sku timestamp=ts -o my.parquet

negrec data SUBCOMMAND --help says more
"""


def main(arguments: Sequence[str]) -> int:
    """``negrec data SUBCOMMAND ...``; 0, or 2 for bad input."""
    match list(arguments):
        case [] | ["-h" | "--help" | "help"]:
            print(usage(), end="")
            return 0
        case [word, *rest] if word in SUBCOMMANDS:
            module, _ = SUBCOMMANDS[word]
            code: int = import_module(f"negrec.commandline.{module}").main(rest)
            return code
        case [word, *_]:
            raise InputError(unknown(word))
    raise AssertionError(arguments)


def usage() -> str:
    """The page that ``negrec data --help`` prints."""
    lines = "".join(f"  {word:<9}{summary}\n" for word, (_, summary) in SUBCOMMANDS.items())
    return f"usage: negrec data SUBCOMMAND ...\n\nsubcommands:\n{lines}\n{_EXAMPLES}"


def unknown(word: str) -> str:
    """What to say about a word that is no subcommand."""
    near = difflib.get_close_matches(word, SUBCOMMANDS, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(SUBCOMMANDS)}"
    return f"negrec data has no {word!r}: {hint} (negrec data --help)"
