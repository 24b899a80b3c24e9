"""Whether two methods differ: tests over seeds, a bootstrap over users, ranks over data sets.

Every test is two-sided, and a difference is always the first method's value minus the second's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from negrec.errors import InputError
from negrec.evaluation.metrics import hit_rate_per_target, mrr_per_target, ndcg_per_target

Floats: TypeAlias = NDArray[np.float64]
Gain: TypeAlias = Callable[[pl.DataFrame], Floats]

_LEVEL = 0.95  # of every interval
_FEWEST_FOR_WILCOXON = 6  # with 5 pairs its smallest two-sided p is 2 / 2^5 = 0.0625
_FEWEST_DATA_SETS = 5
_CELLS = 2_000_000  # user weights that are held at once: 16 MB


@dataclass(frozen=True)
class Summary:
    """The runs of one cell.

    Attributes:
        n: how many values there are that are numbers.
        mean: of these; NaN for n = 0.
        sd: sample standard deviation (n - 1); NaN for n < 2.
        low: lower end of the 95% t interval of the mean; NaN for n < 2.
        high: upper end.
    """

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Method a against method b on one data set, by one metric.

    Attributes:
        n: pairs of runs; without pairs, runs of the method that has fewer.
        difference: mean of a minus mean of b (of the paired runs where they are paired).
        low: lower end of the difference's 95% t interval; NaN where there is no p.
        high: upper end.
        p: two-sided; None where nothing can be tested.
        test: what p is from.
        wilcoxon_p: of the signed-rank test, two-sided; None without pairs, for n < 6, or where the
            difference is the same for every seed.
        effect: Cohen's d_z of pairs, else Hedges' g; None where the spread is unknown or zero.
        reason: why there is no p; None where there is one.
        note: which runs were left out; None where all were used.
    """

    n: int
    difference: float
    low: float
    high: float
    p: float | None
    test: Literal["paired t", "Welch t", "none"]
    wilcoxon_p: float | None
    effect: float | None
    reason: str | None
    note: str | None


@dataclass(frozen=True)
class Interval:
    """A mean difference per target with its 95% bootstrap interval.

    Attributes:
        difference: a minus b, mean over targets and seeds.
        low: lower end.
        high: upper end.
        n_users: clusters that were resampled; with none (no targets) all is NaN.
        n_seeds: of both methods; with one seed, users alone are resampled.
    """

    difference: float
    low: float
    high: float
    n_users: int
    n_seeds: int


@dataclass(frozen=True)
class CriticalDifference:
    """Methods over data sets.

    Attributes:
        names: best mean rank first.
        mean_ranks: of these; 1 is the best.
        cd: two methods differ where their mean ranks are at least so far apart.
        p: of Friedman's test that all methods are alike.
        groups: largest sets of methods that do not differ, best first; none of a single method.
        n: data sets.
    """

    names: tuple[str, ...]
    mean_ranks: tuple[float, ...]
    cd: float
    p: float
    groups: tuple[tuple[str, ...], ...]
    n: int


def describe(values: Sequence[float]) -> Summary:
    r"""Mean, standard deviation and 95% t interval of the runs of a cell.

    .. math:: \bar x \pm t_{0.975, n - 1} \; s / \sqrt n

    Args:
        values: one per seed; what is not a number (a balance without hits) is left out of all
            fields, n included.
    """
    x = np.array([value for value in values if not math.isnan(value)], dtype=np.float64)
    if len(x) < 2:
        mean = float(x[0]) if len(x) else math.nan
        return Summary(len(x), mean, math.nan, math.nan, math.nan)
    if (x == x[0]).all():  # exactly: a float mean of equal values may miss them by a digit
        return Summary(len(x), float(x[0]), 0.0, float(x[0]), float(x[0]))
    mean, sd = float(x.mean()), float(x.std(ddof=1))
    half = float(stats.t.isf((1 - _LEVEL) / 2, len(x) - 1)) * sd / math.sqrt(len(x))
    return Summary(len(x), mean, sd, mean - half, mean + half)


def compare(a: Mapping[int, float], b: Mapping[int, float]) -> Comparison:
    """Tests whether method a differs from method b over seeds.

    Two seeds in common are enough to pair: the same seed is the same start and order of the data,
    so pairing takes their variation out. Runs whose seed the other method lacks are then left out,
    and the note says so. With fewer in common it is Welch's test over all runs.

    Where the difference has no variation there is no t: runs that are exactly equal have p = 1, and
    a constant difference other than zero (of deterministic methods) has no p. What users would say
    of it is a question for ``bootstrap``.

    Args:
        a: a value per seed; one that is not a number counts as missing.
        b: of the other method.
    """
    a, b = _numbers(a), _numbers(b)
    common = sorted(a.keys() & b.keys())
    if len(common) >= 2:
        return _paired(a, b, common)
    return _welch(list(a.values()), list(b.values()))


