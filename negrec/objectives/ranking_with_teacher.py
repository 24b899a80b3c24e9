"""Ranking, with a slow copy of the model that says what it thinks of false negatives."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negrec.data.sequences import Sequences
from negrec.embedding import whole
from negrec.losses.base import Loss
from negrec.models.base import SequenceModel
from negrec.objectives.ranking import Ranking
from negrec.plateau import Plateau, Start
from negrec.samplers.base import Sampler
from negrec.types import Batch, DatasetInfo, Feedback, Negatives, Outcome, Queries, Step


class RankingWithTeacher(Ranking):
    r"""Ranking plus consistency with an averaged teacher on mined false negatives.

    .. math:: \omega' \leftarrow d \omega' + (1 - d) \omega, \qquad
       L = L_\text{ranking} + \lambda \, \mathrm{mean}_{(h, i) \text{ mined}}
       \left[ -\hat y \log \sigma(s) - (1 - \hat y) \log(1 - \sigma(s)) \right], \quad
       \hat y = \sigma(s')

    where s is the model's score, s' that of the teacher with weights omega' (UFNRec, Liu et al.,
    2022, arXiv:2208.04116, section 3.3). At its first step the teacher is the model. Which items
    are mined, the sampler says (``false_negatives=``); where none are, only the average is kept:
    the control for what a teacher is worth as the model that is evaluated.

    Limits: lambda = 0 trains the model as ``Ranking`` does.

    Where we differ: the paper's equation 8 sums over the mined items of a query; as in its code,
    we take the mean over those of the batch. The code's ranking loss is twice our mean over
    candidates, so its lambda of 0.3 is 0.15 here. Its teacher scores with dropout, ours without.

    Args:
        info: facts of the training split.
        sequences: the training windows.
        sampler: see ``Ranking``.
        loss: see ``Ranking``.
        false_negatives: see ``Ranking``.
        decay: d, in [0, 1); the paper tunes 0.9 to 0.999.
        weight: lambda (the paper's alpha), at least 0.
        start: of the teacher, an epoch from 0, or "plateau"; see ``Plateau``.
        teacher_update: "before" the step (the paper's algorithm 1) or "after" it (its code).
        evaluate_teacher: validation and test look at the teacher once it has started.
    """

    sharded = True
    teacher: SequenceModel
    begun: Tensor

    def __init__(
        self,
        info: DatasetInfo,
        sequences: Sequences,
        sampler: Callable[[DatasetInfo], Sampler],
        loss: Loss,
        false_negatives: Callable[[DatasetInfo, Sampler], Sampler] | None = None,
        decay: float = 0.999,
        weight: float = 0.15,
        start: Start = "plateau",
        teacher_update: Literal["before", "after"] = "after",
        evaluate_teacher: bool = True,
    ) -> None:
        super().__init__(info, sequences, sampler, loss, false_negatives)
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}: with 1 a teacher never learns")
        if not 0 <= weight < torch.inf:
            raise ValueError(f"weight must be at least 0 and finite, got {weight}")
        if teacher_update not in ("before", "after"):
            raise ValueError(f"teacher_update must be before or after, got {teacher_update!r}")
        self.decay = decay
        self.weight = weight
        self.starting = Plateau(start)
        self.teacher_update = teacher_update
        self.evaluate_teacher = evaluate_teacher
        self.register_buffer("begun", torch.tensor(False))
        self._looked_up = -1  # epoch
        self.register_load_state_dict_post_hook(_look_up_again)  # type: ignore[no-untyped-call]

    def bind(self, model: SequenceModel) -> None:
        self.teacher = copy.deepcopy(model).requires_grad_(False)

    def forward(self, model: SequenceModel, batch: Batch, step: Step) -> Outcome:
        started = self.starting.started(step.epoch)
        if started:
            self._begin(model, step.epoch)
            if self.teacher_update == "before":
                self._follow(model, self.decay)
        outcome, queries, _ = self.rank(model, batch, step)
        if not started or self.weight == 0 or outcome.feedback is None:
            return outcome
        apart = self._inconsistency(model, batch, queries, outcome.feedback.negatives)
        return replace(outcome, loss=outcome.loss + self.weight * apart)

    def observe(self, model: SequenceModel, feedback: Feedback) -> None:
        super().observe(model, feedback)
        self.starting.observe(feedback.whole_loss, feedback.epoch)
        if self.teacher_update == "after" and self.starting.started(feedback.epoch):
            self._follow(model, self.decay)

    def evaluated(self, model: SequenceModel) -> SequenceModel:
        return self.teacher if self.evaluate_teacher and bool(self.begun) else model

    def _inconsistency(
        self, model: SequenceModel, batch: Batch, queries: Queries, negatives: Negatives
    ) -> Tensor | float:
        """Mean cross-entropy between model and teacher over the mined items, 0 where none is.

        Of a rank's part of the batch its share of the mean over all ranks' mined items.
        """
        if negatives.mined is None:
            return 0.0
        query, column = negatives.mined.nonzero(as_tuple=True)
        number = sum(batch.world.counts(len(query)))
        if len(query) == 0:
            return 0.0
        item = negatives.of().expand_as(negatives.mined)[query, column]
        with torch.no_grad():
            self.teacher.eval()
            hidden = self.teacher(batch).hidden[query]
            belief = torch.sigmoid(self.teacher.scorer.target(hidden, item))
        score = model.scorer.target(queries.hidden[query], item)
        return F.binary_cross_entropy_with_logits(score, belief) * (len(query) / number)

    def _begin(self, model: SequenceModel, epoch: int) -> None:
        """Makes the teacher the model, once."""
        if self._looked_up == epoch:  # once an epoch: the host waits for the device
            return
        self._looked_up = epoch
        if not self.begun:
            self._follow(model, 0.0)
            self.begun.fill_(True)

    @torch.no_grad()
    def _follow(self, model: SequenceModel, decay: float) -> None:
        """Moves the teacher's parameters and buffers towards the model's."""
        for slow, fast in zip(_tensors(self.teacher), _tensors(model), strict=True):
            if slow.is_floating_point():
                slow.lerp_(whole(fast), 1 - decay)
            else:
                slow.copy_(fast)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    return chain(module.parameters(), module.buffers())


def _look_up_again(module: nn.Module, _: object) -> None:
    """What was looked up before a state was loaded does not hold for it."""
    assert isinstance(module, RankingWithTeacher)
    module._looked_up = -1
