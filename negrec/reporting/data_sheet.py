"""Data sets as tables and sentences that a person reads, and as a file for programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

import negrec
from negrec.data.interactions import Cleaning, Counts
from negrec.data.order import CONFIDENCE, SUPPORT, Left, Shuffled
from negrec.data.splits.base import LeakReport, Split
from negrec.data.statistics import Statistics
from negrec.data.timestamps import words
from negrec.evaluation.cohorts import COHORTS, Cohort, cohort_sizes
from negrec.evaluation.metrics import gini
from negrec.evaluation.shuffling import K, OrderEffect

# Above these a sentence asks for a decision.
_MANY_EQUAL = 0.1  # of the interactions
_MUCH_CUT = 0.1  # of the interactions
_MANY_SHORT = 0.1  # of the users
_MANY_COLD = 0.05  # of the test targets
_MANY_LATER = 0.01  # of the training interactions

_FEW = 20  # rules: of fewer, chance decides how many are left
# In arXiv:2408.12008 the sets that are called weak in order keep 26 to 46% of their 2-gram rules
# (Diginetica, Foursquare, Gowalla, RetailRocket), other large ones at most 18%.
_WEAK = 0.25
# What tells how much is left: the first that is not rare.
_EVIDENCE: dict[str, Callable[[Shuffled], Left]] = {
    "2-gram rules": lambda test: test.rules,
    f"2-grams seen > {SUPPORT} times": lambda test: test.frequent,
}
# There shuffling costs SASRec at most 12% of NDCG@10 on weak sets, and 27% or more on others.
_CHEAP = 0.15


@dataclass(frozen=True)
class Part:
    """What a split makes of a data set.

    Attributes:
        leak: its report.
        cohorts: head, mid and tail of the training part.
        gini: of the training counts over the catalogue: 0 where all items are equally popular.
        counts: training interactions of each item of the catalogue, (V,).
    """

    leak: LeakReport
    cohorts: Sequence[Cohort]
    gini: float
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, split: Split) -> Part:
        """Of the split's training part."""
        user, item = split.train.row.numpy(), split.train.values.numpy()
        n_items = split.info.n_items
        counts = np.bincount(item, minlength=n_items + 1)[1:]
        return cls(
            split.leak, cohort_sizes(user, item, n_items), gini(counts.astype(np.float64)), counts
        )


@dataclass(frozen=True)
class Asked:
    """A trained model that was asked about shuffled histories.

    Attributes:
        model: its name.
        run_id: of its run.
        effect: what that cost.
    """

    model: str
    run_id: str
    effect: OrderEffect


@dataclass(frozen=True)
class Described:
    """What is known of a data set.

    Attributes:
        name: as it is shown.
        hash: of the data.
        counts: after cleaning.
        cleaning: what became of the rows.
        seen: the ``evaluation.seen`` that goes with how often people repeat.
        statistics: of all interactions.
        max_length: the longest history that models see, in items.
        splits: option of the group -> what it makes of the data, or why it cannot be used.
        order: the n-grams that are left when histories are shuffled.
        equal_times: likewise, when only interactions of equal times are; None without times.
        asked: a trained model, where one was asked for.
    """

    name: str
    hash: str
    counts: Counts
    cleaning: Cleaning
    seen: str
    statistics: Statistics
    max_length: int
    splits: Mapping[str, Part | str]
    order: Sequence[Shuffled]
    equal_times: Sequence[Shuffled] | None
    asked: Asked | None

    @property
    def repeats(self) -> float:
        """Share of the interactions that repeat an earlier one of their user."""
        return self.cleaning.repeats / self.counts.interactions

    @property
    def parts(self) -> dict[str, Part]:
        """The splits that can be used."""
        return {name: part for name, part in self.splits.items() if isinstance(part, Part)}

    def as_dict(self) -> dict[str, Any]:
        """For a file; counts of single items are left out."""
        splits: dict[str, Any] = {}
        for name, part in self.splits.items():
            if isinstance(part, str):
                splits[name] = {"refused": part}
                continue
            cohorts = zip(COHORTS, part.cohorts, strict=True)
            splits[name] = {
                "leak": part.leak.as_dict(),
                "gini": part.gini,
                "cohorts": {cohort: asdict(size) for cohort, size in cohorts},
            }
        return {
            "name": self.name,
            "data_hash": self.hash,
            "counts": asdict(self.counts),
            "cleaning": asdict(self.cleaning),
            "repeats": self.repeats,
            **asdict(self.statistics),
            "max_length": self.max_length,
            "splits": splits,
            "order": {
                "support": SUPPORT,
                "confidence": CONFIDENCE,
                "shuffled_histories": [_of_order(test) for test in self.order],
                "shuffled_equal_times": None
                if self.equal_times is None
                else [_of_order(test) for test in self.equal_times],
            },
            "model": None if self.asked is None else _of_model(self.asked),
            "advice": list(advice(self)),
        }