def _numbers(values: Mapping[int, float]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if not math.isnan(value)}


def _paired(a: Mapping[int, float], b: Mapping[int, float], seeds: Sequence[int]) -> Comparison:
    x, y = (np.array([side[seed] for seed in seeds], dtype=np.float64) for side in (a, b))
    differences, n = x - y, len(seeds)
    # (0.3 - 0.1) - (0.4 - 0.2) is 3e-17: subtraction's last digits are no variation.
    rounding = 4 * np.finfo(np.float64).eps * max(np.abs(x).max(), np.abs(y).max())
    if np.ptp(differences) <= rounding:
        differences = np.full(n, 0.0 if abs(differences[0]) <= rounding else differences[0])
    of = describe(differences.tolist())
    left_out = [f"{len(side) - n} of {name}" for name, side in (("a", a), ("b", b))]
    note = None
    if max(len(a), len(b)) > n:
        note = f"paired over the {n} seeds in common; left out: {' and '.join(left_out)}"
    if of.sd == 0:
        return _without_variation(n, of.mean, "paired t", note)
    wilcoxon = None
    if n >= _FEWEST_FOR_WILCOXON:
        wilcoxon = float(stats.wilcoxon(differences).pvalue)
    p = _two_sided(of.mean, of.sd / math.sqrt(n), n - 1)
    return Comparison(
        n, of.mean, of.low, of.high, p, "paired t", wilcoxon, of.mean / of.sd, None, note
    )


def _welch(x: Sequence[float], y: Sequence[float]) -> Comparison:
    of_x, of_y = describe(x), describe(y)
    n, difference = min(of_x.n, of_y.n), of_x.mean - of_y.mean
    if n < 2:
        nan = math.nan
        few = "no run" if n == 0 else "one seed (n = 1)"
        reason = f"{few} of a method: nothing to measure its variation by"
        return Comparison(n, difference, nan, nan, None, "none", None, None, reason, None)
    if of_x.sd == of_y.sd == 0:
        return _without_variation(n, difference, "Welch t", None)
    squares = of_x.sd**2 / of_x.n, of_y.sd**2 / of_y.n
    error = math.sqrt(sum(squares))
    # Welch-Satterthwaite.
    freedom = sum(squares) ** 2 / (squares[0] ** 2 / (of_x.n - 1) + squares[1] ** 2 / (of_y.n - 1))
    half = float(stats.t.isf((1 - _LEVEL) / 2, freedom)) * error
    return Comparison(
        n,
        difference,
        difference - half,
        difference + half,
        _two_sided(difference, error, freedom),
        "Welch t",
        None,
        _hedges_g(of_x, of_y),
        None,
        None,
    )


def _two_sided(difference: float, error: float, freedom: float) -> float:
    return float(2 * stats.t.sf(abs(difference) / error, freedom))


def _without_variation(
    n: int, difference: float, test: Literal["paired t", "Welch t"], note: str | None
) -> Comparison:
    if difference == 0:
        return Comparison(n, 0.0, 0.0, 0.0, 1.0, test, None, None, None, note)
    reason = "the difference is the same for every seed: seeds show no variation to test against"
    nan = math.nan
    return Comparison(n, difference, nan, nan, None, "none", None, None, reason, note)


