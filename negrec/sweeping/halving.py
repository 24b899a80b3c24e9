r"""Successive halving: a little time for many candidates, much for the few that do well.

All candidates train for one epoch, which also measures what an epoch of each costs. Then come
rounds. A round takes the candidates that are left to the same number of epochs with the same seeds,
going on where they stood, and drops the lower part of them by the mean of their best validation
values. With n candidates the rounds have about n, n / eta, n / eta^2, ..., the last at most eta of
them, and each is given an equal share of the time that is left, so that the survivors get more
epochs the fewer they are (Jamieson & Talwalkar 2016, arXiv:1502.07943). We differ in these:

* The budget is seconds, not epochs: a round's epochs are as many as its candidates, at their own
  measured speeds, reach within its share. Epochs are what is equal, so that a slow candidate is not
  judged younger than a fast one; what it costs is told beside its value.
* A candidate within noise of the cut is kept, though it makes a round larger than n / eta. With S
  seeds and C candidates noise is two standard errors of a difference of means, pooled over the
  candidates and paired over the seeds:

  .. math:: 2 \sqrt{\frac{2}{S} \frac{\sum_{cs} (v_{cs} - v_{c.} - v_{.s} + v_{..})^2}{(C-1)(S-1)}}

  With one seed it cannot be measured, and a fixed fraction of the value stands for it.
* Later rounds have more seeds where that leaves eta times the epochs of the round before; without
  the time for both, epochs come first.
* The first round has at least some epochs, where half of the time has room for them. A round
  without the time for one more epoch of each of its candidates drops the lower part by what is
  known.

What it cannot do: see that a candidate which starts slowly would win in the end (one uniform
negative still improves after 200 epochs, where others have ended after 20). eta = 2 drops half at
most, a larger budget makes the first round longer, and of a candidate that was still improving when
it was dropped this is said. The validation value of the winner is the largest of several, and so a
little too good; its test is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, median
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from negrec.errors import InputError
from negrec.sweeping import duration


@dataclass(frozen=True)
class Trial:
    """One candidate with one seed, trained so far.

    Attributes:
        value: the best validation value until now, higher being better.
        epochs: trained since the start; fewer than were asked for where training has ended.
        seconds: of training and validation since the start.
        overhead: seconds of the last call that more epochs would not have made more.
        converged: training has ended by itself, and more epochs would not be trained.
        rising: the best epoch is the last.
    """

    value: float
    epochs: int
    seconds: float
    overhead: float
    converged: bool
    rising: bool


class CandidateError(Exception):
    """A candidate that cannot be trained; the message says why. The others go on."""


Train = Callable[[str, int, int], Trial]  # candidate, seed, epochs since the start


@dataclass(frozen=True)
class Round:
    """What a round trains: its candidates, each with these seeds, to so many epochs."""

    number: int
    epochs: int
    seeds: tuple[int, ...]
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """What a round came to.

    Attributes:
        round: with the seeds that all of its candidates have.
        means: candidate -> mean validation value, best first.
        noise: differences up to this one tell nothing.
        kept: best first.
        dropped: candidate -> why, for people.
    """

    round: Round
    means: Mapping[str, float]
    noise: float
    kept: tuple[str, ...]
    dropped: Mapping[str, str]


@dataclass(frozen=True)
class Choice:
    """What the whole came to.

    Attributes:
        best: the candidate with the highest mean validation value in the end.
        equals: others that are within noise of it, best first.
        survivors: who is tested: these, and eta candidates in any case.
        last: the last judgement, against the best alone.
    """

    best: str
    equals: tuple[str, ...]
    survivors: tuple[str, ...]
    last: Judgement


@dataclass
class Memory:
    """All that a choice has to remember to go on in another process.

    Attributes:
        trials: of (candidate, seed, epochs asked for).
        failed: candidate -> why.
        rounds: as they were planned, with the speeds known by then.
    """

    trials: dict[tuple[str, int, int], Trial] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "trials": [[*key, asdict(trial)] for key, trial in self.trials.items()],
            "failed": self.failed,
            "rounds": [asdict(planned) for planned in self.rounds],
        }

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Self:
        """From what ``as_dict`` gave."""
        rounds = [
            Round(r["number"], r["epochs"], tuple(r["seeds"]), tuple(r["cells"]))
            for r in saved["rounds"]
        ]
        trials = {(cell, seed, epochs): Trial(**t) for cell, seed, epochs, t in saved["trials"]}
        return cls(trials, dict(saved["failed"]), rounds)

    def latest(self, cell: str, seed: int) -> Trial | None:
        """How far a candidate has come with a seed."""
        own = [t for (c, s, _), t in list(self.trials.items()) if (c, s) == (cell, seed)]
        return max(own, key=lambda trial: trial.epochs, default=None)


class Watch:
    """Is told what happens, and when to save the memory; this one does nothing."""

    def planned(self, planned: Round, seconds: float) -> None:
        """A round begins, and is expected to take so long."""

    def training(self, cell: str, seed: int, epochs: int) -> None:
        """A candidate goes on to so many epochs."""

    def trained(self, cell: str, seed: int, trial: Trial) -> None:
        """It has come there, or as far as it would."""

    def failed(self, cell: str, reason: str) -> None:
        """It cannot be trained."""

    def judged(self, judgement: Judgement) -> None:
        """A round is over."""

    def out_of_time(self, number: int) -> None:
        """A round was not finished, or not begun; it is judged by what its candidates have."""


class Halving:
    """One choice.

    Args:
        cells: names of the candidates, at least one.
        seeds: for the survivors, at least one; the first one is everybody's.
        budget: seconds, positive.
        max_epochs: nobody trains longer.
        train: trains a candidate until it has so many epochs, going on where it stood; raises
            ``CandidateError`` where it cannot.
        spent: seconds of the budget that are gone, over all processes of this choice.
        memory: what earlier processes came to; grows.
        watch: is told.
        every: epochs come in multiples of this (from one validation to the next).
        eta: what a round divides the number of candidates by, at least 2.
        least: epochs (times ``every``) of the first round, where the budget has room for them.
        margin: fraction of a value that counts as noise where there is one seed.
    """

    def __init__(
        self,
        cells: Sequence[str],
        seeds: Sequence[int],
        budget: float,
        max_epochs: int,
        train: Train,
        spent: Callable[[], float],
        memory: Memory,
        watch: Watch,
        *,
        every: int = 1,
        eta: int = 2,
        least: int = 3,
        margin: float = 0.03,
    ) -> None:
        if eta < 2:
            raise ValueError(f"eta must be at least 2, got {eta}")
        self.cells = tuple(cells)
        self.seeds = tuple(seeds)
        self.budget = budget
        self.train = train
        self.spent = spent
        self.memory = memory
        self.watch = watch
        self.eta = eta
        self.margin = margin
        # Every number of epochs that a round may have.
        self.steps = range(every, max(max_epochs, every) + 1, every)
        self.least = self.steps[min(least, len(self.steps)) - 1]

    def run(self) -> Choice:
        """Trains, drops and chooses.

        Raises:
            InputError: no candidate can be trained, or the budget is too small for one epoch of
                each.
        """
        self.probe()
        at = Round(0, self.steps[0], self.seeds[:1], self.alive(self.cells))
        rounds = 1 + _halvings(len(self.cells), self.eta)
        for number in range(1, rounds + 1):
            last = number == rounds or len(at.cells) <= self.eta
            planned = self.plan(number, at, rounds_left=1 if last else rounds + 1 - number)
            in_time = planned is None or self.complete(planned)
            at = self.reached(planned) or replace(at, cells=self.alive(at.cells))
            if not at.cells:
                raise self.nobody()
            if planned is None or not in_time:
                self.watch.out_of_time(number)
            if last or not in_time:
                break
            judgement = self.judge(at, keep=-(-len(at.cells) // self.eta))
            at = replace(at, cells=judgement.kept)
        final = self.judge(at, keep=1)
        best, *equals = final.kept
        survivors = tuple(final.means)[: max(self.eta, len(final.kept))]
        return Choice(best, tuple(equals), survivors, final)

    # ---- training

    def probe(self) -> None:
        """One epoch of every candidate."""
        epochs, seed = self.steps[0], self.seeds[0]
        for at, cell in enumerate(self.cells):
            self.to(cell, seed, epochs)
            trials = [*self.memory.trials.values()]
            to_come = len(self.cells) - at - 1
            # A bound from below: without what a call costs beside its epochs.
            least = min((t.seconds / t.epochs for t in trials), default=0.0) * epochs
            if to_come and self.spent() + to_come * least > self.budget:
                mean = fmean(t.seconds / t.epochs * epochs + t.overhead for t in trials)
                # 1.2: what is still unknown may cost more than what is known.
                needed = 1.2 * (self.spent() + to_come * mean)
                raise InputError(
                    f"a budget of {duration.words(self.budget)} is too small for one epoch of each "
                    f"of {len(self.cells)} candidates, which takes about {duration.words(needed)}: "
                    f"give budget={math.ceil(needed)}s or more (what was trained is kept), or name "
                    "fewer with sampler=A,B"
                )
        if not self.alive(self.cells):
            raise self.nobody()

    def nobody(self) -> InputError:
        cell, reason = next(iter(self.memory.failed.items()))
        return InputError(f"no candidate can be trained; {cell}: {reason}")

    def complete(self, planned: Round) -> bool:
        """Trains a round seed by seed; False where the time does not suffice.

        A seed is begun only where it can be brought to its end with all candidates: those that were
        trained for different times cannot be compared. A machine that slows down on the way may
        still leave some behind.
        """
        epochs = planned.epochs
        for seed in planned.seeds:
            cells = self.alive(planned.cells)
            begun = any((cell, seed, epochs) in self.memory.trials for cell in cells)
            if not begun and self.spent() + self.total(cells, [seed], epochs) > self.budget:
                return False
            for cell in cells:
                there = (cell, seed, epochs) in self.memory.trials
                if not there and self.spent() + self.cost(cell, seed, epochs) > self.budget:
                    return False
                self.to(cell, seed, epochs)
        return True

    def to(self, cell: str, seed: int, epochs: int) -> None:
        """Trains one candidate with one seed to so many epochs, unless it is there."""
        memory, key = self.memory, (cell, seed, epochs)
        if key in memory.trials or cell in memory.failed:
            return
        before = memory.latest(cell, seed)
        if before is not None and before.converged:
            memory.trials[key] = before
            return
        self.watch.training(cell, seed, epochs)
        try:
            trial = self.train(cell, seed, epochs)
            if not math.isfinite(trial.value):
                raise CandidateError(f"its validation value is {trial.value}")
        except CandidateError as error:
            memory.failed[cell] = str(error)
            self.watch.failed(cell, str(error))
            return
        memory.trials[key] = trial
        self.watch.trained(cell, seed, trial)

    def alive(self, cells: Sequence[str]) -> tuple[str, ...]:
        return tuple(cell for cell in cells if cell not in self.memory.failed)

    # ---- planning

    def plan(self, number: int, at: Round, rounds_left: int) -> Round | None:
        """The next round; None where there is no time for one more epoch of its candidates."""
        memory, longest = self.memory, self.steps[-1]
        known = {planned.number: planned for planned in memory.rounds}
        if number in known:
            planned = known[number]  # of an earlier process, by what it knew then
        elif number < max(known, default=0):
            return None  # likewise
        else:
            left = self.budget - self.spent()
            wanted = len(self.seeds) if rounds_left == 1 else min(number, len(self.seeds))
            for n in range(max(wanted, len(at.seeds)), len(at.seeds) - 1, -1):
                seeds = self.seeds[:n]
                free = left - self.reserve(at.cells, n)
                epochs = self.reach(at.cells, seeds, free / rounds_left)
                if number == 1:
                    # Half at the most: what it takes is missing when the best are told apart.
                    early = self.reach(at.cells, seeds, free / 2)
                    epochs = max(epochs, min(self.least, early))
                if epochs >= min(self.eta * at.epochs, longest):
                    break
            if epochs <= at.epochs < longest:
                epochs = self.reach(at.cells, seeds, free)
                if epochs <= at.epochs:
                    return None
            planned = Round(number, epochs, seeds, at.cells)
            memory.rounds.append(planned)
        self.watch.planned(planned, self.total(planned.cells, planned.seeds, planned.epochs))
        return planned

    def reach(self, cells: Sequence[str], seeds: Sequence[int], seconds: float) -> int:
        """The most epochs that all can be brought to in so many seconds; 0 for none."""
        fits = [e for e in self.steps if self.total(cells, seeds, e) <= max(seconds, 0)]
        return fits[-1] if fits else 0

    def total(self, cells: Sequence[str], seeds: Sequence[int], epochs: int) -> float:
        return sum(self.cost(cell, seed, epochs) for cell in cells for seed in seeds)

    def cost(self, cell: str, seed: int, epochs: int) -> float:
        """Expected seconds until a candidate has so many epochs with a seed, or has ended."""
        at = self.memory.latest(cell, seed)
        done = at.epochs if at else 0
        if done >= epochs or (at and at.converged):
            return 0.0
        # What has ended by itself with one seed will with another.
        ends = [t.epochs for t in self.of(cell) if t.converged]
        missing = max(min([epochs, *ends]) - done, self.steps.step)
        return self.overhead() + missing * self.epoch_seconds(cell)

    def epoch_seconds(self, cell: str) -> float:
        """Measured over the longest run of a candidate."""
        longest = max(self.of(cell), key=lambda trial: trial.epochs)
        return longest.seconds / longest.epochs

    def of(self, cell: str) -> list[Trial]:
        return [trial for (name, _, _), trial in self.memory.trials.items() if name == cell]

    def overhead(self) -> float:
        """What a call costs beside its epochs; the first one, which imports, counts for nothing."""
        return median(trial.overhead for trial in self.memory.trials.values())

    def reserve(self, cells: Sequence[str], n_seeds: int) -> float:
        """For the test of eta survivors: about an epoch each, a quarter of the budget at most."""
        slowest = max(self.epoch_seconds(cell) for cell in cells)
        return min(self.eta * n_seeds * (self.overhead() + slowest), self.budget / 4)

    # ---- judging

    def reached(self, planned: Round | None) -> Round | None:
        """The part of a round that can be compared: the seeds that all of its candidates have."""
        if planned is None:
            return None
        cells = self.alive(planned.cells)
        seeds = [
            seed
            for seed in planned.seeds
            if all((cell, seed, planned.epochs) in self.memory.trials for cell in cells)
        ]
        if not seeds or not cells:
            return None
        return Round(planned.number, planned.epochs, tuple(seeds), cells)

    def judge(self, reached: Round, keep: int) -> Judgement:
        """Who goes on: the better ``keep``, and who is within noise of the last of them."""
        trials, epochs, seeds = self.memory.trials, reached.epochs, reached.seeds
        values = {
            cell: [trials[cell, seed, epochs].value for seed in seeds] for cell in reached.cells
        }
        means = {cell: fmean(of_cell) for cell, of_cell in values.items()}
        order = sorted(means, key=lambda cell: -means[cell])  # equal ones stay in their order
        cut = means[order[keep - 1]]
        noise = self.noise(np.array([values[cell] for cell in order]), cut)
        kept = [cell for cell in order if means[cell] >= cut - noise]
        what = "the best" if keep == 1 else f"number {keep} of {len(order)}"
        dropped = {}
        for cell in order[len(kept) :]:
            rising = all(trials[cell, seed, epochs].rising for seed in seeds)
            dropped[cell] = (
                f"{means[cell]:.4f} is below {what}, {cut:.4f}, by more than noise ({noise:.4f})"
                f"{'; still improving' if rising else ''}"
            )
        means = {cell: means[cell] for cell in order}
        judgement = Judgement(reached, means, noise, tuple(kept), dropped)
        self.watch.judged(judgement)
        return judgement

    def noise(self, values: NDArray[np.float64], value: float) -> float:
        """Differences of means that tell nothing; ``values`` is (candidates, seeds)."""
        n_cells, n_seeds = values.shape
        if n_cells == 1:
            return 0.0
        if n_seeds == 1:
            return self.margin * abs(value)
        residual = values - values.mean(1, keepdims=True) - values.mean(0) + values.mean()
        variance = float((residual**2).sum()) / ((n_cells - 1) * (n_seeds - 1))
        return 2 * math.sqrt(2 / n_seeds * variance)


def _halvings(n: int, eta: int) -> int:
    """How often n candidates are divided until eta are left at the most."""
    times = 0
    while n > eta:
        n, times = -(-n // eta), times + 1
    return times
