"""The published convention: everybody's last interaction is the test."""

import numpy as np

from negrec import seeding
from negrec.data.interactions import Interactions
from negrec.data.splits.base import Catalogue, Count, Split, Targets, assemble, check
from negrec.errors import InputError

_SHORTEST = 3  # one to learn from, one to validate, one to test


class LeaveOneOut:
    """Tests on each user's last item, validates on the second last, trains on those before.

    A target's history is all that precedes it. Users with fewer than 3 interactions are training
    only. The split looks into the future: others' training interactions may be later than a test
    target (Ji et al. 2020, arXiv:2010.11060); the leak report says how many are.

    Args:
        catalogue: "all" items of the data set, or those of "train".
        count: an item's count is its training "interactions", or their distinct "users".
        validation_users: hold out the second last item of so many users only, drawn at random,
            and learn from the others' (gSASRec: 512); None for everybody's.
        seed: of that draw; None follows the run's seed.
    """

    def __init__(
        self,
        catalogue: Catalogue = "all",
        count: Count = "interactions",
        validation_users: int | None = None,
        seed: int | None = 0,
    ) -> None:
        check(catalogue, count, min_history=1)
        if validation_users is not None and validation_users < 1:
            raise ValueError(f"split.validation_users must be at least 1, got {validation_users}")
        self.catalogue = catalogue
        self.count = count
        self.validation_users = validation_users
        self.seed = seed

    def __call__(self, interactions: Interactions, max_length: int, seed: int) -> Split:
        """The split; ``seed`` is the run's."""
        lengths = np.diff(interactions.offsets)
        users = np.flatnonzero(lengths >= _SHORTEST)
        if len(users) == 0:
            raise InputError(
                f"{interactions.name}: split=leave_one_out needs users with {_SHORTEST} "
                f"interactions, and the longest history has {lengths.max()}: use more data, or "
                "check dataset.columns.user"
            )
        last = interactions.offsets[users + 1] - 1
        validated = last
        if self.validation_users is not None and self.validation_users < len(users):
            stream = seeding.stream_seed(seed if self.seed is None else self.seed, "split")
            drawn = np.random.default_rng(stream).choice(
                len(users), self.validation_users, replace=False
            )
            validated = last[np.sort(drawn)]
        train = np.ones(interactions.n_interactions, dtype=bool)
        train[last] = False
        train[validated - 1] = False
        return assemble(
            interactions,
            train,
            valid=Targets(validated - 1, validated - 1),
            test=Targets(last, last),
            max_length=max_length,
            catalogue=self.catalogue,
            count=self.count,
        )
