"""The words behind ``negrec train``, told apart."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException

from negrec.errors import InputError

# Hydra's flags that take a value, and the one that may.
_VALUED = {
    "--cfg": "-c",
    "--package": "-p",
    "--config-path": "-cp",
    "--config-name": "-cn",
    "--config-dir": "-cd",
    "--experimental-rerun": "--experimental-rerun",
}
_SHOWS = {
    *("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"),
    *("--shell-completion", "-sc"),
}
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@dataclass(frozen=True)
class Typed:
    """A command line of ``train``: Hydra's flags with their values, and everything else."""

    flags: tuple[str, ...]
    words: tuple[str, ...]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Self:
        """Sorts the arguments, which may stand in any order."""
        flags: list[str] = []
        words: list[str] = []
        rest = list(arguments)
        while rest:
            argument = rest.pop(0)
            if not argument.startswith("-"):
                words.append(argument)
                continue
            flags.append(argument)
            valued = argument in _VALUED or argument in _VALUED.values()
            info = argument in ("--info", "-i") and rest[:1] and rest[0] in _INFO
            if rest and (valued or info):
                flags.append(rest.pop(0))
        return cls(tuple(flags), tuple(words))

    @property
    def arguments(self) -> list[str]:
        """Flags first: Hydra's parser wants the overrides together."""
        return [*self.flags, *self.words]

    @property
    def multirun(self) -> bool:
        return "-m" in self.flags or "--multirun" in self.flags

    @property
    def shows(self) -> bool:
        """Whether the command prints something, in place of running."""
        return not _SHOWS.isdisjoint(self.flags)

    def flag(self, name: str) -> str | None:
        """The value of one of Hydra's flags, by its long name."""
        for at, word in enumerate(self.flags):
            if word in (name, _VALUED[name]) and at + 1 < len(self.flags):
                return self.flags[at + 1]
            if word.startswith(f"{name}="):
                return word.partition("=")[2]
        return None

    def value(self, key: str) -> str | None:
        """What was typed for a key, unparsed; None where it was not typed."""
        for word in self.words:
            name, equals, text = word.partition("=")
            if equals and name.lstrip("+") == key:
                return text
        return None

    def plus(self, *words: str) -> Self:
        return replace(self, words=(*self.words, *words))


def parsed(words: Sequence[str]) -> list[Override]:
    """The words as Hydra's overrides.

    Raises:
        InputError: a word is no override.
    """
    parser = OverridesParser.create()
    found = []
    for word in words:
        try:
            found.extend(parser.parse_overrides([word]))
        except OverrideParseException as error:
            raise InputError(_unreadable(word)) from error
    return found


def _unreadable(word: str) -> str:
    if "=" not in word:
        return f"{word!r} is neither KEY=VALUE nor a file that exists"
    key, _, _ = word.partition("=")
    return (
        f"cannot read {word!r}: put a value with spaces, brackets or signs into two pairs of "
        f"quotes, \"{key}='...'\", and write a list as {key}=[1,2]"
    )


def spelled_out(arguments: Sequence[str], example: str) -> list[str]:
    """The arguments with ``-o PLACE`` as ``out=PLACE``.

    Args:
        arguments: as typed.
        example: a place, for the message.

    Raises:
        InputError: nothing stands behind -o.
    """
    spelled, rest = [], list(arguments)
    while rest:
        word = rest.pop(0)
        if word in ("-o", "--output"):
            if not rest:
                raise InputError(f"-o wants a name: -o {example}")
            word = f"out={rest.pop(0)}"
        spelled.append(word)
    return spelled


def refuse_repeats(words: Sequence[str]) -> None:
    """Hydra would silently take the last value of a key that is typed twice.

    Raises:
        InputError: naming the two.
    """
    seen: dict[str, str] = {}
    for override in parsed(words):
        # `~key +key=value` takes something out and puts another thing in.
        key = f"~{override.key_or_group}" if override.is_delete() else name(override)
        word = str(override.input_line)
        if key in seen:
            raise InputError(f"{key} is given twice, {seen[key]} and {word}: keep one of them")
        seen[key] = word


def name(override: Override) -> str:
    """The key or group of an override without its signs, with its package."""
    package = "" if override.package is None else f"@{override.package}"
    return f"{override.key_or_group}{package}"


def quoted(text: str) -> str:
    """A text as a value in Hydra's grammar, whatever it contains."""
    # A backslash is itself unless it stands before a quote.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"'{escaped}'"
