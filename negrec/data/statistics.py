"""What a data set is like, in numbers: sizes, histories, times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from negrec.data.interactions import Interactions, Ints

_DAY = 86_400 * 10**6  # microseconds


@dataclass(frozen=True)
class Lengths:
    """Interactions of a user, over all users.

    Attributes:
        shortest: of the histories.
        lower: the first quartile.
        median: the second.
        upper: the third.
        longest: of the histories.
        mean: over the users.
    """

    shortest: int
    lower: float
    median: float
    upper: float
    longest: int
    mean: float

    @classmethod
    def of(cls, lengths: Ints) -> Lengths:
        """Of the length of each history, (U,); quartiles are interpolated."""
        shortest, lower, median, upper, longest = np.percentile(lengths, [0, 25, 50, 75, 100])
        return cls(
            int(shortest),
            float(lower),
            float(median),
            float(upper),
            int(longest),
            float(lengths.mean()),
        )


@dataclass(frozen=True)
class Times:
    """When things were taken.

    Attributes:
        first: the earliest time, in microseconds since 1970.
        last: the latest.
        equal: share of the interactions whose user has another of the very same time: what comes
            first of those is told by the file's positions or the order of its rows, not by time.
        whole_days: whether no time has an hour.
    """

    first: int
    last: int
    equal: float
    whole_days: bool

    @property
    def days(self) -> float:
        return (self.last - self.first) / _DAY

    @classmethod
    def of(cls, user: Ints, timestamp: Ints) -> Times:
        """Of the interactions sorted by user and time, (n,) each."""
        size = np.bincount(moments(user, timestamp))
        return cls(
            int(timestamp.min()),
            int(timestamp.max()),
            float(size[size > 1].sum() / len(user)),
            bool((timestamp % _DAY == 0).all()),
        )


@dataclass(frozen=True)
class Statistics:
    """A data set in numbers.

    Attributes:
        lengths: of the histories.
        sparsity: share of the pairs of a user and an item that never occur.
        times: None where there are none.
        short: users with fewer than 3 interactions, whom leave-one-out cannot test.
        cut: share of the interactions that models with ``max_length`` items never see at once:
            those before the newest ``max_length`` of their user.
    """

    lengths: Lengths
    sparsity: float
    times: Times | None
    short: int
    cut: float


def statistics(data: Interactions, max_length: int) -> Statistics:
    """The numbers of a data set, all of whose interactions are counted.

    Args:
        data: cleaned and sorted.
        max_length: the longest history that a model sees, in items.
    """
    lengths = np.diff(data.offsets)
    pairs = data.n_interactions - data.cleaning.repeats
    return Statistics(
        Lengths.of(lengths),
        1 - pairs / (data.n_users * data.n_items),
        None if data.timestamp is None else Times.of(data.user, data.timestamp),
        int((lengths < 3).sum()),
        float(np.maximum(lengths - max_length, 0).sum() / data.n_interactions),
    )


def moments(user: Ints, timestamp: Ints) -> Ints:
    """A number for each user and time, ascending from 0, of sorted interactions, (n,)."""
    new = (np.diff(user) != 0) | (np.diff(timestamp) != 0)
    return np.concatenate([[0], np.cumsum(new)])
