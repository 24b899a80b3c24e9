"""What a person did wrong, said in one line."""

import re


class InputError(ValueError):
    """Bad input: data, configuration or command line. The message says what, where, what to do.

    The command line prints it without a traceback and exits with code 2.
    """

    def __str__(self) -> str:
        return printable(re.sub(r"\s*[\r\n]+\s*", " ", super().__str__()))


def printable(text: str) -> str:
    """The text with control characters as escapes: what a file holds must not steer a terminal."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )
