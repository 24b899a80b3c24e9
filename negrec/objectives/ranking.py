"""Ranking the target above sampled negatives."""

from collections.abc import Callable

import torch

from negrec.data.sequences import Sequences
from negrec.losses.base import Loss
from negrec.models.base import SequenceModel
from negrec.objectives.base import Objective
from negrec.samplers.base import Sampler
from negrec.types import Batch, DatasetInfo, Feedback, Outcome, Step


class Ranking(Objective):
    """The mean over a batch's queries of a loss on the target and the sampler's negatives.

    Args:
        info: facts of the training split.
        sequences: the training windows.
        sampler: makes the sampler.
        loss: judges.
    """

    def __init__(
        self,
        info: DatasetInfo,
        sequences: Sequences,
        sampler: Callable[[DatasetInfo], Sampler],
        loss: Loss,
    ) -> None:
        super().__init__(info, sequences)
        self.sampler = sampler(info)
        self.loss = loss

    def forward(self, model: SequenceModel, batch: Batch, step: Step) -> Outcome:
        queries = model(batch)
        with torch.no_grad(), step.timer("sampler"):
            negatives = self.sampler.sample(queries.detach(), model.scorer, step)
        loss, scores = self.loss(queries, negatives, model.scorer)
        return Outcome(loss.mean(), Feedback(queries.detach(), negatives, scores, loss.detach()))

    def observe(self, model: SequenceModel, feedback: Feedback) -> None:
        self.sampler.observe(feedback)
