"""An index of the catalogue: a draw looks at the clusters of items, then at the items of one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from negrec.kernels.draw import draw, pick
from negrec.kernels.log_sum_exp import log_sum_exp
from negrec.kernels.tiles import BLOCK, Pairs, Scratch, chunks
from negrec.scoring import FixedScorer, ItemScorer, queries_at_once
from negrec.types import Exclude, Negatives, Queries, slices
from negrec.wide import uniform

_NUMBERS = 1 << 20  # of gathered vectors that are held at once (4 MiB)
_SAMPLE = 1024  # items by which a cluster's principal axis is found
_ITERATIONS = 10  # of the power method: two halves need no exact axis
_REFRESHED = 1 << 16  # items whose parts are looked at again at each step, in turns
_PARTS = 16  # of a cluster, at the most, by which its share is estimated


@dataclass(frozen=True)
class Grouping:
    """The items in C clusters of W or W - 1, and each cluster in S parts.

    Attributes:
        members: ids of each cluster's items, part by part; 0 in an empty last slot, (C, W).
        slot: where each item stands in ``members.flatten()``, (V,).
        centre: mean vector of each part, when it was last looked at, (C S, D).
        spread: mean variance of the vectors' components within each part, then, (C S,).
    """

    members: Tensor
    slot: Tensor
    centre: Tensor
    spread: Tensor

    @classmethod
    def of(cls, scorer: ItemScorer, n_clusters: int) -> Grouping:
        """Groups the items of a scorer by their present vectors.

        The catalogue is cut in halves across the principal axis of its vectors, each half across
        its own, and so on (Boley, 1998, Data Mining and Knowledge Discovery 2(4), who cuts at the
        mean; here it is the median, so that no cluster is larger than another). Nothing is
        random. It costs about log2(C S) passes over the item table, and holds no copy of it.

        Args:
            scorer: the model's.
            n_clusters: C, a power of two, at most V.
        """
        device, n_items = scorer.weight.device, scorer.n_items
        n_parts = n_clusters * parts_of(n_items, n_clusters)
        order = torch.arange(1, n_items + 1, device=device)
        for level in range(n_parts.bit_length() - 1):
            order = _halved(scorer, order, 1 << level)
        at, inside = _rows(n_items, n_clusters, device)
        members = order[at].masked_fill_(~inside, 0)
        slot = torch.empty_like(order)
        slot[order - 1] = torch.arange(members.numel(), device=device).view_as(at)[inside]
        every = _parts(members, n_items, n_parts, slice(0, n_parts))
        return cls(members, slot, *_moments(scorer, every))

    def refreshed(self, scorer: ItemScorer, part: slice) -> Grouping:
        """The same groups, with some of the parts as their vectors are now."""
        ids = _parts(self.members, len(self.slot), len(self.centre), part)
        centre, spread = self.centre.clone(), self.spread.clone()
        centre[part], spread[part] = _moments(scorer, ids)
        return replace(self, centre=centre, spread=spread)


class Clusters(nn.Module):
    r"""Draws items by a softmax over the catalogue, nearly, at about the cost of its square root.

    .. math:: q(i \mid h) = P(c \mid h) \, \frac{e^{h \cdot e_i}}{\sum_{j \in c} e^{h \cdot e_j}},
       \quad P(c \mid h) \propto \sum_{p \in c}
       n_p \exp\left(h \cdot \mu_p + \tfrac{1}{2} \lVert h \rVert^2 \sigma_p^2\right)

    with c the cluster of item i. P estimates how much of the softmax lies in a cluster, by the
    means and the variances of the n_p vectors of its parts p when they were last looked at: exact
    where they are normal, the same in all directions, and have not moved since. Within a cluster
    the draw is exact, by the present vectors. So the density of a draw is known, and its distance
    from the softmax is that of P from the true shares of the clusters.

    Limits: one cluster is the softmax.

    What is excluded is never drawn, and q is over the rest: within a cluster it is left out of
    the sum, and a cluster of which nothing is left has P = 0.

    Args:
        n_items: V.
        n_clusters: C, a power of two in 1..V. A draw looks at 16 C centres and V / C items; fewer
            clusters are nearer to the softmax.
    """

    members: Tensor
    slot: Tensor
    centre: Tensor
    spread: Tensor

    def __init__(self, n_items: int, n_clusters: int) -> None:
        super().__init__()
        if n_clusters < 1 or n_clusters & (n_clusters - 1):
            raise ValueError(f"n_clusters must be a power of two, got {n_clusters}")
        if n_clusters > n_items:
            raise ValueError(
                f"n_clusters must not exceed the catalogue: n_clusters={n_clusters}, and there are "
                f"{n_items} items"
            )
        width = -(-n_items // n_clusters)
        self.register_buffer("members", torch.zeros(n_clusters, width, dtype=torch.int64))
        self.register_buffer("slot", torch.zeros(n_items, dtype=torch.int64))
        n_parts = n_clusters * parts_of(n_items, n_clusters)
        self.register_buffer("centre", torch.zeros(n_parts, 0))  # how wide, the model tells
        self.register_buffer("spread", torch.zeros(n_parts))
        self._scratch = Scratch()

    def grouping(self, scorer: ItemScorer, index: int) -> Grouping:
        """What a step draws by, which lasts only if it is given to ``keep``.

        The groups are made anew at an epoch's first step. At the others the parts are looked at
        again in turns, all of them at each step while the catalogue is small: with centres of the
        epoch's start a model learns from negatives that it has got over.

        Args:
            scorer: the model's.
            index: the step's, within the epoch.
        """
        if index == 0 or self.centre.shape[1] == 0:
            return Grouping.of(scorer, len(self.members))
        kept = Grouping(self.members, self.slot, self.centre, self.spread)
        rounds = -(-len(self.slot) // _REFRESHED)
        start, stop = ((index % rounds + more) * len(self.centre) // rounds for more in (0, 1))
        return kept.refreshed(scorer, slice(start, stop))

    def keep(self, grouping: Grouping) -> None:
        """What later draws go by."""
        self.members, self.slot = grouping.members, grouping.slot
        self.centre, self.spread = grouping.centre, grouping.spread

    def draw(
        self,
        grouping: Grouping,
        queries: Queries,
        scorer: ItemScorer,
        alpha: Tensor,
        exclude: Exclude,
        k: int,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Draws k items of each query with replacement, and tells log q of each.

        Args:
            grouping: what to go by.
            queries: N of them.
            scorer: the model's.
            alpha: what all scores are multiplied by first, a scalar.
            exclude: what is never drawn.
            k: draws per query.
            generator: source of randomness.

        Returns:
            Ids (N, k); of a query that may be given nothing, any. Log densities (N, k).
        """
        hidden = queries.hidden.detach().to(grouping.centre.dtype) * alpha
        query, slot = self._excluded(queries, grouping, exclude)
        # The weight of a part as one dot product.
        size = _rows(len(grouping.slot), len(grouping.centre), hidden.device)[1].sum(1)
        one = hidden.new_ones(len(hidden), 1)
        states = torch.cat([hidden, hidden.square().sum(1, keepdim=True) / 2, one], 1)
        parts = torch.cat([grouping.centre, grouping.spread[:, None], size.log()[:, None]], 1)
        ruled_out = self._nothing_left(grouping, query, slot)
        part = draw(states, parts, ruled_out, k, generator, self._scratch)
        total = log_sum_exp(states, parts, ruled_out, self._scratch)
        # Where scores are no numbers anything is drawn: the trainer says that a loss is not finite.
        cluster = part.clamp_(0, len(parts) - 1) // (len(parts) // len(grouping.members))
        item, log_weight = self._items(
            grouping, states, parts, scorer, cluster, query, slot, generator
        )
        return item, log_weight - total[:, None]

    def _excluded(
        self, queries: Queries, grouping: Grouping, exclude: Exclude
    ) -> tuple[Tensor, Tensor]:
        """Excluded (query, slot) pairs, but of queries which nothing is left for."""
        query, item = queries.excluded.pairs(exclude)
        some_left = torch.bincount(query, minlength=len(queries.target)) < len(grouping.slot)
        counts = some_left[query]
        return query[counts], grouping.slot[item[counts] - 1]

    def _nothing_left(self, grouping: Grouping, query: Tensor, slot: Tensor) -> Pairs:
        """(query, part) cells of clusters whose items are all excluded."""
        n_clusters, width = grouping.members.shape
        size = width - (grouping.members[:, -1] == 0).int()
        cell, taken = torch.unique(query * n_clusters + slot // width, return_counts=True)
        row, cluster = cell // n_clusters, cell % n_clusters
        full = taken == size[cluster]
        several = len(grouping.centre) // n_clusters
        part = cluster[full, None] * several + torch.arange(several, device=cell.device)
        return Pairs(row[full].repeat_interleave(several), part.flatten())

    def _items(
        self,
        grouping: Grouping,
        states: Tensor,
        parts: Tensor,
        scorer: ItemScorer,
        cluster: Tensor,
        query: Tensor,
        slot: Tensor,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor]:
        """Items that are drawn from the clusters (N, k), and the log of their weights there.

        The weight is that of the cluster times the item's share in it.
        """
        members, (n, k) = grouping.members, cluster.shape
        width, several = members.shape[1], len(parts) // len(members)
        estimate, step = FixedScorer(parts), torch.arange(1, several + 1, device=states.device)
        u = uniform((n * k, 1), states.device, generator)
        # Draws from the same cluster lie side by side: its vectors are looked up once.
        ordered, order = cluster.flatten().sort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(n * k, device=order.device)
        # Excluded pairs beside the draws of their query from their cluster, if there are any.
        drawn_from = torch.arange(n, device=order.device)[:, None] * len(members) + cluster
        by_query, draws = drawn_from.flatten().sort()
        wanted = query * len(members) + slot // width
        first, last = (torch.searchsorted(by_query, wanted, right=right) for right in (False, True))
        hit = slices(draws, first, last)
        excluded = Pairs.of(rank[hit.values], slot[hit.row] % width)
        chunked = [*chunks(n * k, queries_at_once(Negatives(members), scorer))]
        item, log_weight = torch.empty_like(order), states.new_empty(n * k)
        for chunk, out in zip(chunked, excluded.by_rows(chunked), strict=True):
            own = order[chunk]
            rows, row = torch.unique_consecutive(ordered[chunk], return_inverse=True)
            ids, state = members[rows], states[own // k]
            score = scorer(state[:, : scorer.width], ids.clamp(min=1), row)  # (n k, W)
            score[:, -1].masked_fill_((ids[:, -1] == 0)[row], -torch.inf)
            score[out.row, out.column] = -torch.inf
            log_share = score.log_softmax(1)
            share = F.pad(log_share.exp().nan_to_num_(0), (0, -width % BLOCK))
            found = pick(share, u[own.to(u.device)]).clamp_(min=0)
            item[own] = ids[row, found[:, 0]]
            of_cluster = estimate(state, rows[:, None] * several + step, row).logsumexp(1)
            log_weight[own] = of_cluster + log_share.gather(1, found)[:, 0]
        return item.view(n, k), log_weight.view(n, k)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        found = state_dict.get(f"{prefix}centre")
        if found is not None:  # the width is the model's, which the constructor does not know
            self.centre = self.centre.new_zeros(len(self.centre), found.shape[-1])
        super()._load_from_state_dict(state_dict, prefix, *args)


def parts_of(n_items: int, n_clusters: int) -> int:
    """Parts of each cluster: a power of two, so that no part is empty."""
    return min(_PARTS, 1 << (n_items // n_clusters).bit_length() - 1)


def _rows(n_items: int, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cuts 0..n_items - 1 into n rows of like size: the numbers (n, W), and which of them are."""
    bounds = torch.arange(n + 1, device=device) * n_items // n
    at = bounds[:-1, None] + torch.arange(-(-n_items // n), device=device)
    inside = at < bounds[1:, None]
    return at.clamp_(max=n_items - 1), inside


def _halved(scorer: ItemScorer, order: Tensor, n: int) -> Tensor:
    """Items (V,), which lie in n rows of like size, ordered along the principal axis of each."""
    n_items, dim = len(order), scorer.width
    at, inside = _rows(n_items, n, order.device)
    sizes = inside.sum(1)
    several = min(n_items // n, _SAMPLE)
    step = torch.arange(several, device=order.device)
    sample = order[at[:, :1] + step * sizes[:, None] // several]
    size = max(1, _NUMBERS // (max(several, dim) * dim))
    axis = torch.cat([_axis(scorer.vectors(sample[part])) for part in chunks(n, size)])
    node = torch.repeat_interleave(sizes)
    along = torch.cat(
        [
            (scorer.vectors(order[part]) * axis[node[part]]).sum(1)
            for part in chunks(n_items, max(1, _NUMBERS // dim))
        ]
    )
    ranked = along[at].masked_fill_(~inside, torch.inf).argsort(dim=1, stable=True)
    return order[at.gather(1, ranked)[inside]]


def _axis(vectors: Tensor) -> Tensor:
    """The direction in which each set of vectors (n, S, D) varies most, nearly, (n, D)."""
    centred = vectors - vectors.mean(1, keepdim=True)
    covariance = centred.mT @ centred
    widest = covariance.diagonal(dim1=1, dim2=2).argmax(1)
    axis = covariance[torch.arange(len(widest), device=widest.device), :, widest]
    for _ in range(_ITERATIONS):
        axis = (covariance @ F.normalize(axis, dim=1)[:, :, None])[:, :, 0]
    return F.normalize(axis, dim=1)


def _parts(members: Tensor, n_items: int, n_parts: int, part: slice) -> Tensor:
    """Ids of the items of some parts, 0 in an empty last slot, (n, W / S)."""
    n_clusters, width = members.shape
    index = torch.arange(part.start, part.stop, device=members.device)
    cluster = index // (n_parts // n_clusters)
    first, last = (i * n_items // n_parts for i in (index, index + 1))
    # Where the part begins in the flattened members: each cluster has a row of its own.
    slot = first - cluster * n_items // n_clusters + cluster * width
    column = torch.arange(-(-n_items // n_parts), device=members.device)
    there = column < (last - first)[:, None]
    return members.flatten()[(slot[:, None] + column).masked_fill_(~there, 0)] * there


def _moments(scorer: ItemScorer, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Means (n, D) of the vectors of some parts (n, W), and their mean variances (n,)."""
    size = max(1, _NUMBERS // (ids.shape[1] * scorer.width))
    found = [_of_few(scorer, ids[part]) for part in chunks(len(ids), size)]
    mean, variance = (torch.cat(x) for x in zip(*found, strict=True))
    return mean, variance


def _of_few(scorer: ItemScorer, ids: Tensor) -> tuple[Tensor, Tensor]:
    there = (ids > 0)[:, :, None]
    size = there.sum(1)
    vectors = scorer.vectors(ids.clamp(min=1))
    mean = (vectors * there).sum(1) / size
    square = (vectors - mean[:, None]).square_().mul_(there)
    return mean, square.sum((1, 2)) / (size[:, 0] * vectors.shape[2])
