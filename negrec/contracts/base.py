"""What a contract is: a promise of every part of a kind, and how to see that it is kept."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import negrec

S = TypeVar("S")

_NEGREC = Path(negrec.__file__).resolve().parent


class BrokenContractError(Exception):
    """A promise that is not kept; the message says what was seen."""


class DoesNotApplyError(Exception):
    """A promise that the part does not make; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """What became of one contract.

    Attributes:
        name: the promise.
        holds: whether it is kept; None where it does not apply.
        reason: what was seen, or why it does not apply.
        advice: what to do where it is broken.
        failed: the part itself raised an error.
    """

    name: str
    holds: bool | None
    reason: str = ""
    advice: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Contract(Generic[S]):
    """A promise that parts of a kind make.

    Attributes:
        name: the promise.
        advice: what to do where it is broken.
        check: raises ``BrokenContractError`` or ``DoesNotApplyError`` for what makes the part.
    """

    name: str
    advice: str
    check: Callable[[S], None]

    def __str__(self) -> str:
        return self.name

    def verdict(self, subject: S) -> Verdict:
        """Runs the check; an error of the part itself breaks the contract."""
        try:
            self.check(subject)
        except DoesNotApplyError as reason:
            return Verdict(self.name, None, str(reason))
        except BrokenContractError as reason:
            return Verdict(self.name, False, str(reason), self.advice)
        except Exception as error:
            seen = f"{type(error).__name__}: {error}{_place(error)}"
            return Verdict(self.name, False, seen, self.advice, failed=True)
        return Verdict(self.name, True)


def verdicts(contracts: Sequence[Contract[S]], subject: S) -> Iterator[Verdict]:
    """What becomes of each contract, one after the other.

    The first one says what any use of a part relies on: where it is broken, errors in the others
    say nothing more.
    """
    sound = True
    for index, each in enumerate(contracts):
        verdict = each.verdict(subject)
        if verdict.failed and not sound:
            verdict = Verdict(each.name, None, "the first contract has to hold before")
        if index == 0:
            sound = verdict.holds is not False
        yield verdict


def _place(error: Exception) -> str:
    """Where the part's own code failed, if it is one of the user's."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if "site-packages" not in path.parts and not path.is_relative_to(_NEGREC):
            return f" ({path.name}, line {frame.lineno})"
    return ""


def contract(
    kept: list[Contract[S]], name: str, advice: str
) -> Callable[[Callable[[S], None]], Callable[[S], None]]:
    """Adds the decorated check to a list of contracts."""

    def add(check: Callable[[S], None]) -> Callable[[S], None]:
        kept.append(Contract(name, advice, check))
        return check

    return add


def demand(condition: object, reason: str) -> None:
    """Breaks the contract, for the given reason, unless the condition is true."""
    if not condition:
        raise BrokenContractError(reason)