def _of_order(test: Shuffled) -> dict[str, Any]:
    return {"n": test.n, "frequent": _of_left(test.frequent), "rules": _of_left(test.rules)}


def _of_left(left: Left) -> dict[str, Any]:
    return {**asdict(left), "mean": left.mean, "spread": left.spread, "share": left.share}


def _of_model(asked: Asked) -> dict[str, Any]:
    effect = asked.effect
    return {
        "model": asked.model,
        "run_id": asked.run_id,
        f"hr_{K}": _of_left(effect.hit_rate),
        f"ndcg_{K}": _of_left(effect.ndcg),
        f"jaccard_{K}": list(effect.jaccard),
    }


def as_dict(described: Sequence[Described], seed: int) -> dict[str, Any]:
    """All data sets for ``stats.json``; what is no number is null."""
    whole: dict[str, Any] = _finite(
        {
            "negrec": negrec.__version__,
            "seed": seed,
            "datasets": [each.as_dict() for each in described],
        }
    )
    return whole


def _finite(value: Any) -> Any:
    match value:
        case dict():
            return {key: _finite(each) for key, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
        case float() if not math.isfinite(value):
            return None
    return value


# ---- sentences


def advice(described: Described) -> Iterator[str]:
    """What the numbers ask a person to decide, in plain words."""
    yield from _on_evaluation(described)
    yield from _on_order(described)
    yield from _on_model(described)


def _on_evaluation(described: Described) -> Iterator[str]:
    numbers, parts = described.statistics, described.parts
    if described.seen == "keep":
        yield (
            f"{_percent(described.repeats)} of the interactions repeat an earlier one of their "
            "user: consider evaluation.seen=keep, or things taken again count as misses"
        )
    if numbers.short / described.counts.users > _MANY_SHORT:
        yield (
            f"{numbers.short:,} users ({_percent(numbers.short / described.counts.users)}) have "
            "fewer than 3 interactions: leave_one_out tests none of them"
        )
    if numbers.cut > _MUCH_CUT:
        yield (
            f"{_percent(numbers.cut)} of the interactions lie before the newest "
            f"{described.max_length} of their user: consider a larger max_length, or window=all to "
            "train on them"
        )
    for name, part in parts.items():
        leak = part.leak
        if leak.later_than_test is not None and leak.later_than_test > _MANY_LATER:
            yield (
                f"{name} trains on the future: {_percent(leak.later_than_test)} of its training "
                "interactions are not earlier than another user's test target; "
                "split=global_temporal has none"
            )
        if leak.test_cold > _MANY_COLD * leak.test_targets:
            yield (
                f"{_percent(leak.test_cold / leak.test_targets)} of the test targets of {name} are "
                "outside its catalogue and count as misses: look at the metrics _warm too"
            )
        if leak.test_left_out > leak.test_targets:
            left_out = leak.test_left_out / (leak.test_left_out + leak.test_targets)
            yield (
                f"{name} leaves out {_percent(left_out)} of the users of its test period, who have "
                f"no history before it: {leak.test_targets:,} targets remain"
            )


def _on_order(described: Described) -> Iterator[str]:
    times, test = described.statistics.times, described.order[0]
    many = next((kind for kind in _EVIDENCE if _EVIDENCE[kind](test).original >= _FEW), None)
    if times is None:
        yield "there are no times: the order of a history is the file's"
    elif times.equal > _MANY_EQUAL:
        what = "times are whole days" if times.whole_days else "many times are equal"
        then = "the order within a day" if times.whole_days else "the order among equal times"
        line = (
            f"{what}: {_percent(times.equal)} of the interactions share theirs with another of "
            f"the user, and {then} is the file's"
        )
        assert described.equal_times is not None
        if many is not None:
            left = _EVIDENCE[many](described.equal_times[0]).share
            line += f"; without it {_percent(left or 0)} of the {many} are left"
        yield line
    if many is None:
        yield f"too few items follow each other more than {SUPPORT} times to tell what order does"
        return
    share = _EVIDENCE[many](test).share or 0
    if share >= _WEAK:
        yield (
            f"shuffling leaves {_percent(share)} of the {many}: order carries little here; compare "
            "with models that do not look at it (item_knn, mf)"
        )
    else:
        yield f"shuffling leaves {_percent(share)} of the {many}: order matters here"


def _on_model(described: Described) -> Iterator[str]:
    if described.asked is None:
        return
    ndcg, model = described.asked.effect.ndcg, described.asked.model
    if ndcg.share is None:
        yield f"{model} ranks no target among its first {K}: train it longer to tell what it loses"
    elif 1 - ndcg.share < _CHEAP:
        yield (
            f"shuffled histories change NDCG@{K} of {model} by {ndcg.share - 1:+.0%} only: it "
            "makes little of their order"
        )
    else:
        yield f"shuffled histories change NDCG@{K} of {model} by {ndcg.share - 1:+.0%}"


# ---- tables


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        title: above it.
        header: of the columns.
        groups: of rows, with a line between groups; each row is as long as the header.
        labels: how many columns, from the left, hold words.
        notes: below it.
    """

    title: str
    header: Sequence[str]
    groups: Sequence[Sequence[Sequence[str]]]
    labels: int = 1
    notes: Sequence[str] = ()

    def rich(self) -> Table:
        """For a terminal."""
        table = Table(
            title=self.title,
            title_justify="left",
            title_style="bold",
            caption="\n".join(self.notes) or None,
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        for at, name in enumerate(self.header):
            label = at < self.labels
            side: Any = "left" if label else "right"
            table.add_column(name, justify=side, no_wrap=label, overflow="fold")
        for group in self.groups:
            for row in group:
                table.add_row(*row)
            table.add_section()
        return table

    def markdown(self) -> str:
        """For a file."""
        rule = [*["---"] * self.labels, *["---:"] * (len(self.header) - self.labels)]
        header = [name.replace("\n", " ") for name in self.header]
        rows = [header, rule, *(row for group in self.groups for row in group)]
        lines = (f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows)
        return "\n\n".join([f"## {self.title}", "\n".join(lines), *self.notes])


def sheets(described: Sequence[Described]) -> list[Sheet]:
    """What the data are, what splits make of them, their cohorts, and what order carries."""
    return [_data(described), _leaks(described), _cohorts(described), _order(described)]


def markdown(described: Sequence[Described], figure: str) -> str:
    """The tables and sentences as a page.

    Args:
        described: the data sets.
        figure: file name of the popularity curve, beside the page.
    """
    parts = [f"# {', '.join(each.name for each in described)}"]
    for each in described:
        head = f"**{each.name}**\n\n" if len(described) > 1 else ""
        parts.append(head + "\n".join(f"* {line}" for line in advice(each)))
    parts += [sheet.markdown() for sheet in sheets(described)]
    parts.append(f"![Popularity of items]({figure})")
    return "\n\n".join(parts) + "\n"


Cell = Callable[[Described], str]


def _data(described: Sequence[Described]) -> Sheet:
    def row(label: str, cell: Cell) -> list[str]:
        return [label, *(cell(each) for each in described)]

    def where_any(label: str, number: Callable[[Described], int]) -> list[list[str]]:
        some = any(number(each) for each in described)
        return [row(label, lambda d: f"{number(d):,}")] if some else []

    size = [
        row("users", lambda d: f"{d.counts.users:,}"),
        row("items", lambda d: f"{d.counts.items:,}"),
        row("interactions", lambda d: f"{d.counts.interactions:,}"),
        *where_any("rows dropped for their rating", lambda d: d.cleaning.below_rating),
        *where_any("rows dropped as duplicates", lambda d: d.cleaning.duplicates),
        *where_any("rows dropped by the k-core", lambda d: d.cleaning.outside_core),
        row("sparsity: empty user-item pairs", lambda d: f"{d.statistics.sparsity:.2%}"),
        row("repeat an earlier one", lambda d: _percent(d.repeats)),
    ]
    length = [
        row("history: shortest", lambda d: f"{d.statistics.lengths.shortest:,}"),
        row("first quartile", lambda d: f"{d.statistics.lengths.lower:,.6g}"),
        row("median", lambda d: f"{d.statistics.lengths.median:,.6g}"),
        row("third quartile", lambda d: f"{d.statistics.lengths.upper:,.6g}"),
        row("longest", lambda d: f"{d.statistics.lengths.longest:,}"),
        row("mean", lambda d: f"{d.statistics.lengths.mean:,.1f}"),
        *where_any("users with fewer than 3", lambda d: d.statistics.short),
    ]

    def time(label: str, cell: Callable[[Any], str]) -> list[str]:
        every = [each.statistics.times for each in described]
        return [label, *("-" if times is None else cell(times) for times in every)]

    times = [
        time("first time (UTC)", lambda t: _minute(t.first)),
        time("last time", lambda t: _minute(t.last)),
        time("days", lambda t: f"{t.days:,.0f}"),
        time("share their user and time", lambda t: _percent(t.equal)),
    ]
    return Sheet("After cleaning", ["", *(d.name for d in described)], [size, length, times])


def _minute(time: int) -> str:
    return words(time).partition(".")[0].rpartition(":")[0] or words(time)


def _leaks(described: Sequence[Described]) -> Sheet:
    def cells(part: Part) -> list[str]:
        leak = part.leak
        later = "-" if leak.later_than_test is None else _percent(leak.later_than_test)
        shares = [leak.test_users_unseen, leak.test_targets_unseen] if leak.test_targets else []
        unseen = [_percent(share) for share in shares] or ["-", "-"]
        targets = [leak.train_interactions, leak.valid_targets, leak.test_targets]
        return [*(f"{n:,}" for n in targets), *unseen, later]

    notes = [
        "users unseen: test users without a training interaction; targets unseen: test targets "
        "whose item has none; later: training interactions that are not earlier than another "
        "user's test target (0% is clean)",
        *(why for d in described for why in d.splits.values() if isinstance(why, str)),
    ]
    for each in described:
        core = next(iter(each.parts.values())).leak.core
        if core is not None:
            notes.append(f"{each.name}: the {core}-core filter looked at held-out rows too")
    header = ["", "split", "training", "valid", "test"]
    header += ["users\nunseen", "targets\nunseen", "later"]
    return Sheet(
        "What is held out, and how clean it is", header, _by_split(described, cells), 2, notes
    )


def _cohorts(described: Sequence[Described]) -> Sheet:
    def cells(part: Part) -> list[str]:
        items = [_percent(cohort.share) for cohort in part.cohorts]
        users = [_percent(cohort.median_users) for cohort in part.cohorts]
        return [*items, *users, f"{part.gini:.2f}"]

    header = ["", "split", *(f"items\n{name}" for name in COHORTS)]
    header += [*(f"users\n{name}" for name in COHORTS), "Gini"]
    notes = [
        "items: share of the catalogue; each cohort holds about a third of the training "
        "interactions; users: share of the training users who took an item, the median over the "
        "cohort's items (table 2 of arXiv:2410.17276); Gini: 0 where all are equally popular",
    ]
    return Sheet(
        "Popularity cohorts of the training part", header, _by_split(described, cells), 2, notes
    )


def _by_split(
    described: Sequence[Described], cells: Callable[[Part], Sequence[str]]
) -> list[list[list[str]]]:
    """A group for each data set with a row for each of its splits."""
    return [
        [
            [each.name if first else "", split, *cells(part)]
            for first, (split, part) in zip(
                [True, *[False] * len(each.parts)], each.parts.items(), strict=False
            )
        ]
        for each in described
    ]


def _order(described: Sequence[Described]) -> Sheet:
    def row(label: str, cell: Cell) -> list[str]:
        return [label, *(cell(each) for each in described)]

    def group(at: int, label: str, of: Callable[[Shuffled], Left]) -> list[list[str]]:
        return [
            row(label, lambda d: f"{of(d.order[at]).original:,}"),
            row("  shuffled", lambda d: _after(of(d.order[at]))),
            row(
                "  equal times shuffled",
                lambda d: "-" if d.equal_times is None else _after(of(d.equal_times[at])),
            ),
        ]

    groups = [
        group(0, "2-gram rules", lambda test: test.rules),
        group(1, "3-gram rules", lambda test: test.rules),
        group(0, f"2-grams seen > {SUPPORT} times", lambda test: test.frequent),
        group(1, f"3-grams seen > {SUPPORT} times", lambda test: test.frequent),
    ]
    notes = [
        f"of all interactions; a rule is seen more than {SUPPORT} times, and its last item follows "
        f"in more than {CONFIDENCE:.0%} of the places of those before it (arXiv:2408.12008); mean "
        f"± standard deviation over {len(described[0].order[0].rules.shuffled)} shuffles of whole "
        "histories, and of the interactions of one user and time only; in brackets what is left"
    ]
    if any(each.asked for each in described):
        groups.append(_asked(described))
        notes.append(
            "the model was trained on histories as they are; its test is asked again with the "
            f"items that it reads shuffled; overlap: Jaccard of the two lists of {K}"
        )
    return Sheet("Order", ["", *(each.name for each in described)], groups, 1, notes)


def _asked(described: Sequence[Described]) -> list[list[str]]:
    def row(label: str, cell: Callable[[Asked], str]) -> list[str]:
        return [label, *("-" if d.asked is None else cell(d.asked) for d in described)]

    def percents(left: Left) -> str:
        spread = "" if left.spread is None else f" ± {100 * left.spread:.2f}"
        change = "" if left.share is None else f" ({left.share - 1:+.0%})"
        return f"{100 * left.mean:.2f}{spread}{change}"

    return [
        row("model", lambda a: a.model),
        row("run", lambda a: a.run_id),
        row(f"NDCG@{K}, percent", lambda a: f"{100 * a.effect.ndcg.original:.2f}"),
        row("  shuffled", lambda a: percents(a.effect.ndcg)),
        row(f"HR@{K}, percent", lambda a: f"{100 * a.effect.hit_rate.original:.2f}"),
        row("  shuffled", lambda a: percents(a.effect.hit_rate)),
        row(f"overlap of the lists of {K}", lambda a: f"{np.mean(a.effect.jaccard):.2f}"),
    ]


def _after(left: Left) -> str:
    spread = "" if left.spread is None else f" ± {left.spread:,.1f}"
    share = "" if left.share is None else f" ({_percent(left.share)})"
    return f"{left.mean:,.1f}{spread}{share}"


def _percent(share: float) -> str:
    """Two digits that count, no more than one behind the point from 1%: 0.018%, 3.2%, 57.5%."""
    if math.isnan(share):
        return "-"
    return f"{share:.1%}" if share >= 0.01 or share == 0 else f"{100 * share:.2g}%"
