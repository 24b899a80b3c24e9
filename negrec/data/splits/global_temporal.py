"""One cut in time for everybody: training never sees what comes after it."""

from collections.abc import Sequence
from math import ceil
from typing import Literal, get_args

import numpy as np

from negrec import seeding
from negrec.data.interactions import Interactions, Ints
from negrec.data.splits.base import Catalogue, Count, Split, Targets, assemble, check
from negrec.data.timestamps import moment, words
from negrec.errors import InputError

Target = Literal["last", "first", "random", "successive", "all"]


class GlobalTemporal:
    """Trains before one moment, validates up to a second, tests from there on.

    A cut falls on a timestamp, and interactions of that very time belong to the later part.
    Validation is built like test, one period earlier.

    Args:
        fractions: of the rows in order of time, for training, validation and test; the later
            parts are rounded up.
        cuts: in place of fractions, where validation and test begin: dates or Unix times.
        target: of a user's interactions in a period, "last": the last, with everything before it
            as history; "first": the first; "random": one of them, with everything before it;
            "successive": each, with everything before it; "all": each, with the history as it was
            when the period began.
        catalogue: "all" items of the data set, or those of "train".
        count: an item's count is its training "interactions", or their distinct "users".
        min_history: targets with a shorter history are counted and left out.
        seed: of target="random"; None follows the run's seed.
    """

    def __init__(
        self,
        fractions: Sequence[float] = (0.90, 0.05, 0.05),
        cuts: Sequence[str | int] | None = None,
        target: Target = "last",
        catalogue: Catalogue = "train",
        count: Count = "interactions",
        min_history: int = 1,
        seed: int | None = 0,
    ) -> None:
        check(catalogue, count, min_history)
        if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
            raise ValueError(
                f"split.fractions must be three positive numbers with sum 1, got {list(fractions)}"
            )
        if target not in get_args(Target):
            raise ValueError(
                f"split.target must be one of {', '.join(get_args(Target))}, got {target!r}"
            )
        self.cuts = None if cuts is None else [moment(cut) for cut in cuts]
        if self.cuts is not None and (len(self.cuts) != 2 or self.cuts[0] >= self.cuts[1]):
            raise ValueError(
                f"split.cuts must be the start of validation and a later one of test, got {cuts}"
            )
        self.fractions = tuple(fractions)
        self.target = target
        self.catalogue = catalogue
        self.count = count
        self.min_history = min_history
        self.seed = seed

    def __call__(self, interactions: Interactions, max_length: int, seed: int) -> Split:
        """The split; ``seed`` is the run's."""
        time = interactions.timestamp
        if time is None:
            raise InputError(
                f"{interactions.name}: split=global_temporal needs timestamps and there are none: "
                "use split=leave_one_out, or name their column with dataset.columns.timestamp=NAME"
            )
        valid_from, test_from = self._periods(time)
        run_seed = seed if self.seed is None else self.seed
        rng = np.random.default_rng(seeding.stream_seed(run_seed, "split"))
        split = assemble(
            interactions,
            time < valid_from,
            valid=self._targets(interactions, time, valid_from, test_from, rng),
            test=self._targets(interactions, time, test_from, None, rng),
            max_length=max_length,
            catalogue=self.catalogue,
            count=self.count,
            min_history=self.min_history,
            periods=(valid_from, test_from),
        )
        leak = split.leak
        for period, since, n_targets, n_left_out in (
            ("validation", valid_from, leak.valid_targets, leak.valid_left_out),
            ("test", test_from, leak.test_targets, leak.test_left_out),
        ):
            if n_targets == 0:
                raise InputError(
                    f"{interactions.name}: the {period} period from {words(since)} has no user to "
                    f"evaluate ({n_left_out:,} targets without history): move it with "
                    "split.fractions or split.cuts, or use split=leave_one_out"
                )
        return split

    def _periods(self, time: Ints) -> tuple[int, int]:
        """Where validation and test begin."""
        if self.cuts is not None:
            return self.cuts[0], self.cuts[1]
        n = len(time)
        # Rounded first: 0.07 * 100 is a little more than 7, and no reason for an eighth row.
        n_valid, n_test = (ceil(round(share * n, 6)) for share in self.fractions[1:])
        later = min(n, n_valid + n_test)
        ordered = np.partition(time, [n - later, n - n_test])
        return int(ordered[n - later]), int(ordered[n - n_test])

    def _targets(
        self,
        data: Interactions,
        time: Ints,
        since: int,
        until: int | None,
        rng: np.random.Generator,
    ) -> Targets:
        """The targets of a period. A user's rows in it stand side by side, in order of time."""
        inside = time >= since
        if until is not None:
            inside &= time < until
        rows = np.flatnonzero(inside)
        # Of each user with rows in the period: where they begin in `rows`, and how many.
        _, begin, size = np.unique(data.user[rows], return_index=True, return_counts=True)
        match self.target:
            case "last":
                chosen = rows[begin + size - 1]
            case "first":
                chosen = rows[begin]
            case "random":
                chosen = rows[begin + rng.integers(size)] if len(size) else rows
            case "successive":
                chosen = rows
            case "all":
                return Targets(rows, np.repeat(rows[begin], size))
        return Targets(chosen, chosen)
