r"""Made-up interactions whose true next-item distribution is known.

Items fall into clusters and have Zipf popularity; users have tastes. With c(i) the cluster of item
i, f_i its factors, t_u the user's taste, T the affinity between clusters and h the history,

.. math:: P(i \mid u, h) \propto [i \notin h] \; r_i^{-s} \exp(t_u \cdot f_i + T_{c(l), c(i)})

where r_i is the item's rank in popularity, s Zipf's exponent and l the last item of h; the first
item knows no last one, and its T is 0. Nothing repeats. When something happens and how long a
history gets depend on nothing of this, so P is exact wherever a split cuts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from negrec.data.interactions import Cleaning, Counts, Interactions, Ints, content_hash
from negrec.data.truth import Floats, Process, Truth

_START = 1_700_000_000  # Unix seconds; the data end a year later
_DAY = 86_400
_YEAR = 365 * _DAY
_GAP = 4 * _DAY  # mean time between two interactions of a user
_SHORTEST = 5  # of the histories
_MEAN = 20  # length of a history


def generate(
    name: str,
    users: int,
    items: int,
    clusters: int,
    factors: int,
    zipf: float,
    taste: float,
    affinity: float,
    seed: int,
    cache_dir: str | Path | None = None,
    data_dir: str | Path | None = None,
) -> Interactions:
    """Draws a data set of about 20 interactions a user.

    Args:
        name: the data set's.
        users: how many.
        items: how many; ids are 1..items.
        clusters: how many the items fall into, of equal size to within one.
        factors: F, how many dimensions tastes have.
        zipf: s, the exponent of popularity over its rank; 0 makes all items equal.
        taste: standard deviation of the log-weight that tastes add to an item.
        affinity: standard deviation of the log-weight that the last item's cluster adds.
        seed: of the data set; another than the run's, so that all runs see the same data.
        cache_dir: not used, as this takes less time than reading; every data set is given it.
        data_dir: not used, likewise.
    """
    for value, least, what in (
        (users, 1, "users"),
        (items, 2, "items"),
        (clusters, 1, "clusters"),
        (factors, 1, "factors"),
    ):
        if value < least:
            raise ValueError(f"dataset.{what} must be at least {least}, got {value}")
    if clusters > items:
        raise ValueError(f"dataset.clusters must be at most dataset.items={items}, got {clusters}")
    if min(zipf, taste, affinity) < 0:
        raise ValueError("dataset.zipf, .taste and .affinity must not be negative")
    rng = np.random.default_rng(seed)
    process = _process(users, items, clusters, factors, zipf, taste, affinity, rng)
    # Half of the items at most: the last ones of a history are still a choice.
    longest = max(1, items // 2)
    lengths = (_SHORTEST + rng.geometric(1 / (_MEAN - _SHORTEST + 1), users) - 1).clip(max=longest)
    item = _draw(process, lengths, rng)
    user = np.repeat(np.arange(users), lengths)
    timestamp = _times(lengths, rng)
    user_ids, item_ids = (pl.Series("id", np.arange(1, n + 1)) for n in (users, items))
    return Interactions(
        name,
        user,
        item,
        timestamp,
        user_ids,
        item_ids,
        content_hash(user, item, timestamp, user_ids, item_ids),
        Cleaning(Counts(users, items, len(user))),
        Truth(process),
    )


def _process(
    users: int,
    items: int,
    clusters: int,
    factors: int,
    zipf: float,
    taste: float,
    affinity: float,
    rng: np.random.Generator,
) -> Process:
    # t . f has the variance taste^2 when both have entries of variance taste / sqrt(F).
    spread = np.sqrt(taste / np.sqrt(factors))
    return Process(
        log_popularity=-zipf * np.log(rng.permutation(items) + 1.0),
        cluster=rng.permutation(np.arange(items) % clusters),
        factors=rng.normal(0, spread, (items, factors)),
        taste=rng.normal(0, spread, (users, factors)),
        affinity=rng.normal(0, affinity, (clusters, clusters)),
    )


def _draw(process: Process, lengths: Ints, rng: np.random.Generator) -> Ints:
    """Items user after user, in order, (sum of lengths,).

    One step for all users at once: first the cluster of the next item, then the item within it.
    P factorises that way, and so nothing of the catalogue's size is touched in a step.
    """
    n_clusters = len(process.affinity)
    # The items of each cluster, -1 behind the shorter ones, (C, W).
    order = np.argsort(process.cluster, kind="stable")
    sizes = np.bincount(process.cluster, minlength=n_clusters)
    member = np.full((n_clusters, sizes.max()), -1)
    member[np.arange(sizes.max()) < sizes[:, None]] = order
    # Log-weights without the last item's part, and their sum by cluster: (U, C, W), (U, C).
    log_weight = process.taste @ process.factors.T + process.log_popularity
    weight = np.where(member >= 0, np.exp(log_weight)[:, member], 0.0)
    mass = weight.sum(axis=2)
    to = np.exp(process.affinity)
    begin = np.cumsum(lengths) - lengths
    items = np.empty(lengths.sum(), dtype=np.int64)
    last = np.zeros(len(lengths), dtype=np.int64)  # cluster of the last item
    for step in range(lengths.max()):
        user = np.flatnonzero(lengths > step)
        cluster = _choice(mass[user] * to[last[user]] if step else mass[user], rng)
        within = _choice(weight[user, cluster], rng)
        items[begin[user] + step] = member[cluster, within]
        weight[user, cluster, within] = 0  # nothing repeats
        mass[user, cluster] = weight[user, cluster].sum(axis=1)
        last[user] = cluster
    return items


def _choice(weight: Floats, rng: np.random.Generator) -> Ints:
    """A column of each row, drawn in proportion to its weight, (R,)."""
    cumulated = weight.cumsum(axis=1)
    # 1 - u is in (0, 1]: a column without weight in front of the others is never hit.
    threshold = (1 - rng.random((len(weight), 1))) * cumulated[:, -1:]
    column: Ints = (cumulated < threshold).sum(axis=1)
    return column


def _times(lengths: Ints, rng: np.random.Generator) -> Ints:
    """Microseconds, ascending in each user, (sum of lengths,).

    Users pause for days. The data end after a year; half of the users are active to the end, the
    others have their last interaction at any time of that year.
    """
    gaps = 1 + rng.exponential(_GAP, lengths.sum()).astype(np.int64)
    elapsed = np.cumsum(gaps)
    active = rng.random(len(lengths)) < 0.5
    recent = _YEAR - rng.exponential(_GAP, len(lengths)).astype(np.int64)
    end = np.where(active, recent, rng.integers(_YEAR, size=len(lengths)))
    shift = end - elapsed[np.cumsum(lengths) - 1]
    seconds: Ints = (_START + elapsed + np.repeat(shift, lengths)) * 10**6
    return seconds
