"""Ranking, with a contrast between histories that ask for the same item."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from negrec.losses.base import Loss
from negrec.models.base import SequenceModel
from negrec.objectives.auxiliary import RankingWithAuxiliary
from negrec.objectives.contrast import info_nce, of_histories, refuse_without_history
from negrec.samplers.base import Sampler
from negrec.types import Batch, DatasetInfo, Queries, Step, slices


class DuoRec(RankingWithAuxiliary):
    r"""Ranking plus a contrast between a history and one that asks for the same next item.

    .. math:: L = L_\text{ranking} + \lambda \, L_\text{InfoNCE}(z^1, z^2)

    for the newest target of each sequence, in both directions, with the views of the batch's
    other sequences as negatives; see ``info_nce``. Qiu et al., 2022 (DuoRec, arXiv:2110.05730,
    section 4). The views z^1 and z^2 are states after the newest item of

    * unsupervised and supervised: the history once more, with other dropout, and another history
      with the same target (the code's "us_x");
    * unsupervised alone: the history as it is ranked, and once more with other dropout;
    * supervised alone: the history as it is ranked, and another one with the same target.

    Histories with the same target are all beginnings of users' training histories that this item
    comes after, cut to the newest items that a model reads; one is drawn uniformly, and never the
    history itself unless there is no other: then it is the history with other dropout, as in the
    authors' code. Also as there, sequences of a batch that share a target are negatives of each
    other, and the mean over both directions is taken where the paper's equation adds them up: a
    factor of 2 on lambda.

    Where we differ: the authors train on every beginning of a history as a sample of its own, so
    each target is contrasted; ours are contrasted for the newest target of a window. Our ranking
    loss is the configured one, theirs the full softmax.

    Draws come from torch's global stream, as dropout does: a replayed batch gets new ones.

    Limits: lambda = 0 trains as ``Ranking`` does. In a model without dropout the unsupervised
    view is the history's own state, and only the spread of the states is left to be learnt.

    Args:
        info: facts of the training split.
        sequences: the training windows.
        sampler: see ``Ranking``.
        loss: see ``Ranking``.
        false_negatives: see ``Ranking``.
        weight: lambda, at least 0.
        temperature: tau, positive.
        unsupervised: the history with other dropout is a view.
        supervised: another history with the same target is a view.
    """

    sharded = True
    items: Tensor
    owner: Tensor
    begin: Tensor
    target: Tensor
    first: Tensor

    def __init__(
        self,
        info: DatasetInfo,
        sequences: Sequences,
        sampler: Callable[[DatasetInfo], Sampler],
        loss: Loss,
        false_negatives: Callable[[DatasetInfo, Sampler], Sampler] | None = None,
        weight: float = 0.1,
        temperature: float = 1.0,
        unsupervised: bool = True,
        supervised: bool = True,
    ) -> None:
        super().__init__(info, sequences, sampler, loss, false_negatives, weight)
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        if not (unsupervised or supervised):
            raise ValueError("one of unsupervised and supervised must be true: both are false")
        if not isinstance(sequences.targets, NextItem):
            raise ValueError(
                f"objective duorec does not go with targets {type(sequences.targets).__name__}: "
                "it contrasts histories that ask for the same next item: use targets=next_item"
            )
        self.temperature = temperature
        self.unsupervised = unsupervised
        self.supervised = supervised
        self.max_length = info.max_length
        train = sequences.train
        # Item i is the target train.values[target[r]] for r in first[i]..first[i + 1] - 1: every
        # training interaction but the first of a user.
        later = torch.ones(len(train.values), dtype=torch.bool)
        later[train.offsets[:-1][train.lengths > 0]] = False
        target = later.nonzero().squeeze(1)
        asked, order = train.values[target].sort(stable=True)
        facts = {
            "items": train.values,
            "owner": train.row,
            "begin": train.offsets[:-1],
            "target": target[order],
            "first": torch.searchsorted(asked, torch.arange(info.n_items + 2)),
        }
        for name, values in facts.items():  # data, not a state to be saved
            self.register_buffer(name, values, persistent=False)

    def bind(self, model: SequenceModel) -> None:
        super().bind(model)
        refuse_without_history("duorec", model)

    def auxiliary(self, model: SequenceModel, batch: Batch, queries: Queries, step: Step) -> Tensor:
        # Where the newest target of each sequence stands among all training interactions, (B,).
        own = self.begin[batch.user] + batch.position[batch.last] + 1
        other = self.draw(own) if self.supervised else own
        if self.unsupervised and self.supervised:
            one, two = model.represent(self.histories(torch.cat([own, other]))).chunk(2)
        else:
            one = queries.hidden[batch.last]  # every token of next-item targets is a query
            two = model.represent(self.histories(other))
        return info_nce(one, two, self.temperature, batch)

    def draw(self, own: Tensor) -> Tensor:
        """Of each training target another one that is the same item, or itself if there is none.

        Args:
            own: indices into the training interactions, (B,).

        Returns:
            Indices into the training interactions, (B,).
        """
        item = self.items[own]
        first, last = self.first[item], self.first[item + 1] - 1
        # Uniform over all but the last; the last stands in for the target itself.
        u = torch.rand(own.shape, device=own.device)
        drawn = self.target[first + (u * (last - first)).long()]
        return torch.where(drawn == own, self.target[last], drawn)

    def histories(self, target: Tensor) -> Batch:
        """What a model reads before each of some training targets (B,)."""
        user = self.owner[target]
        start = torch.maximum(self.begin[user], target - self.max_length)
        items = slices(self.items, start, target)
        index = torch.arange(len(items.values), device=target.device)
        within = index - items.offsets[items.row]
        return of_histories(user, items, (start - self.begin[user])[items.row] + within)
