"""Nothing is held out: for a model that is put to use."""

import numpy as np

from negrec.data.interactions import Interactions
from negrec.data.splits.base import Count, Split, Targets, assemble, check


class NothingHeldOut:
    """Trains on every interaction; there is nothing to validate or to test on.

    The catalogue is all items of the data set. How many epochs are good for such a training is
    known from a run with another split: ``negrec refit``.

    Args:
        count: an item's count is its "interactions", or their distinct "users".
    """

    def __init__(self, count: Count = "interactions") -> None:
        check("all", count, min_history=1)
        self.count = count

    def __call__(self, interactions: Interactions, max_length: int, seed: int) -> Split:
        """The split; nothing is drawn for it."""
        row = np.zeros(0, dtype=np.int64)
        nothing = Targets(row, row)
        return assemble(
            interactions,
            np.ones(interactions.n_interactions, dtype=bool),
            valid=nothing,
            test=nothing,
            max_length=max_length,
            catalogue="all",
            count=self.count,
        )
