"""What a trained model loses when the histories it is asked about are shuffled.

After Klenitskiy et al., 2024, "Does It Look Sequential?" (RecSys, arXiv:2408.12008).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from negrec.data.order import Left, shuffled
from negrec.evaluation.evaluator import Evaluator, Ints, Ranker, without_unknown
from negrec.types import HeldOut

K = 10  # their cut-off


@dataclass(frozen=True)
class OrderEffect:
    """A model's results after histories as they are, and after shuffled ones.

    Attributes:
        hit_rate: HR@10.
        ndcg: NDCG@10.
        jaccard: of the lists of 10 before and after, the mean over targets, of each shuffle; 1 is
            the same ten items whatever their order.
    """

    hit_rate: Left
    ndcg: Left
    jaccard: tuple[float, ...]


def order_effect(
    model: Ranker,
    held_out: HeldOut,
    evaluator: Callable[[HeldOut], Evaluator],
    max_length: int,
    shuffles: int,
    rng: np.random.Generator,
) -> OrderEffect:
    """Evaluates a model on held-out targets after original and after shuffled histories.

    Only what the model sees is shuffled, the newest ``max_length`` items, so that it reads the
    same items in another order. The model itself was trained on histories as they are.

    Args:
        model: trained.
        held_out: the targets.
        evaluator: makes an evaluator of targets, with a cut-off of 10.
        max_length: the longest history that the model sees, in items.
        shuffles: how many times histories are shuffled.
        rng: source of randomness.
    """

    def results(targets: HeldOut) -> tuple[Mapping[str, float], Ints]:
        evaluate = evaluator(targets)
        return evaluate(model).metrics, evaluate.first(model, K)

    metrics, lists = results(held_out)
    rounds, overlaps = [], []
    for _ in range(shuffles):
        found, others = results(shuffled_histories(held_out, max_length, rng))
        rounds.append(found)
        overlaps.append(jaccard(lists, others))
    hit_rate, ndcg = (
        Left(metrics[name], tuple(each[name] for each in rounds))
        for name in (f"hr_{K}", f"ndcg_{K}")
    )
    return OrderEffect(hit_rate, ndcg, tuple(overlaps))


def shuffled_histories(held_out: HeldOut, max_length: int, rng: np.random.Generator) -> HeldOut:
    """The same targets with the newest ``max_length`` items of each history in a random order.

    Items outside the catalogue, which no model sees, are left out.
    """
    known = without_unknown(held_out)
    histories = known.histories()
    index = torch.arange(len(histories.values))
    newest = (histories.offsets[1:][histories.row] - index <= max_length).numpy()
    values = histories.values.numpy()  # gathered: a copy
    values[newest] = shuffled(values[newest], histories.row.numpy()[newest], rng)
    start, end = histories.offsets[:-1], histories.offsets[1:]
    return HeldOut(known.user, known.target, torch.from_numpy(values), start, end)


def jaccard(lists: Ints, others: Ints) -> float:
    """Items in both of two lists over items in either, the mean over the pairs of lists.

    Args:
        lists: different items each, (M, k); 0 fills a list that has fewer.
        others: (M, k).
    """
    if not len(lists):
        return float("nan")
    both = ((lists[:, :, None] == others[:, None, :]) & (lists > 0)[:, :, None]).sum((1, 2))
    either = (lists > 0).sum(1) + (others > 0).sum(1) - both
    return float((both / np.maximum(either, 1)).mean())
