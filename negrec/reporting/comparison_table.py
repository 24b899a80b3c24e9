"""The tables of a report: methods by metrics, their statistics, and the view at equal time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from negrec.evaluation.cohorts import COHORTS
from negrec.evaluation.metrics import balance
from negrec.reporting import significance, wording
from negrec.reporting.cells import Cell
from negrec.reporting.grid import DAGGER, Column, Entry, Grid, Row
from negrec.reporting.significance import Interval
from negrec.reporting.verdict import LEVEL, Answer, Judged, Verdict

PARTS = ("", *(f"_{name}" for name in COHORTS))
_OF = ("total", *COHORTS)


def comparison_table(title: str, verdict: Verdict, k: int, compared: bool = True) -> Grid:
    """Methods x (HR@k, NDCG@k: total, head, mid, tail; balance@k), the shape of Apple's table 3.

    In each column the best mean of the ranked cells is bold, and those that a test does not tell
    from it (Holm over the column, p >= 0.05) have a dagger. Cells that are not ranked, the
    popularity ranker and the oracle, where it is known, have neither.

    Args:
        title: of the table.
        verdict: whose cells are shown, in its order.
        k: the cut-off.
        compared: whether the cells may be compared; where not, nothing is bold.
    """
    metrics = [f"test/{name}_{k}{part}" for name in ("hr", "ndcg") for part in PARTS]
    metrics.append(f"test/balance_{k}")
    ranked = [judged.cell for judged in verdict.ranked]
    compared = compared and verdict.recommended is not None and len(ranked) > 1
    competing = ranked if compared else []
    marks = {name: _marks(competing, name) for name in metrics}
    everyone = [*ranked, *verdict.unconverged, *verdict.untrained]
    several = len({cell.negatives for cell in everyone}) > 1
    columns = [
        Column("method", align="left"),
        *([Column("k")] if several else []),
        Column("n"),
        *(Column(part, f"{name}@{k}, %") for name in ("HR", "NDCG") for part in _OF),
        Column("of runs, mean", f"balance@{k}, %"),
        Column("of mean rates", f"balance@{k}, %"),
        Column("epochs", "training"),
        Column("s per epoch", "training"),
        Column("s in all", "training"),
    ]

    def row(cell: Cell, **style: bool) -> Row:
        entries = [Entry(cell.label)]
        if several:
            entries.append(Entry(_negatives(cell)))
        entries.append(Entry(f"{cell.n}"))
        for name in metrics:
            summary = significance.describe([*cell.values(name).values()])
            best, mark = marks[name].get(cell.label, (False, ""))
            entries.append(Entry.percent(summary.mean, summary.sd, best, mark))
        rates = [cell.mean(f"test/hr_{k}{part}") for part in PARTS[1:]]
        entries.append(Entry.percent(balance(rates)))
        entries.append(Entry(f"{cell.epochs:.3g}" if cell.epochs < 1000 else f"{cell.epochs:.0f}"))
        entries += [Entry(_seconds(cell.seconds_per_epoch)), Entry(_seconds(cell.seconds))]
        return Row(tuple(entries), **style)

    rows = [row(cell) for cell in ranked]
    not_ranked = [*(() if verdict.recommended is None else verdict.unconverged), *verdict.untrained]
    rows += [row(cell, begins=not at, quiet=True) for at, cell in enumerate(not_ranked)]
    cells = [*ranked, *not_ranked]
    for prefix, label in (("popularity", "popularity ranker"), ("oracle", "oracle")):
        reference = _reference(cells, prefix, label, k)
        if reference is not None:
            rows.append(Row(_filled(reference, several), begins=prefix == "popularity", quiet=True))
    rows.append(Row(_filled(_support(cells), several), begins=True, quiet=True))
    notes = _table_notes(verdict, cells, k, compared)
    return Grid(title, tuple(columns), tuple(rows), tuple(notes))


def _filled(entries: tuple[Entry, ...], several: bool) -> tuple[Entry, ...]:
    """With nothing in the column of negatives, where there is one."""
    return (entries[0], Entry(), *entries[1:]) if several else entries


def _negatives(cell: Cell) -> str:
    return "all" if math.isinf(cell.negatives) else f"{cell.negatives:,.0f}"


def overview(answer: Answer, k: int) -> Grid:
    """The cells of a comparison at a glance, narrow enough for a terminal.

    In the order of the verdict that answers; at equal k with the signs of the comparison table.
    """
    table = comparison_table(answer.comparison.title, answer.verdict, k, compared=answer.one_k)
    heads = {
        **{"method": "", "k": "k", f"HR@{k}, % total": f"HR@{k}"},
        **{f"HR@{k}, % {part}": part for part in COHORTS},
        f"NDCG@{k}, % total": f"NDCG@{k}",
        f"balance@{k}, % of runs, mean": "balance",
        "training s per epoch": "s/epoch",
    }
    narrow = table.only(heads)
    columns = tuple(Column(heads[column.name], align=column.align) for column in narrow.columns)
    seeds = wording.whole([cell.n for cell in answer.comparison.cells])
    notes = [f"Test in percent, mean over n = {seeds}."]
    if any(entry.mark for row in narrow.rows for entry in row.entries):
        notes.append(f"{DAGGER}: no test tells it from the best of the column.")
    if answer.verdict.recommended is None:
        notes.append("A look, no ranking: the order is that of validation so far.")
    elif answer.verdict.unconverged:
        notes.append("Grey cells were still improving and are not ranked.")
    return replace(narrow, columns=columns, notes=tuple(notes))


def _seconds(value: float) -> str:
    return wording.seconds(value).removesuffix(" s")


def _marks(cells: Sequence[Cell], name: str) -> dict[str, tuple[bool, str]]:
    """Of each label: whether it is the best, and the sign of those that are not told from it."""
    values = {cell.label: cell.values(name) for cell in cells if cell.values(name)}
    if not values:
        return {}
    best = max(values, key=lambda label: math.fsum(values[label].values()) / len(values[label]))
    others = [label for label in values if label != best]
    tests = [significance.compare(values[best], values[label]) for label in others]
    corrected = significance.holm([test.p for test in tests])
    marks = {
        label: (False, DAGGER if p is not None and p >= LEVEL else "")
        for label, p in zip(others, corrected, strict=True)
    }
    return {best: (True, ""), **marks}


def _reference(cells: Sequence[Cell], prefix: str, label: str, k: int) -> tuple[Entry, ...] | None:
    """The row of a ranker that stands beside the cells: it is measured in each of their runs."""

    def mean(name: str) -> float:
        found = [cell.mean(f"{prefix}/{name}") for cell in cells]
        found = [value for value in found if not math.isnan(value)]
        return math.fsum(found) / len(found) if found else math.nan

    if math.isnan(mean(f"hr_{k}")):
        return None
    names = [f"{name}_{k}{part}" for name in ("hr", "ndcg") for part in PARTS]
    names += [f"balance_{k}"]
    entries = [Entry.percent(mean(name)) for name in names]
    rates = [mean(f"hr_{k}{part}") for part in PARTS[1:]]
    last = Entry.percent(balance(rates))
    return (Entry(label), Entry(), *entries, last, Entry(), Entry(), Entry())


def _support(cells: Sequence[Cell]) -> tuple[Entry, ...]:
    """Test targets of each cohort; mean over seeds, whose splits may differ."""
    counts = [Entry(f"{cells[0].mean(f'test/n{part}'):,.0f}") for part in PARTS]
    return (Entry("test targets"), Entry(), *counts, *counts, *[Entry()] * 5)


def _table_notes(verdict: Verdict, cells: Sequence[Cell], k: int, compared: bool) -> list[str]:
    ns = [cell.n for cell in cells]
    what = (
        "one seed each"
        if max(ns) == 1
        else (f"mean ± standard deviation over n = {wording.whole(ns)} seeds")
    )
    notes = [f"Test results in percent, {what}; the order is that of validation."]
    if verdict.recommended is None:
        notes.append("A look, no ranking: nothing is recommended yet, and nothing is bold.")
    elif compared and max(ns) > 1:
        notes.append(
            f"Bold: the best of the column. {DAGGER}: not significantly different from it "
            f"(two-sided t test over seeds, Holm-corrected over the column, p of {LEVEL:g} or "
            "more)."
        )
    elif compared:
        notes.append("Bold: the best of the column. With one seed there is no test.")
    quiet = [f"{c.label} ({c.unconverged} of {c.n} runs)" for c in verdict.unconverged]
    if quiet:
        notes.append(f"Still improving in the last epoch: {wording.listed(quiet)}.")
    without = {cell.label: cell.n - len(cell.values(f"test/balance_{k}")) for cell in cells}
    told = [f"{label} {count}" for label, count in without.items() if count]
    if told:
        notes.append(f"Runs without a balance (no hit in any cohort): {', '.join(told)}.")
    notes.append("Balance: 100 = head, mid and tail are served alike; 33.33 = one gets everything.")
    return notes


def equal_seconds_table(answer: Answer) -> Grid:
    """What each cell had reached on validation within the same seconds of training."""
    comparison, limit = answer.comparison, answer.limit
    label = wording.metric(comparison.metric)
    columns = (
        Column("method", align="left"),
        Column("k"),
        Column("n"),
        Column(f"{label} within {wording.duration(limit)}, %", "validation"),
        Column("of the whole training, %", "validation"),
        Column("against the best: p (Holm)"),
        Column("training, s"),
    )
    verdict = answer.at_equal_seconds
    best = verdict.ranked[0] if verdict.ranked and verdict.recommended else None

    def row(cell: Cell, judged: Judged | None, **style: bool) -> Row:
        reached = significance.describe(
            [*cell.reached_within(limit, comparison.metric).values()]
            if judged is None
            else [judged.valid.mean]
        )
        sd = reached.sd if judged is None else judged.valid.sd
        whole = significance.describe([*cell.values("best/value").values()])
        p = judged.p if judged is not None else None
        mark = DAGGER if judged is not None and judged.within_noise else ""
        return Row(
            (
                Entry(cell.label),
                Entry(_negatives(cell)),
                Entry(f"{cell.n}"),
                Entry.percent(reached.mean, sd, judged is not None and judged is best, mark),
                Entry.percent(whole.mean, whole.sd),
                Entry(wording.p_value(p)),
                Entry(_seconds(cell.training_seconds)),
            ),
            **style,
        )

    rows = [row(judged.cell, judged) for judged in verdict.ranked]
    if verdict.recommended is not None:
        rows += [
            row(cell, None, begins=not at, quiet=True)
            for at, cell in enumerate(verdict.unconverged)
        ]
    return Grid(
        f"{comparison.title}: at equal training seconds",
        columns,
        tuple(rows),
        (
            f"The best validation value that each cell had reached after {wording.duration(limit)} "
            "of training (validation not counted), the whole time of the cell that trained "
            "shortest. Test is measured at the chosen epoch only, so this view shows validation.",
        ),
    )


def statistics_table(
    title: str, verdict: Verdict, bootstrap: Mapping[str, Interval], repeats: int
) -> Grid:
    """All cells against the best on validation, by the validation and by the test metric.

    Args:
        title: of the table.
        verdict: whose first cell the others are compared with.
        bootstrap: by label, of the test metric, cell minus best.
        repeats: of the bootstrap.
    """
    metric = verdict.metric
    columns = (
        Column("against the best", align="left"),
        Column("on", align="left"),
        *(Column(name) for name in ("n", "difference", "95 % interval", "test")),
        *(Column(name) for name in ("p", "p (Holm)", "Wilcoxon p", "effect")),
        Column("95 % over users and seeds"),
    )
    best, *others = verdict.ranked
    tests = [
        significance.compare(
            judged.cell.values(f"test/{metric}"), best.cell.values(f"test/{metric}")
        )
        for judged in others
    ]
    corrected = significance.holm([test.p for test in tests])
    rows = []
    for judged, on_test, p in zip(others, tests, corrected, strict=True):
        if judged.against is not None:
            rows.append(_difference(judged.cell.label, "validation", judged.against, judged.p, -1))
        interval = bootstrap.get(judged.cell.label)
        rows.append(
            _difference(
                "" if judged.against is not None else judged.cell.label,
                "test",
                on_test,
                p,
                1,
                "" if interval is None else wording.interval(interval.low, interval.high),
            )
        )
    reasons = {
        test.reason
        for test in (*tests, *(judged.against for judged in others if judged.against))
        if test.reason
    }
    left_out = {test.note for test in tests if test.note}
    return Grid(
        f"{title}: differences to {best.cell.label}",
        columns,
        tuple(rows),
        (
            "Cell minus best, in percentage points. Two-sided tests over seeds, paired where the "
            "seeds match; p (Holm) is corrected over all cells of the table, one metric at a time. "
            "Effect: Cohen's d of the pairs, Hedges' g without pairs. The last column is a "
            f"bootstrap of the mean difference per target: {repeats:,} times users and seeds anew.",
            *(f"No p-value: {reason}." for reason in sorted(reasons)),
            *sorted(f"{note[:1].upper()}{note[1:]}." for note in left_out),
        ),
    )


def _difference(
    label: str,
    where: str,
    test: significance.Comparison,
    p: float | None,
    sign: int,
    bootstrap: str = "",
) -> Row:
    """A row; the sign turns "best minus cell" around."""
    low, high = sorted((sign * test.low, sign * test.high))
    effect = "" if test.effect is None else f"{sign * test.effect:+.2f}".replace("-", wording.MINUS)
    return Row(
        (
            Entry(label),
            Entry(where),
            Entry(f"{test.n}"),
            Entry(wording.points(sign * test.difference)),
            Entry(wording.interval(low, high)),
            Entry("" if test.test == "none" else test.test),
            Entry(wording.p_value(test.p)),
            Entry(wording.p_value(p)),
            Entry("" if test.wilcoxon_p is None else wording.p_value(test.wilcoxon_p)),
            Entry(effect),
            Entry(bootstrap),
        ),
        begins=bool(label),
    )
