"""What a split is, and how one is put together from the rows it chose."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from negrec.data.attributes import Attributes
from negrec.data.interactions import Interactions, Ints
from negrec.data.timestamps import words
from negrec.errors import InputError
from negrec.types import DatasetInfo, HeldOut, Jagged

Catalogue = Literal["all", "train"]
Count = Literal["interactions", "users"]


@dataclass(frozen=True)
class LeakReport:
    """What a split lets training know of the test, and what it leaves out.

    Attributes:
        train_interactions: how many there are to learn from.
        valid_targets: how many are ranked.
        test_targets: how many are ranked.
        test_users: users with a test target.
        test_users_unseen: share of them without a training interaction.
        test_targets_unseen: share of test targets whose item has no training interaction.
        valid_cold: validation targets outside the catalogue: misses.
        test_cold: test targets outside the catalogue: misses.
        valid_left_out: validation targets without enough history, not ranked.
        test_left_out: test targets without enough history, not ranked.
        later_than_test: share of training interactions not earlier than another user's test
            target; None without timestamps.
        core: k of a k-core filter, which looks at held-out rows too; None where there was none.
        valid_from: start of the validation period in UTC, for splits by time.
        test_from: start of the test period.
    """

    train_interactions: int
    valid_targets: int
    test_targets: int
    test_users: int
    test_users_unseen: float
    test_targets_unseen: float
    valid_cold: int
    test_cold: int
    valid_left_out: int
    test_left_out: int
    later_than_test: float | None
    core: int | None
    valid_from: str | None
    test_from: str | None

    def as_dict(self) -> dict[str, int | float | str | None]:
        """For a file."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        if not self.test_targets and not self.test_left_out:
            return [f"split: {self.train_interactions:,} training interactions, nothing held out"]
        lines = [
            f"split: {self.train_interactions:,} training interactions, {self.valid_targets:,} "
            f"validation and {self.test_targets:,} test targets of {self.test_users:,} users"
        ]
        if self.test_from is not None:
            lines.append(f"validation from {self.valid_from}, test from {self.test_from} (UTC)")
        later = (
            "not known without timestamps"
            if self.later_than_test is None
            else f"{self.later_than_test:.1%}"
        )
        lines.append(
            f"leak report: {self.test_users_unseen:.1%} of the test users and "
            f"{self.test_targets_unseen:.1%} of the test targets never occur in training; "
            f"training interactions from after another user's test target (0% is clean): {later}"
        )
        if self.valid_cold or self.test_cold:
            lines.append(
                f"cold targets, outside the catalogue and counted as misses: {self.valid_cold:,} "
                f"in validation, {self.test_cold:,} in test"
            )
        if self.valid_left_out or self.test_left_out:
            lines.append(
                f"left out for want of history: {self.valid_left_out:,} validation and "
                f"{self.test_left_out:,} test targets"
            )
        if self.core is not None:
            lines.append(f"the {self.core}-core filter looked at held-out rows too")
        return lines


@dataclass(frozen=True)
class Split:
    """Interactions divided into what is learnt from and what is held out.

    Attributes:
        info: facts of the training part.
        train: catalogue ids in order, untruncated (n_users rows).
        valid: validation targets.
        test: test targets.
        catalogue: the data set's item index of catalogue ids 1..V, (V,).
        leak: what training may know of the test.
        hash: of what is trained on and what is held out, the data's hash within.
    """

    info: DatasetInfo
    train: Jagged
    valid: HeldOut
    test: HeldOut
    catalogue: Ints
    leak: LeakReport
    hash: str


class Splitter(Protocol):
    """Divides interactions; one class for each way, made from plain settings.

    Splits that draw have a ``seed`` of their own, so that runs with different seeds are measured
    on the same targets; null follows the run's.
    """

    def __call__(self, interactions: Interactions, max_length: int, seed: int) -> Split:
        """The split for models that see ``max_length`` items."""
        ...


@dataclass(frozen=True)
class Targets:
    """Held-out rows of the interactions, users ascending.

    Attributes:
        row: of each target, (M,).
        end: the history of a target is the rows of its user before this one, (M,).
    """

    row: Ints
    end: Ints


def check(catalogue: Catalogue, count: Count, min_history: int) -> None:
    """Refuses settings that no split takes."""
    if catalogue not in ("all", "train"):
        raise ValueError(f"split.catalogue must be all or train, got {catalogue!r}")
    if count not in ("interactions", "users"):
        raise ValueError(f"split.count must be interactions or users, got {count!r}")
    if min_history < 1:
        raise ValueError(f"split.min_history must be at least 1, got {min_history}")


