"""How good a substitute for the full softmax a sampler and its loss are, by their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from negrec.kernels.tiles import chunk_rows, chunks
from negrec.losses.base import Loss
from negrec.scoring import ItemScorer
from negrec.types import Negatives, Queries
from negrec.wide import wide


@dataclass(frozen=True)
class GradientError:
    r"""How gradients of a sampled loss differ from those of the full softmax.

    With g the sampled gradient of all queries, f the full one, and one constant c for all
    queries, the least-squares solution of c E[g] = f, at least 0, since an optimiser like Adam
    does not see a constant factor. The batch is given: what depends on it alone, as the targets
    that in-batch negatives are, counts as bias.

    Attributes:
        cosine: mean over queries and draws of cos(g, f): how far one step can be trusted.
        bias: \|c E[g] - f\| / \|f\|, in [0, 1]: what no number of draws repairs. The noise of
            the mean over finitely many draws is taken out; below it, the bias is 0.
        variance: E \|c g - c E[g]\|^2 / \|f\|^2: what more draws repair.
        scale: c.
    """

    cosine: float
    bias: float
    variance: float
    scale: float


def gradient_error(sampled: Tensor, full: Tensor) -> GradientError | None:
    """Compares draws of a gradient with the exact one; None where they are lost in noise.

    Args:
        sampled: gradients of S draws, (S, N, D), S at least 2.
        full: (N, D).
    """
    place = wide(full.device)
    sampled, full = sampled.to(place, torch.double), full.to(place, torch.double)
    cosine = torch.cosine_similarity(sampled, full[None], dim=2)
    pulled = sampled.norm(dim=2) > 0  # a skipped query pulls nowhere
    mean = sampled.mean(0)
    noise = (sampled - mean).square().sum() / (len(sampled) - 1)  # E |g - E[g]|^2
    # |mean|^2 is |E[g]|^2 and what is left of the noise after S draws.
    length = mean.square().sum() - noise / len(sampled)
    norm = full.square().sum()
    if not (length > 0 and norm > 0 and pulled.any()):
        return None
    inner = (mean * full).sum()
    scale = (inner / length).clamp(min=0)  # a step cannot be turned around
    bias = (1 - inner * scale / norm).clamp(min=0).sqrt()
    return GradientError(
        cosine=cosine[pulled].mean().item(),
        bias=bias.item(),
        variance=(scale.square() * noise / norm).item(),
        scale=scale.item(),
    )


def sampled_gradient(
    queries: Queries, draws: Sequence[Negatives], loss: Loss, scorer: ItemScorer
) -> Tensor:
    """The gradient of each query's loss with respect to its state, for each draw, (S, N, D)."""
    found = []
    for negatives in draws:
        hidden = queries.hidden.detach().clone().requires_grad_()
        with torch.enable_grad():
            judgement = loss(with_hidden(queries, hidden), negatives, scorer)
            (gradient,) = torch.autograd.grad(judgement.loss.sum(), hidden)
        found.append(gradient)
    return torch.stack(found)


def full_gradient(
    hidden: Tensor, target: Tensor, scorer: ItemScorer, temperature: float = 1.0
) -> Tensor:
    r"""The gradient of the full softmax loss of each query, (N, D), never holding (N, V).

    .. math:: \partial L / \partial h = \frac{1}{\tau} \big( \sum_i p_i e_i - e_+ \big), \quad
       p = \mathrm{softmax}(h \cdot e / \tau)

    Args:
        hidden: (N, D).
        target: (N,).
        scorer: with the item vectors e.
        temperature: tau.
    """
    with torch.no_grad():
        matrix = scorer.matrix
        expected = [
            ((hidden[part] @ matrix.T) / temperature).softmax(1) @ matrix
            for part in chunks(len(hidden), chunk_rows(len(matrix)))
        ]
        return (torch.cat(expected) - matrix[target - 1]) / temperature


def with_hidden(queries: Queries, hidden: Tensor) -> Queries:
    """The same queries with other states, (N, any)."""
    changed = replace(queries, hidden=hidden)
    # What is excluded does not depend on states, and is built once.
    changed.__dict__["excluded"] = queries.excluded
    return changed


class TargetProbe(ItemScorer):
    """A scorer whose states are one wider: the last entry is added to the target's score.

    The gradient with respect to that entry is the gradient with respect to the target's score,
    for any loss and however it cuts its queries into chunks.

    Args:
        scorer: the model's.
    """

    def __init__(self, scorer: ItemScorer) -> None:
        torch.nn.Module.__init__(self)  # past ItemScorer, which would draw vectors
        self.scorer = scorer
        self.weight, self.bias = scorer.weight, scorer.bias
        self.similarity, self.temperature = scorer.similarity, scorer.temperature

    @property
    def matrix(self) -> Tensor:
        return torch.nn.functional.pad(self.scorer.matrix, (0, 1))

    def vectors(self, items: Tensor) -> Tensor:
        return torch.nn.functional.pad(self.scorer.vectors(items), (0, 1))

    def target(self, hidden: Tensor, target: Tensor) -> Tensor:
        own: Tensor = self.scorer.target(hidden[:, :-1], target)
        return own + hidden[:, -1]

    def every(self, hidden: Tensor) -> Tensor:
        scores: Tensor = self.scorer.every(hidden[:, :-1])
        return scores

    def forward(self, hidden: Tensor, items: Tensor, row: Tensor | None = None) -> Tensor:
        scores: Tensor = self.scorer(hidden[:, :-1], items, row)
        return scores


def target_gradient(
    queries: Queries, negatives: Negatives, loss: Loss, scorer: ItemScorer
) -> tuple[Tensor, Tensor]:
    """The slope d loss / d s+ of each query, (N,), and which of them were judged, (N,) bool."""
    with torch.enable_grad():
        more = torch.zeros_like(queries.hidden[:, :1]).requires_grad_()
        wider = with_hidden(queries, torch.cat([queries.hidden.detach(), more], 1))
        judgement = loss(wider, negatives, TargetProbe(scorer))
        (gradient,) = torch.autograd.grad(judgement.loss.sum(), more)
    return gradient[:, 0], judgement.judged