def _hedges_g(x: Summary, y: Summary) -> float:
    """The difference in pooled standard deviations, with the factor for small samples.

    Hedges (1981), J. Educ. Stat. 6, 107-128, with his approximation 1 - 3 / (4 df - 1).
    """
    freedom = x.n + y.n - 2
    pooled = math.sqrt(((x.n - 1) * x.sd**2 + (y.n - 1) * y.sd**2) / freedom)
    return (x.mean - y.mean) / pooled * (1 - 3 / (4 * freedom - 1))


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values, in the order given, that hold the family-wise error (Holm, 1979).

    The i-th smallest of m is multiplied by m - i + 1; then none is below a smaller one's, and none
    above 1. The family is one metric on one data set.

    Args:
        p: None where nothing was tested; it stays None and does not count in m.
    """
    tested = sorted((value, at) for at, value in enumerate(p) if value is not None)
    adjusted: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, at) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * value))
        adjusted[at] = highest
    return adjusted


def gain(metric: Literal["hr", "ndcg", "mrr"], k: int = 1) -> Gain:
    """What each target of a run's ``ranks.parquet`` adds to a metric, for ``bootstrap``.

    Args:
        metric: whose mean over targets it is.
        k: the cut-off; mrr has none.
    """

    def per_target(targets: pl.DataFrame) -> Floats:
        cold = (targets["target"] == 0).to_numpy()
        ranks = np.where(cold, np.inf, targets["greater"].to_numpy() + 1.0)
        ties = targets["ties"].to_numpy()
        match metric:
            case "hr":
                return hit_rate_per_target(ranks, k, ties)
            case "ndcg":
                return ndcg_per_target(ranks, k, ties)
            case "mrr":
                return mrr_per_target(ranks, ties)

    return per_target


def bootstrap(
    a: Mapping[int, pl.DataFrame],
    b: Mapping[int, pl.DataFrame],
    gain: Gain,
    repeats: int = 2000,
    seed: int = 0,
) -> Interval:
    r"""The mean difference of two methods per target, with an interval over users and seeds.

    Users and seeds are crossed: every seed meets the same users. So both are resampled once per
    repeat, with replacement, and a target counts as often as its user was drawn times as often as
    its seed was (the pigeonhole bootstrap; Owen, 2007, Ann. Appl. Stat. 1, 386-411). The targets
    of a user stay together, and both methods see the same draw. With R users, C seeds and the
    variances of users, seeds and their interaction its variance is about

    .. math:: \sigma_u^2 / R + \sigma_s^2 (C - 1) / C^2 + \sigma_{us}^2 (3 C - 2) / (R C^2)

    (for one target per user, R large): exact for one seed, where users alone speak, and else the
    interaction counts up to three times while the seeds, being few, count somewhat too little.

    Args:
        a: per seed the frame of ``ranks.parquet``; seeds that b lacks are left out.
        b: of the other method.
        gain: what each target adds to the metric, (M,), such as ``gain("ndcg", 10)``.
        repeats: of the resampling; the interval is the middle 95% of them.
        seed: of the resampling.

    Raises:
        InputError: no seed in common, or two runs of a seed with different targets.
    """
    if not a.keys() & b.keys():
        raise InputError(f"no seed in common: {sorted(a)} and {sorted(b)}")
    return bootstrap_each({"": a}, b, gain, repeats, seed)[""]


def bootstrap_each(
    several: Mapping[str, Mapping[int, pl.DataFrame]],
    best: Mapping[int, pl.DataFrame],
    gain: Gain,
    repeats: int = 2000,
    seed: int = 0,
) -> dict[str, Interval]:
    """``bootstrap`` of each of several methods against the same one.

    Those with the same seeds see the same draws of users, which is most of the work.

    Args:
        several: by name what ``bootstrap`` takes; without a seed in common they are left out.
        best: of the method that all are compared with.
        gain: as there.
        repeats: as there.
        seed: as there.
    """
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for name, frames in several.items():
        by_seeds.setdefault(tuple(sorted(frames.keys() & best.keys())), []).append(name)
    found: dict[str, Interval] = {}
    for seeds, names in by_seeds.items():
        if seeds:
            clusters = [_Clusters.of(best[one], gain) for one in seeds]
            gained = {
                name: [
                    c.gained_over(several[name][one], gain, one)
                    for c, one in zip(clusters, seeds, strict=True)
                ]
                for name in names
            }
            found |= _resampled(clusters, gained, repeats, seed)
    return {name: found[name] for name in several if name in found}


@dataclass(frozen=True)
class _Clusters:
    """The targets of one seed, by user, as the best method ranked them.

    Attributes:
        targets: their users and ids, sorted.
        user: of the clusters, ascending, (R,).
        n: targets of each, (R,).
        gained: sums over the targets of each, (R,).
    """

    targets: pl.DataFrame
    user: NDArray[np.int64]
    n: Floats
    gained: Floats

    @classmethod
    def of(cls, frame: pl.DataFrame, gain: Gain) -> Self:
        user, at, n = np.unique(frame["user"].to_numpy(), return_inverse=True, return_counts=True)
        return cls(_sorted_targets(frame), user, n.astype(np.float64), _sums(at, frame, gain))

    def gained_over(self, frame: pl.DataFrame, gain: Gain, seed: int) -> Floats:
        """How much more another method gained from each user, (R,)."""
        if not _sorted_targets(frame).equals(self.targets):
            raise InputError(
                f"the runs of seed {seed} have different test targets: compare runs of one split"
            )
        at = np.searchsorted(self.user, frame["user"].to_numpy())
        return _sums(at, frame, gain) - self.gained


def _sums(cluster: NDArray[np.int64], frame: pl.DataFrame, gain: Gain) -> Floats:
    """Over the targets of each cluster, which all have some."""
    return np.bincount(cluster, weights=gain(frame)).astype(np.float64)


def _sorted_targets(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("user", "target").sort("user", "target")


def _resampled(
    clusters: Sequence[_Clusters],
    gained: Mapping[str, Sequence[Floats]],
    repeats: int,
    seed: int,
) -> dict[str, Interval]:
    """Intervals of methods from what they gained more than the best, per seed and user."""
    users = np.unique(np.concatenate([of.user for of in clusters]))
    n_users, n_seeds = len(users), len(clusters)
    if not n_users:
        nan = math.nan
        return dict.fromkeys(gained, Interval(nan, nan, nan, 0, n_seeds))
    # The users of all seeds in one order: rows; the sums of each method and seed, and the numbers
    # of targets of each seed: columns.
    columns = np.zeros((n_users, len(gained) + 1, n_seeds))
    for i, of in enumerate(clusters):
        rows = np.searchsorted(users, of.user)
        for j, of_method in enumerate(gained.values()):
            columns[rows, j, i] = of_method[i]
        columns[rows, -1, i] = of.n
    flat = columns.reshape(n_users, -1)
    generator = np.random.default_rng(seed)
    means = []
    chunk = max(1, _CELLS // n_users)
    for start in range(0, repeats, chunk):
        times = min(chunk, repeats - start)
        sums = (_times_drawn(n_users, times, generator) @ flat).reshape(times, -1, n_seeds)
        of_seed = _times_drawn(n_seeds, times, generator)[:, None]
        drawn = (sums * of_seed).sum(2)  # (times, methods + 1)
        means.append(drawn[:, :-1] / drawn[:, -1:])
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail], axis=0)
    total = columns.sum((0, 2))
    return {
        name: Interval(float(total[j] / total[-1]), float(low[j]), float(high[j]), n_users, n_seeds)
        for j, name in enumerate(gained)
    }


def _times_drawn(size: int, repeats: int, generator: np.random.Generator) -> Floats:
    """How often each of some clusters is drawn when as many are drawn, (repeats, size)."""
    drawn = generator.integers(size, size=(repeats, size))
    drawn += size * np.arange(repeats)[:, None]
    times = np.bincount(drawn.ravel(), minlength=repeats * size)
    return times.reshape(repeats, size).astype(np.float64)


def critical_difference(scores: Floats, names: Sequence[str]) -> CriticalDifference:
    r"""Friedman's test and Nemenyi's critical difference (Demsar, 2006, JMLR 7, 1-30).

    .. math:: CD = q_{0.05} \sqrt{M (M + 1) / (6 D)}

    with q the 95% quantile of the studentized range of M methods, infinite degrees of freedom,
    divided by sqrt(2). Where Friedman's test does not reject at 5%, no pair is called different:
    all methods are one group.

    Args:
        scores: higher is better, (D data sets, M methods); ties share their mean rank.
        names: of the methods, (M,).

    Raises:
        ValueError: fewer than 5 data sets or 3 methods, or a score that is not a number.
    """
    values = np.asarray(scores, dtype=np.float64)
    n, m = values.shape
    if n < _FEWEST_DATA_SETS or m < 3 or m != len(names):
        raise ValueError(
            f"a critical difference needs {_FEWEST_DATA_SETS} data sets and 3 methods with a name "
            f"each, got {n} data sets, {m} methods, {len(names)} names"
        )
    if np.isnan(values).any():
        raise ValueError("every method needs a score on every data set")
    ranks = stats.rankdata(-values, axis=1)
    p = 1.0 if (ranks == ranks[0, 0]).all() else float(stats.friedmanchisquare(*values.T).pvalue)
    q = float(stats.studentized_range.isf(1 - _LEVEL, m, np.inf)) / math.sqrt(2)
    cd = q * math.sqrt(m * (m + 1) / (6 * n))
    order = np.argsort(ranks.mean(0), kind="stable")
    mean_ranks = ranks.mean(0)[order]
    sorted_names = tuple(names[at] for at in order)
    groups = (sorted_names,) if p >= 1 - _LEVEL else _groups(sorted_names, mean_ranks, cd)
    return CriticalDifference(sorted_names, tuple(mean_ranks.tolist()), cd, p, groups, n)


def _groups(names: tuple[str, ...], mean_ranks: Floats, cd: float) -> tuple[tuple[str, ...], ...]:
    """Runs of sorted methods that lie within the critical difference, none inside another."""
    found: list[tuple[str, ...]] = []
    reached = 1
    for first in range(len(names)):
        end = int(np.searchsorted(mean_ranks, mean_ranks[first] + cd))  # first that differs
        if end > max(reached, first + 1):
            found.append(names[first:end])
            reached = end
    return tuple(found)