def assemble(
    data: Interactions,
    train: NDArray[np.bool_],
    valid: Targets,
    test: Targets,
    max_length: int,
    catalogue: Catalogue,
    count: Count,
    min_history: int = 1,
    periods: tuple[int, int] | None = None,
) -> Split:
    """The split with the given rows.

    Args:
        data: all interactions.
        train: which rows are learnt from, (n,).
        valid: the validation targets.
        test: the test targets.
        max_length: the longest history that a model sees.
        catalogue: "all" items of the data set, or those of "train"; items outside are dropped
            from the histories.
        count: what an item's count is: training "interactions", or distinct "users".
        min_history: targets with a shorter history are left out.
        periods: where validation and test begin, for splits by time.

    Raises:
        InputError: a part without anything in it.
    """
    if not train.any():
        raise InputError(
            f"{data.name}: the split leaves no training interactions: begin validation later with "
            "split.cuts or split.fractions, or use split=leave_one_out"
        )
    in_train = np.bincount(data.item[train], minlength=data.n_items)
    inside = in_train > 0 if catalogue == "train" else np.ones(data.n_items, dtype=bool)
    items = np.flatnonzero(inside)
    if len(items) < 2:
        raise InputError(
            f"{data.name}: the training part holds a single item: nothing to rank; use more data"
        )
    ids = np.where(inside, np.cumsum(inside), 0)  # catalogue id of each item, 0 outside
    listed = inside[data.item]  # rows that histories keep
    before = np.concatenate([[0], np.cumsum(listed)])  # kept rows before each row, (n + 1,)
    history = torch.from_numpy(ids[data.item[listed]])

    def held_out(targets: Targets) -> tuple[HeldOut, Ints]:
        user = data.user[targets.row]
        start, end = before[data.offsets[user]], before[targets.end]
        enough = end - start >= min_history
        row = targets.row[enough]
        target = ids[data.item[row]]
        columns = (user[enough], target, start[enough], end[enough])
        user_, target_, start_, end_ = (torch.from_numpy(np.ascontiguousarray(c)) for c in columns)
        return HeldOut(user_, target_, history, start_, end_), row

    held_valid, _ = held_out(valid)
    held_test, test_row = held_out(test)
    learnt = Jagged(
        torch.from_numpy(ids[data.item[train]]),
        torch.from_numpy(np.searchsorted(data.user[train], np.arange(data.n_users + 1))),
    )
    counts = in_train[items]
    if count == "users":
        pairs = np.unique(data.user[train] * data.n_items + data.item[train])
        counts = np.bincount(pairs % data.n_items, minlength=data.n_items)[items]
    test_user = np.unique(data.user[test_row])
    leak = LeakReport(
        train_interactions=int(train.sum()),
        valid_targets=len(held_valid),
        test_targets=len(held_test),
        test_users=len(test_user),
        test_users_unseen=_share(learnt.lengths.numpy()[test_user] == 0),
        test_targets_unseen=_share(in_train[data.item[test_row]] == 0),
        valid_cold=int((held_valid.target == 0).sum()),
        test_cold=int((held_test.target == 0).sum()),
        valid_left_out=len(valid.row) - len(held_valid),
        test_left_out=len(test.row) - len(held_test),
        later_than_test=_later(data, train, test_row),
        core=data.cleaning.core,
        valid_from=None if periods is None else words(periods[0]),
        test_from=None if periods is None else words(periods[1]),
    )
    info = DatasetInfo(
        data.n_users,
        len(items),
        max_length,
        torch.from_numpy(counts),
        train=learnt,
        attributes=None if data.attributes is None else _attributes(data.attributes, ids, items),
    )
    return Split(
        info,
        learnt,
        held_valid,
        held_test,
        items,
        leak,
        _hash(data, items, info.counts, learnt, held_valid, held_test),
    )


def _attributes(known: Attributes, ids: Ints, items: Ints) -> Jagged:
    """The attributes of the catalogue's items, renumbered 0..A - 1 over those that occur there.

    Args:
        known: of all items of the data set.
        ids: catalogue id of each of these items, 0 outside.
        items: the item index of catalogue ids 1..V, ascending, (V,).
    """
    inside = ids[known.item] > 0
    _, values = np.unique(known.attribute[inside], return_inverse=True)
    offsets = np.searchsorted(ids[known.item[inside]], np.arange(1, len(items) + 2))
    return Jagged(torch.from_numpy(values), torch.from_numpy(offsets))


def _share(mask: NDArray[np.bool_]) -> float:
    return float(mask.mean()) if len(mask) else 0.0


def _later(data: Interactions, train: NDArray[np.bool_], test_row: Ints) -> float | None:
    """Share of training interactions not earlier than some other user's test target."""
    if data.timestamp is None or len(test_row) == 0:
        return None
    time, user = data.timestamp[test_row], data.user[test_row]
    first = time.argmin()
    others = time[user != user[first]]
    # The earliest test target counts for everybody but its own user.
    earliest_other = others.min() if len(others) else np.iinfo(np.int64).max
    limit = np.where(data.user[train] == user[first], earliest_other, time[first])
    return float((data.timestamp[train] >= limit).mean())


def _hash(
    data: Interactions,
    catalogue: Ints,
    counts: Tensor,
    train: Jagged,
    *held_out: HeldOut,
) -> str:
    parts = [torch.from_numpy(catalogue), counts, train.values, train.offsets]
    for held in held_out:
        parts += [held.user, held.target, held.items, held.start, held.end]
    digest = hashlib.blake2b(data.hash.encode(), digest_size=16)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part.numpy().astype("<i8", copy=False).data)
    return digest.hexdigest()
