"""Which cell to use: chosen on validation by one stated rule, with its evidence.

The rule. A cell has converged when none of its runs had its best epoch last. Of the converged cells
the one with the best mean validation value over seeds leads. Every other converged cell is tested
against it over the same seeds (two-sided t test, p by Holm over all of them): where p is 0.05 or
more it is *within noise*. The leader is recommended, and of those within noise the cheapest is
named if it takes 80 % or less of its training time.

A cell that was still improving is not ranked: nobody knows where it ends. But it ends no lower
than it stands. So where one has already reached the leader's mean, nothing is recommended and more
epochs are asked for, as where no cell has converged; the order on validation is then shown as a
look, without tests. One that is still improving and behind leaves the recommendation as it is, and
is named in it.

Test values are reported and never choose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from negrec.reporting import significance, wording
from negrec.reporting.cells import Cell, Comparison
from negrec.reporting.significance import Summary

_NOT_DEPLOYABLE = "worse than the popularity ranker: do not deploy"
LEVEL = 0.05  # of significance
CLEARLY_LESS = 0.8  # of the leader's training time
RULE = (
    "on validation, among cells that have converged, the best mean leads; another cell is within "
    "noise when a two-sided t test over seeds against the leader has a Holm-corrected p of "
    f"{LEVEL:g} or more; of those the cheapest is named if it takes {100 * CLEARLY_LESS:.0f} % or "
    "less of the leader's training time; nothing is recommended while a cell that is still "
    "improving has already reached the leader"
)


@dataclass(frozen=True)
class Judged:
    """A cell on validation.

    Attributes:
        cell: the cell.
        valid: its validation values.
        against: the leader minus this cell; None for the leader and where nobody leads.
        p: corrected (Holm); None where nothing was tested.
    """

    cell: Cell
    valid: Summary
    against: significance.Comparison | None
    p: float | None

    @property
    def within_noise(self) -> bool:
        """Tested, and not worse than the leader beyond chance."""
        return self.p is not None and self.p >= LEVEL


@dataclass(frozen=True)
class Verdict:
    """What the rule says of some cells.

    Attributes:
        metric: of test, that the sentence tells ("hr_10").
        ranked: converged cells, the best first; where none is recommended all trained cells in
            the order of their validation values, untested.
        recommended: the leader; None where none has converged, where one that has not is already
            ahead of it, or where nothing was trained.
        cheaper: the cell that the sentence names beside it; None where there is none.
        unconverged: cells that were still improving, the best on validation so far first.
        untrained: cells that validation cannot choose: nothing was trained.
        deployable: whether the test value of the first is better than the popularity ranker's.
        sentence: what to do.
        notes: what a reader must know before they do it.
    """

    metric: str
    ranked: tuple[Judged, ...]
    recommended: Cell | None
    cheaper: Cell | None
    unconverged: tuple[Cell, ...]
    untrained: tuple[Cell, ...]
    deployable: bool
    sentence: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """The verdicts on one comparison.

    Attributes:
        comparison: the comparison.
        at_equal_k: for each number of negatives that several cells have, fewest first.
        alone: of the cells that no other equals in their number of negatives; None without any.
        limit: T, the training seconds of the cell that trained shortest.
        at_equal_seconds: of all cells, by what each had reached within T.
    """

    comparison: Comparison
    at_equal_k: tuple[tuple[float, Verdict], ...]
    alone: Verdict | None
    limit: float
    at_equal_seconds: Verdict

    @property
    def one_k(self) -> bool:
        """Whether all cells have the same number of negatives."""
        return len({cell.negatives for cell in self.comparison.cells}) == 1

    @property
    def verdict(self) -> Verdict:
        """The one that answers: at equal k where all cells are, else at equal seconds."""
        if not self.one_k:
            return self.at_equal_seconds
        return self.at_equal_k[0][1] if self.at_equal_k else self.alone or self.at_equal_seconds

    @property
    def sentence(self) -> str:
        """What to do with this data set."""
        return self.verdict.sentence

    @property
    def basis(self) -> str:
        """What the cells were compared by, where that needs saying; else ""."""
        if self.one_k:
            return ""
        ks = sorted({cell.negatives for cell in self.comparison.cells})
        several = wording.listed(["all" if math.isinf(k) else f"{k:,.0f}" for k in ks])
        return (
            f"The cells have {several} negatives per query, so they are compared at equal training "
            f"time: by the validation value that each had reached after "
            f"{wording.duration(self.limit)}. Test values are of the whole training."
        )


def answer(comparison: Comparison, metric: str) -> Answer:
    """All verdicts on a comparison."""
    groups = comparison.at_equal_k()
    alone = [of_k.cells[0] for of_k in groups.values() if not of_k.cells[1:]]
    trained = [cell for cell in comparison.cells if cell.trained]
    limit = min((cell.training_seconds for cell in trained), default=math.nan)
    reached = {cell.label: cell.reached_within(limit, comparison.metric) for cell in trained}
    return Answer(
        comparison,
        tuple((k, decide(of_k.cells, metric)) for k, of_k in groups.items() if of_k.cells[1:]),
        decide(alone, metric) if alone else None,
        limit,
        decide(comparison.cells, metric, reached),
    )


def decide(
    cells: Sequence[Cell],
    metric: str,
    validation: Mapping[str, Mapping[int, float]] | None = None,
) -> Verdict:
    """Applies the rule.

    Args:
        cells: of one comparison.
        metric: of test, that the sentence tells.
        validation: by label and seed; by default the values at the best epochs.
    """
    if validation is None:
        validation = {cell.label: cell.values("best/value") for cell in cells}
    untrained = tuple(c for c in cells if not c.trained or not validation.get(c.label))
    trained = [cell for cell in cells if cell not in untrained]
    look = _judged(trained, validation, tested=False)
    ranked = _judged([c for c in trained if not c.unconverged], validation, tested=True)
    best = ranked[0] if ranked else None
    improving = [judged for judged in look if judged.cell.unconverged]
    ahead = [j.cell for j in improving if best and j.valid.mean >= best.valid.mean]
    unconverged = tuple(judged.cell for judged in improving)
    leader = best.cell if best and not ahead else None
    within = [judged.cell for judged in ranked[1:] if judged.within_noise]
    cheaper = _cheapest(leader, within) if leader else None
    first = leader or (look[0].cell if look else None)
    deployable = first is None or not _worse_than_popularity(first, metric)
    if not look:
        sentence = "Nothing was trained here: there is nothing to choose."
    elif leader is None:
        sentence = _not_yet(look, best, ahead)
        if not deployable:
            sentence += f" On test {look[0].cell.label} is so far {_NOT_DEPLOYABLE}."
    else:
        sentence = _sentence(ranked, leader, cheaper, within, unconverged, metric, deployable)
    ranked = ranked if leader else look
    return Verdict(
        metric=metric,
        ranked=ranked,
        recommended=leader,
        cheaper=cheaper,
        unconverged=unconverged,
        untrained=untrained,
        deployable=deployable,
        sentence=sentence,
        notes=(
            *_beaten(first, untrained),
            *_notes([judged.cell for judged in ranked], unconverged, untrained, leader),
        ),
    )


def _judged(
    cells: Sequence[Cell], validation: Mapping[str, Mapping[int, float]], tested: bool
) -> tuple[Judged, ...]:
    """The cells, best first, each with its test against the first."""
    summaries = {c.label: significance.describe([*validation[c.label].values()]) for c in cells}
    # Labels break ties, so that the order does not depend on that of folders.
    order = sorted(cells, key=lambda cell: (-summaries[cell.label].mean, cell.label))
    if not tested or not order:
        return tuple(Judged(cell, summaries[cell.label], None, None) for cell in order)
    best, *others = order
    against = [
        significance.compare(validation[best.label], validation[cell.label]) for cell in others
    ]
    corrected = significance.holm([comparison.p for comparison in against])
    return (
        Judged(best, summaries[best.label], None, None),
        *(
            Judged(cell, summaries[cell.label], comparison, p)
            for cell, comparison, p in zip(others, against, corrected, strict=True)
        ),
    )


def _cheapest(leader: Cell, within: Sequence[Cell]) -> Cell | None:
    """The cell within noise that takes the least time, if that is clearly less."""
    if not within or not _same_hardware([leader, *within]):
        return None
    cheapest = min(within, key=lambda cell: (cell.seconds, cell.label))
    return cheapest if cheapest.seconds <= CLEARLY_LESS * leader.seconds else None


def _same_hardware(cells: Sequence[Cell]) -> bool:
    """Whether times compare: one kind of machine, one number of threads."""
    kinds = {
        (
            run.hardware,
            str(run.config.get("trainer.threads")),
            str(run.config.get("trainer.device")),
        )
        for cell in cells
        for run in cell.runs
    }
    return len(kinds) == 1


def _worse_than_popularity(cell: Cell, metric: str) -> bool:
    return cell.mean(f"test/{metric}") <= cell.mean(f"popularity/{metric}")


def _not_yet(look: Sequence[Judged], best: Judged | None, ahead: Sequence[Cell]) -> str:
    """Why nothing is recommended, and what to do about it.

    Args:
        look: all cells, the best on validation so far first.
        best: the best converged cell; None where none has converged.
        ahead: cells that were still improving and have reached it.
    """
    cells = [judged.cell for judged in look]
    if best is not None:
        names, are = wording.listed([cell.label for cell in ahead]), "are" if ahead[1:] else "is"
        return (
            f"No recommendation yet: {names}, still improving after {_epochs(ahead)} epochs, {are} "
            f"already ahead of the best converged one ({best.cell.label}); train longer "
            f"({longer(ahead)})."
        )
    if not cells[1:]:
        return (
            f"No recommendation yet: {cells[0].label}, the only cell, was still improving after "
            f"{_epochs(cells)} epochs; train longer ({longer(cells)})."
        )
    return (
        f"No recommendation yet: no cell has converged, all were still improving after "
        f"{_epochs(cells)} epochs; train longer ({longer(cells)}). A look at validation so far, no "
        f"ranking: {', '.join(cell.label for cell in cells)}."
    )


def _epochs(cells: Sequence[Cell]) -> str:
    """That the runs which were still improving trained: "10", "8 to 10"."""
    return wording.whole([run.epochs for cell in cells for run in cell.runs if not run.converged])


def longer(cells: Sequence[Cell]) -> str:
    """The setting that trains runs which were still improving twice as long."""
    most = max(run.epochs for cell in cells for run in cell.runs if not run.converged)
    return f"trainer.max_epochs={2 * most}"


def _sentence(
    ranked: Sequence[Judged],
    leader: Cell,
    cheaper: Cell | None,
    within: Sequence[Cell],
    unconverged: Sequence[Cell],
    metric: str,
    deployable: bool,
) -> str:
    label, test = (
        wording.metric(metric),
        significance.describe([*leader.values(f"test/{metric}").values()]),
    )
    if not deployable:
        popularity = wording.percent(leader.mean(f"popularity/{metric}"))
        return (
            f"{leader.label} is the best on validation, and on test {_NOT_DEPLOYABLE} "
            f"({label} {wording.percent(test.mean, test.sd)} % against {popularity} %)."
        )
    k = wording.cutoff(metric) or 10
    parts = [f"{label} {wording.percent(test.mean, test.sd)} %"]
    balance = leader.mean(f"test/balance_{k}")
    if not math.isnan(balance):
        parts.append(f"balance {wording.percent(balance, digits=1)}")
    parts.append(f"{wording.seconds(leader.seconds_per_epoch)} per epoch")
    rest = [_rest(ranked, leader, cheaper, within)] if ranked[1:] or not unconverged else []
    if unconverged:
        names = wording.listed([cell.label for cell in unconverged])
        were = "were" if unconverged[1:] else "was"
        rest.append(
            f"{names}, behind it, {were} still improving after {_epochs(unconverged)} epochs"
        )
    use = f"Use {leader.label}" if ranked[1:] or unconverged else f"{leader.label} is alone"
    return f"{use}: {', '.join(parts)}; {'; '.join(rest)}."


def _rest(
    ranked: Sequence[Judged], leader: Cell, cheaper: Cell | None, within: Sequence[Cell]
) -> str:
    """What to think of the other cells."""
    others = ranked[1:]
    if not others:
        return "there is nothing to compare it with"
    untested = [judged.cell.label for judged in others if judged.p is None]
    if len(untested) == len(others):
        if leader.n == 1 or all(judged.cell.n == 1 for judged in others):
            return "one seed, so no test: nothing says that its lead is more than noise"
        return "no test was possible, so nothing says that its lead is more than noise"
    said = []
    if cheaper is not None:
        cost = wording.share(cheaper.seconds / leader.seconds)
        said.append(f"{cheaper.label} is within noise and costs {cost}")
    rest = [cell.label for cell in within if cell is not cheaper]
    if rest:
        be = "are" if rest[1:] else "is"
        said.append(f"{wording.listed(rest)} {be} within noise{' too' if cheaper else ''}")
    if not within:
        said.append(
            "the others are worse beyond noise"
            if others[1:]
            else f"{others[0].cell.label} is worse beyond noise"
        )
    if untested:
        said.append(f"{wording.listed(untested)} could not be tested")
    return "; ".join(said)


def _beaten(first: Cell | None, untrained: Sequence[Cell]) -> list[str]:
    """That the best of what was trained is behind what needs no training."""
    if first is None:
        return []
    bar = first.mean("best/value")
    values = {cell.label: cell.mean("best/value") for cell in untrained}
    ahead = sorted((x for x in values if values[x] > bar), key=lambda x: values[x], reverse=True)
    if not ahead:
        return []
    told = [f"{label} ({values[label]:.4f})" for label in ahead]
    return [
        f"Ahead of {first.label} ({bar:.4f}) on validation without any training: "
        f"{wording.listed(told)}."
    ]


def _notes(
    ranked: Sequence[Cell],
    unconverged: Sequence[Cell],
    untrained: Sequence[Cell],
    leader: Cell | None,
) -> list[str]:
    notes = []
    partly = [f"{c.label} ({c.unconverged} of {c.n} runs)" for c in unconverged]
    if any(cell.unconverged < cell.n for cell in unconverged):
        notes.append(f"Still improving in the last epoch: {wording.listed(partly)}.")
    if untrained:
        names = wording.listed([cell.label for cell in untrained])
        notes.append(f"Not ranked, since validation chose nothing there: {names}.")
    tuning = {cell.label: cell.tuning for cell in ranked}
    if len({*tuning.values()}) > 1:
        told = [f"{label} {how}" for label, how in tuning.items()]
        what = "Ranked, but tuned" if leader is not None else "Tuned"
        notes.append(
            f"{what} with different numbers of trials: {wording.listed(told)}. More tuning alone "
            "can make a cell look better."
        )
    if not _same_hardware(ranked):
        notes.append("The cells ran on different hardware or threads: their times do not compare.")
    ns = {cell.n for cell in ranked}
    if len(ns) > 1:
        told = [f"{cell.label} {cell.n}" for cell in ranked]
        notes.append(f"Different numbers of seeds: {', '.join(told)}.")
    sampled = {run.config.get("evaluation.sampled") for c in ranked for run in c.runs} - {None}
    notes += [f"{wording.sampled(n)}." for n in sampled]
    return notes
