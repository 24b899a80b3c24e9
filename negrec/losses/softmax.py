"""Full softmax, in chunks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from negrec.losses.base import Loss
from negrec.scoring import ItemScorer, Scratch, chunk_rows, chunks, exponentials
from negrec.types import Judgement, Negatives, Queries


class Softmax(Loss):
    r"""Cross-entropy of the target over the whole catalogue.

    .. math:: L = -\log \frac{e^{s^+}}{e^{s^+} + \sum_{i \neq +} e^{s_i}}

    with scores s divided by the temperature. Items that ``sampler.exclude`` rules out are left
    out of the sum; the target never is. Scores are computed in chunks of queries, and once more
    in the backward pass: no (N, V) tensor is ever held.

    Args:
        temperature: positive; it sharpens the loss only, ``scorer.temperature`` every score.
    """

    needs_exhaustive = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature = temperature
        self._scratch = Scratch()

    def forward(self, queries: Queries, negatives: Negatives, scorer: ItemScorer) -> Judgement:
        assert negatives.exhaustive
        ((policy, _),) = negatives.policies
        query, item = queries.excluded.pairs("target" if policy == "none" else policy)
        order = query.argsort(stable=True)
        ruled_out = (query[order], item[order] - 1)
        positive = scorer.target(queries.hidden, queries.target) / self.temperature
        hidden = queries.hidden.to(scorer.weight.dtype) / self.temperature
        others: Tensor = _LogSumExp.apply(  # type: ignore[no-untyped-call]
            hidden, scorer.matrix, ruled_out, self._scratch
        )  # (N,)
        judged = others != -torch.inf  # a score that is not a number must show in the loss
        # log(e^s+ + sum) - s+ as a softplus: exact also where the target is far in front.
        loss = F.softplus(others - positive).masked_fill(~judged, 0)
        return Judgement(loss, judged)


class _LogSumExp(torch.autograd.Function):
    """log sum_i exp(h . e_i) over the items that are not ruled out, (N,)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        matrix: Tensor,
        ruled_out: tuple[Tensor, Tensor],
        scratch: Scratch,
    ) -> Tensor:
        query, column = ruled_out
        out = hidden.new_empty(len(hidden))
        for part, pairs in _parts(hidden, matrix, query, column):
            weight, top = exponentials(hidden[part], matrix, pairs, scratch)
            torch.log(weight.sum(1), out=out[part])
            out[part] += top
        ctx.save_for_backward(hidden, matrix, query, column, out)
        ctx.scratch = scratch
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, matrix, query, column, total = ctx.saved_tensors
        of_hidden, of_matrix = torch.empty_like(hidden), torch.zeros_like(matrix)
        for part, pairs in _parts(hidden, matrix, query, column):
            weight, top = exponentials(hidden[part], matrix, pairs, ctx.scratch)
            # exp(s - total) = weight * exp(top - total), and 0 where nothing is left to sum.
            scale = torch.exp(top - total[part]).nan_to_num_(0, 0, 0) * gradient[part]
            weight = weight[:, : len(matrix)].mul_(scale[:, None])
            torch.mm(weight, matrix, out=of_hidden[part])
            of_matrix.addmm_(weight.T, hidden[part])
        return of_hidden, of_matrix, None, None


def _parts(
    hidden: Tensor, matrix: Tensor, query: Tensor, column: Tensor
) -> list[tuple[slice, tuple[Tensor, Tensor]]]:
    """Chunks of queries, each with its own (row, column) pairs that are ruled out."""
    parts = list(chunks(len(hidden), chunk_rows(len(matrix))))
    starts = torch.tensor([part.start for part in parts] + [len(hidden)], device=query.device)
    bounds = torch.searchsorted(query, starts).tolist()
    return [
        (part, (query[a:b] - part.start, column[a:b]))
        for part, a, b in zip(parts, bounds, bounds[1:], strict=False)
    ]
