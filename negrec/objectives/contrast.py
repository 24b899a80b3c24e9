"""What contrastive objectives share."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from negrec.models.base import SequenceModel
from negrec.types import Batch, Jagged


def info_nce(one: Tensor, two: Tensor, temperature: float, batch: Batch | None = None) -> Tensor:
    r"""How badly each of 2 B views is told from the others, a scalar with gradient.

    .. math:: L = -\frac{1}{2B} \sum_{a} \log
       \frac{\exp(z_a \cdot z_{p(a)} / \tau)}{\sum_{b \neq a} \exp(z_a \cdot z_b / \tau)}

    where p(a) is the other view of a's sequence; the 2 (B - 1) views of the other sequences are
    negatives (Chen et al., 2020, arXiv:2002.05709, equation 1, with a dot product for the cosine).
    Memory and time grow with the square of B: 4 B^2 similarities.

    Limits: one sequence alone costs 0; views that are all alike cost log(2 B - 1).

    Args:
        one: a view of each sequence, (B, D).
        two: the other one, (B, D).
        temperature: tau, positive.
        batch: whose sequences these are, where it may be a rank's part of one: its views are told
            from those of all ranks, and the loss is its share.
    """
    own = views = torch.cat([one, two])  # (2 B, D)
    place, n = torch.arange(len(one), device=views.device), len(one)
    if batch is not None and batch.shard is not None:
        views = torch.cat([batch.gather(view, "sequence") for view in (one, two)])
        n = len(views) // 2
        place = batch.own(torch.arange(n, device=views.device), "sequence")
    place = torch.cat([place, place + n])  # of the own views among all
    with torch.autocast(views.device.type, enabled=False):
        similarity = own @ views.T / temperature
    similarity.scatter_(1, place[:, None], -torch.inf)
    other = (place + n) % len(views)
    return F.cross_entropy(similarity, other) * (len(own) / len(views))


def of_histories(user: Tensor, items: Jagged, position: Tensor) -> Batch:
    """The batch of histories that ask for nothing.

    Args:
        user: of each history, (B,).
        items: B rows, none empty.
        position: index of each item in the user's whole history, (T,).
    """
    none = items.offsets.new_empty(0)
    return Batch(user, items.values, position, items.offsets, query=none, target=none)


def refuse_without_history(name: str, model: SequenceModel) -> None:
    """Refuses a model whose states do not depend on the history: all views of it are one.

    Args:
        name: of the objective.
        model: as it was built.

    Raises:
        ValueError: it reads none.
    """
    if not model.reads:
        raise ValueError(
            f"objective {name} does not go with model {type(model).__name__}: it contrasts views "
            "of a history, and the model reads none: use objective=ranking"
        )
