"""Ranking, with a contrast between changed histories."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from negrec.data.sequences import Sequences
from negrec.losses.base import Loss
from negrec.models.base import SequenceModel
from negrec.objectives.auxiliary import RankingWithAuxiliary
from negrec.objectives.contrast import info_nce, of_histories, refuse_without_history
from negrec.samplers.base import Sampler
from negrec.types import HIDDEN, Batch, DatasetInfo, Jagged, Queries, Step, slices

_CROP, _MASK, _REORDER = range(3)


class CL4SRec(RankingWithAuxiliary):
    r"""Ranking plus a contrast between two changed views of each history.

    .. math:: L = L_\text{ranking} + \lambda \, L_\text{InfoNCE}(z^1, z^2)

    where z^1 and z^2 are the states after the newest item of the two views, and the views of the
    batch's other sequences are negatives; see ``info_nce``. A view of a history of n items comes
    from one operator, drawn uniformly from those that are on:

    * crop: a run of max(1, floor(eta n)) items, from a uniform start, is all that is left;
    * mask: floor(gamma n) items, drawn without replacement, are not told (``HIDDEN``);
    * reorder: a run of floor(beta n) items, from a uniform start, is shuffled.

    Xie et al., 2022 (CL4SRec, arXiv:2010.14395, section 3). The history is a training window's
    input: the newest target is never part of a view.

    Both views go through the model in one forward pass of 2 B sequences, and the similarities are
    4 B^2 numbers: larger batches cost the square of their size. The states are those that items
    are scored with: with a cosine scorer they are of length 1 here too, and want a temperature.

    Where we differ: the two operators of a sequence are drawn independently, as in the paper's
    text, so they can be the same one; the code of DuoRec's authors draws two different ones. With
    one operator on, both views come from it, as in the paper's figures that vary one at a time.
    The paper's equation has no temperature: tau = 1. It tunes the three ratios for each data set;
    the defaults are those of DuoRec's code.

    Views are drawn from torch's global stream, as dropout is: a replayed batch gets new ones.

    Limits: lambda = 0 trains as ``Ranking`` does.

    Args:
        info: facts of the training split.
        sequences: the training windows.
        sampler: see ``Ranking``.
        loss: see ``Ranking``.
        false_negatives: see ``Ranking``.
        weight: lambda, at least 0.
        temperature: tau, positive.
        crop: eta, fraction of a history that a crop leaves, in [0, 1]; 0 switches cropping off.
        mask: gamma, fraction that is hidden, in [0, 1]; 0 switches masking off.
        reorder: beta, fraction that is shuffled, in [0, 1]; 0 switches reordering off.
    """

    sharded = True
    operators: Tensor
    sizes: Tensor

    def __init__(
        self,
        info: DatasetInfo,
        sequences: Sequences,
        sampler: Callable[[DatasetInfo], Sampler],
        loss: Loss,
        false_negatives: Callable[[DatasetInfo, Sampler], Sampler] | None = None,
        weight: float = 0.1,
        temperature: float = 1.0,
        crop: float = 0.6,
        mask: float = 0.3,
        reorder: float = 0.6,
    ) -> None:
        super().__init__(info, sequences, sampler, loss, false_negatives, weight)
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        for name, ratio in (("crop", crop), ("mask", mask), ("reorder", reorder)):
            if not 0 <= ratio <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {ratio}")
        if crop == mask == reorder == 0:
            raise ValueError("one of crop, mask and reorder must be above 0: all are 0")
        if sequences.targets.hides:
            raise ValueError(
                f"objective cl4srec does not go with targets {type(sequences.targets).__name__}: "
                "it changes histories, and these have items hidden already: use targets=next_item"
            )
        self.temperature = temperature
        self.mask = mask
        ratios = (crop, mask, reorder)
        on = [kind for kind, ratio in enumerate(ratios) if ratio > 0]
        self.register_buffer("operators", torch.tensor(on), persistent=False)
        sizes = [[int(n * ratio) for n in range(info.max_length + 1)] for ratio in ratios]
        sizes[_CROP] = [max(1, size) for size in sizes[_CROP]]
        self.register_buffer("sizes", torch.tensor(sizes), persistent=False)

    def bind(self, model: SequenceModel) -> None:
        super().bind(model)
        refuse_without_history("cl4srec", model)
        if self.mask > 0 and not model.hides:
            raise ValueError(
                f"objective cl4srec does not go with model {type(model).__name__} as it is: it "
                f"hides items (mask={self.mask}), and the model has no vector for a hidden one: "
                "set model.hides=true, where the model has that, or objective.mask=0"
            )

    def auxiliary(self, model: SequenceModel, batch: Batch, queries: Queries, step: Step) -> Tensor:
        one, two = model.represent(self.views(batch)).chunk(2)
        return info_nce(one, two, self.temperature, batch)

    def views(self, batch: Batch) -> Batch:
        """Two views of each of B sequences: sequence b's are b and B + b."""
        first, n = batch.offsets[:-1].repeat(2), batch.offsets.diff().repeat(2)  # (2 B,)
        device = n.device
        drawn = torch.randint(len(self.operators), n.shape, device=device)
        operator = self.operators[drawn]
        crop, mask, reorder = (operator == kind for kind in (_CROP, _MASK, _REORDER))
        # The run of items that an operator works on: so many, from `begin` on.
        size = self.sizes[operator, n]
        begin = (torch.rand(n.shape, device=device) * (n - size + 1)).long()
        start = torch.where(crop, first + begin, first)
        end = torch.where(crop, start + size, first + n)
        token = slices(torch.arange(len(batch.items), device=device), start, end)
        row = token.row
        # Blocks of neighbours that are shuffled: the run that is reordered; where items are
        # hidden the whole history, of which those that land in the first `size` places are it.
        index = torch.arange(len(row), device=device)
        within = index - token.offsets[row]
        reordered = reorder[row] & (within >= begin[row]) & (within < (begin + size)[row])
        block = torch.where(reordered, (token.offsets[:-1] + begin)[row], index)
        block = torch.where(mask[row], token.offsets[row], block)
        shuffled = _shuffle(block)
        hidden = mask[row] & (within[shuffled] < size[row])
        items = batch.items[token.values[torch.where(reordered, shuffled, index)]]
        view = Jagged(items.masked_fill(hidden, HIDDEN), token.offsets)
        return of_histories(batch.user.repeat(2), view, batch.position[token.values])


def _shuffle(block: Tensor) -> Tensor:
    """Indices (T,) that permute neighbours with the same number, uniformly.

    Args:
        block: ascending, (T,).
    """
    order = torch.randperm(len(block), device=block.device)
    return order[block[order].argsort(stable=True)]
