"""The whole catalogue in place of a sample."""

import torch

from negrec.samplers.base import Sampler
from negrec.scoring import ItemScorer
from negrec.types import DatasetInfo, Exclude, Negatives, Queries, Step


class Full(Sampler):
    """Every item is a candidate of every query; nothing is drawn.

    What any sampler is measured against. Losses run over chunks of queries and never hold (N, V)
    scores; with ``exclude="target"`` each query has V - 1 negatives.
    """

    exhaustive = True

    def __init__(self, info: DatasetInfo, exclude: Exclude = "target") -> None:
        super().__init__(info, exclude)
        self.k = info.n_items

    def sample(self, queries: Queries, scorer: ItemScorer, step: Step) -> Negatives:
        items = torch.arange(1, self.n_items + 1, device=queries.target.device)[None]
        return Negatives(items, exclude=self.exclude, exhaustive=True)
