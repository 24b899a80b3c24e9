"""Ranking the target above sampled negatives."""

from __future__ import annotations

from collections.abc import Callable

import torch

from negrec.data.sequences import Sequences
from negrec.losses.base import Loss
from negrec.models.base import SequenceModel
from negrec.objectives.base import Objective
from negrec.samplers.base import Sampler
from negrec.types import Batch, DatasetInfo, Feedback, Judgement, Outcome, Queries, Step


class Ranking(Objective):
    """The mean over a batch's queries of a loss on the target and the sampler's negatives.

    Queries whose candidates are all ruled out teach nothing: they are left out and counted.

    Args:
        info: facts of the training split.
        sequences: the training windows.
        sampler: makes the sampler.
        loss: judges.
        false_negatives: wraps the sampler into one that looks for false negatives.

    Raises:
        ValueError: the loss cannot work with what the sampler draws.
    """

    sharded = True

    def __init__(
        self,
        info: DatasetInfo,
        sequences: Sequences,
        sampler: Callable[[DatasetInfo], Sampler],
        loss: Loss,
        false_negatives: Callable[[DatasetInfo, Sampler], Sampler] | None = None,
    ) -> None:
        super().__init__(info, sequences)
        self.sampler = sampler(info)
        if false_negatives is not None:
            self.sampler = false_negatives(info, self.sampler)
        self.loss = loss
        refuse(self.sampler, loss)

    def forward(self, model: SequenceModel, batch: Batch, step: Step) -> Outcome:
        outcome, _, _ = self.rank(model, batch, step)
        return outcome

    def rank(
        self, model: SequenceModel, batch: Batch, step: Step
    ) -> tuple[Outcome, Queries, Judgement]:
        """The outcome, and what it was made of with its gradient."""
        queries = model(batch)
        detached = queries.detach()
        with torch.no_grad(), step.timer("sampler"):
            negatives = self.sampler.sample(detached, model.scorer, step)
        judgement = self.loss(queries, negatives, model.scorer)
        feedback = Feedback(
            detached, negatives, judgement.scores, judgement.loss.detach(), step.epoch
        )
        judged = batch.world.sum(judgement.judged.sum())
        skipped = len(batch.whole.target) - judged
        return Outcome(judgement.mean(judged), feedback, skipped), queries, judgement

    def observe(self, model: SequenceModel, feedback: Feedback) -> None:
        self.sampler.observe(feedback)


def refuse(sampler: Sampler, loss: Loss) -> None:
    """Refuses a loss that cannot honour what the sampler draws, or lacks what it needs.

    Raises:
        ValueError: naming both parts and the reason.
    """
    if not isinstance(loss, Loss):
        raise ValueError("the loss is not built yet: leave _partial_ out of its yaml")
    if loss.needs_exhaustive and not sampler.exhaustive:
        reason = "it reads the whole catalogue and this draws from it: use sampler=full"
    elif loss.needs_density and loss.needs_target_density and sampler.density_by_query:
        reason = "it reads the density of targets too, and there is one of what is drawn only"
    elif loss.needs_density and not (sampler.has_density or sampler.density_by_query):
        reason = "log-Q needs the density that negatives are drawn from, and there is none"
    elif sampler.labels and not loss.reads_labels:
        reason = "candidates are relabelled as positives, and the loss cannot honour labels"
    else:
        return
    pair = f"loss {type(loss).__name__} does not go with sampler {sampler.name}"
    raise ValueError(f"{pair}: {reason}")
