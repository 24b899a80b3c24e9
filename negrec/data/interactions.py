"""Interactions of one data set: who took what, in which order."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from negrec.data.attributes import Attributes

if TYPE_CHECKING:  # it imports torch, which `negrec data` does without
    from negrec.data.truth import Truth

Ints = NDArray[np.int64]

# With more repeats than this, leaving seen items out of a ranking rules out too many targets.
_MANY_REPEATS = 0.05


@dataclass(frozen=True)
class Counts:
    """How large a table is."""

    users: int
    items: int
    interactions: int

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.interactions:,} interactions"


@dataclass(frozen=True)
class Cleaning:
    """What became of a table's rows.

    Attributes:
        read: the table as it came.
        below_rating: rows dropped for their rating.
        duplicates: rows dropped as duplicates.
        outside_core: rows dropped by the k-core filter.
        core: k of that filter, or of the one that the file's maker ran; None where there was none.
        repeats: of the rows kept, those whose user took the item before.
        other_events: rows dropped for their event.
    """

    read: Counts
    below_rating: int = 0
    duplicates: int = 0
    outside_core: int = 0
    core: int | None = None
    repeats: int = 0
    other_events: int = 0


@dataclass(frozen=True)
class Interactions:
    """One data set, cleaned and indexed, sorted by user, time, position and row of the file.

    Attributes:
        name: the data set's.
        user: index of the user, ascending, (n,).
        item: index of the item, 0..n_items - 1, (n,); catalogue ids are a split's business.
        timestamp: microseconds since 1970 in UTC, (n,); None where the table has none.
        user_ids: the user's own id of each index.
        item_ids: the item's.
        hash: of all of the above but the name: the same data give the same hash wherever the file
            lies and whatever its format.
        cleaning: what became of the table's rows.
        truth: the distribution that the data were drawn from, where it is known.
        attributes: of the items, where they are known; they have a hash of their own.
        names: of the items, for people to read; null where one has none, (n_items,).
    """

    name: str
    user: Ints
    item: Ints
    timestamp: Ints | None
    user_ids: pl.Series
    item_ids: pl.Series
    hash: str
    cleaning: Cleaning
    truth: Truth | None = None
    attributes: Attributes | None = None
    names: pl.Series | None = None

    @property
    def n_users(self) -> int:
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        return len(self.item_ids)

    @property
    def n_interactions(self) -> int:
        return len(self.user)

    @property
    def repeat_share(self) -> float:
        """Share of the interactions whose user took the same item before."""
        return self.cleaning.repeats / self.n_interactions

    @cached_property
    def offsets(self) -> Ints:
        """The interactions of user u are ``offsets[u]:offsets[u + 1]``, (n_users + 1,)."""
        return np.searchsorted(self.user, np.arange(self.n_users + 1)).astype(np.int64)

    def lines(self) -> list[str]:
        """What cleaning did, for people."""
        done, lines = self.cleaning, []
        dropped = {
            "of other events": done.other_events,
            "below dataset.min_rating": done.below_rating,
            "duplicates": done.duplicates,
            f"outside the {done.core}-core": done.outside_core,
        }
        told = [f"{n:,} {why}" for why, n in dropped.items() if n]
        if told:
            lines.append(f"read {done.read}; dropped {', '.join(told)}")
        if done.repeats:
            lines.append(f"{self.repeat_share:.1%} of the interactions repeat an earlier one")
        return lines


@dataclass(frozen=True)
class Recommendation:
    """Settings that fit a data set: the option of ``split`` and ``evaluation.seen``."""

    split: Literal["leave_one_out", "global_temporal"]
    seen: Literal["filter", "keep"]


def recommended(interactions: Interactions) -> Recommendation:
    """By time where there are times; with seen items where many interactions repeat."""
    return Recommendation(
        "leave_one_out" if interactions.timestamp is None else "global_temporal",
        "keep" if interactions.repeat_share > _MANY_REPEATS else "filter",
    )


def count_repeats(user: Ints, item: Ints) -> int:
    """How many interactions are not the first of their user with their item."""
    if len(item) == 0:
        return 0
    pair = pl.Series(user) * (int(item.max()) + 1) + pl.Series(item)
    return len(pair) - pair.n_unique()


def content_hash(
    user: Ints, item: Ints, timestamp: Ints | None, user_ids: pl.Series, item_ids: pl.Series
) -> str:
    """A hash of the data alone."""
    digest = hashlib.blake2b(digest_size=16)
    for values in (user, item, timestamp):
        digest.update(b"none" if values is None else b"%d:" % len(values))
        if values is not None:
            digest.update(np.ascontiguousarray(values, dtype="<i8").data)
    for ids in (user_ids, item_ids):
        text = ids.cast(pl.String)
        # Lengths first: ["ab", "c"] and ["a", "bc"] are different ids.
        digest.update(text.str.len_bytes().cast(pl.Int64).to_numpy().astype("<i8").tobytes())
        digest.update("".join(text).encode())
    return digest.hexdigest()
