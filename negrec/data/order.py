"""How much of a data set hangs on the order of histories: what is left when they are shuffled.

After Klenitskiy et al., 2024, "Does It Look Sequential?" (RecSys, arXiv:2408.12008).
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from negrec.data.interactions import Ints

SUPPORT = 5  # theirs: more occurrences than this are no chance
CONFIDENCE = 0.1  # theirs


class Patterns(NamedTuple):
    """How many different n-grams (n items in a row of one user) stand out.

    Attributes:
        frequent: occur more often than the support, over all users.
        rules: of these, how many come after their first n - 1 items in more than a share
            (the confidence) of the places where those n - 1 items stand in a row.
    """

    frequent: int
    rules: int


@dataclass(frozen=True)
class Left:
    """Numbers before and after shuffling.

    Attributes:
        original: before.
        shuffled: after, of each shuffle.
    """

    original: float
    shuffled: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.shuffled)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the shuffles; None for a single one."""
        return stdev(self.shuffled) if len(self.shuffled) > 1 else None

    @property
    def share(self) -> float | None:
        """Mean after over before; None where there was nothing before."""
        return self.mean / self.original if self.original else None


@dataclass(frozen=True)
class Shuffled:
    """The n-grams of one length that are left when histories are shuffled.

    Attributes:
        n: items of an n-gram.
        frequent: see ``Patterns``.
        rules: see ``Patterns``.
    """

    n: int
    frequent: Left
    rules: Left


def shuffle_test(
    user: Ints,
    item: Ints,
    shuffles: int,
    rng: np.random.Generator,
    within: Ints | None = None,
) -> tuple[Shuffled, Shuffled]:
    """The 2-grams and 3-grams of histories as they are, and shuffled.

    Where order carries nothing, as many are left; where it carries all, none but those that
    popular items make by chance.

    Args:
        user: of each interaction, ascending, (n,).
        item: 0..V - 1, in the order in which the user took them, (n,).
        shuffles: how many times histories are shuffled.
        rng: source of randomness.
        within: numbers of the runs of interactions that are shuffled, ascending, (n,); users'
            whole histories by default.
    """
    runs = user if within is None else within
    original = patterns(user, item)
    rounds: list[tuple[Patterns, Patterns]] = []
    for _ in range(shuffles):
        rounds.append(patterns(user, shuffled(item, runs, rng)))
    two, three = (
        Shuffled(
            at + 2,
            Left(original[at].frequent, tuple(each[at].frequent for each in rounds)),
            Left(original[at].rules, tuple(each[at].rules for each in rounds)),
        )
        for at in range(2)
    )
    return two, three


def shuffled(values: Ints, runs: Ints, rng: np.random.Generator) -> Ints:
    """The values in a random order within each run.

    Args:
        values: (n,).
        runs: numbers from 0, ascending, (n,).
        rng: source of randomness.
    """
    if not len(values):
        return values
    # The run above, chance below. With 20 million runs 38 bits of chance are left, which two of
    # the thousand values of a run share once in half a million runs.
    bits = 63 - int(runs[-1]).bit_length()
    key = (runs.astype(np.int64) << bits) | rng.integers(1 << bits, size=len(runs))
    return values[np.argsort(key)]


def patterns(
    user: Ints, item: Ints, support: int = SUPPORT, confidence: float = CONFIDENCE
) -> tuple[Patterns, Patterns]:
    """The 2-grams and 3-grams that stand out, see ``Patterns``.

    Args:
        user: of each interaction, ascending, (n,).
        item: 0..V - 1, (n,).
        support: occurrences that are not yet enough.
        confidence: share that is not yet enough.
    """
    single = np.bincount(item)
    # An n-gram cannot be frequent where a part of it is not: few places are left to be sorted.
    often = single[item] > support
    at = np.flatnonzero((user[1:] == user[:-1]) & often[1:] & often[:-1])
    code = item[at].astype(np.int64) * len(single) + item[at + 1]
    pair, times, which = _frequent(code, support)
    two = Patterns(len(pair), _confident(times, single[pair // len(single)], confidence))

    kept = which >= 0
    at, which = at[kept], which[kept]  # places of frequent pairs, ascending
    follows = np.flatnonzero(at[1:] == at[:-1] + 1)
    code = which[follows] * len(pair) + which[follows + 1]
    triple, triple_times, _ = _frequent(code, support)
    first = triple // max(len(pair), 1)
    return two, Patterns(len(triple), _confident(triple_times, times[first], confidence))


def _frequent(code: Ints, support: int) -> tuple[Ints, Ints, Ints]:
    """The codes that occur more often than ``support``.

    Returns:
        These codes, ascending, (m,); how often they occur, (m,); and which of them stands at each
        place, from 0, -1 for none, (n,).
    """
    # Sorting takes a few times the room of the codes, whatever they are; a hash table more.
    order = np.argsort(code)
    ordered = code[order]
    first = np.ones(len(code), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    begin = np.flatnonzero(first)
    times = np.diff(np.append(begin, len(code)))
    enough = times > support
    number = np.where(enough, enough.cumsum() - 1, -1)
    which = np.empty_like(order)
    which[order] = np.repeat(number, times)
    return ordered[begin[enough]], times[enough], which


def _confident(times: Ints, of: Ints, confidence: float) -> int:
    return int((times / of > confidence).sum())
