"""What a person sees of ``negrec choose``: its rounds, its survivors, its verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from negrec.sweeping import duration
from negrec.sweeping.halving import Choice, Judgement, Memory, Round, Trial, Watch

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from negrec.commandline.choose import Diary, Plan

Tested = Mapping[str, Mapping[int, Mapping[str, float]]]  # candidate -> seed -> final metrics


class Screen(Watch):
    """A line for each round and trial; on a terminal trials are rows of a table that changes.

    Args:
        plan: what is to be done.
        diary: is saved whenever something was done.
    """

    def __init__(self, plan: Plan, diary: Diary) -> None:
        from rich.console import Console

        self.console = Console(highlight=False)
        self.plan = plan
        self.diary = diary
        self.status = dict.fromkeys(plan.candidates, "")
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        from rich.live import Live

        names, diary = ", ".join(self.plan.candidates), self.diary
        self.line(f"choosing from {names} in {self.plan.folder}; {self._left()}")
        if diary.chosen:
            budget = duration.words(diary.budget)
            self.line(f"finished within a budget of {budget}; sweep.name=NAME starts another")
        elif diary.before:
            self.line(f"going on after {duration.words(diary.before)}")
        if self.console.is_terminal:
            self._live = Live(console=self.console, transient=True, get_renderable=self._table)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def line(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)

    def planned(self, planned: Round, seconds: float) -> None:
        self.diary.save()
        seeds = ", ".join(map(str, planned.seeds))
        self.line(
            f"round {planned.number}: {len(planned.cells)} candidates to epoch {planned.epochs}, "
            f"seed {seeds}: about {duration.words(seconds)}; {self._left()}"
        )

    def training(self, cell: str, seed: int, epochs: int) -> None:
        self.status[cell] = f"training seed {seed} to epoch {epochs}"

    def trained(self, cell: str, seed: int, trial: Trial) -> None:
        self.diary.save()
        self.status[cell] = "stopped by itself" if trial.converged else ""
        if self._live is None:
            self.line(
                f"  {cell}, seed {seed}: {self.metric} {trial.value:.4f} at epoch {trial.epochs}, "
                f"{duration.words(trial.seconds / trial.epochs)} per epoch; {self._left()}"
            )

    def failed(self, cell: str, reason: str) -> None:
        self.diary.save()
        self.status[cell] = "failed"
        self.line(f"  dropped {cell}: {reason}")

    def judged(self, judgement: Judgement) -> None:
        number = judgement.round.number
        means = ", ".join(f"{c} {judgement.means[c]:.4f}" for c in judgement.kept)
        self.line(f"after round {number}: kept {means}" if number else f"after one epoch: {means}")
        for cell, reason in judgement.dropped.items():
            self.status[cell] = "dropped"
            self.line(f"  dropped {cell}: {reason}")

    def out_of_time(self, number: int) -> None:
        self.line(f"round {number}: no time for all of it; judged by what all have reached")

    @property
    def metric(self) -> str:
        return f"valid/{self.plan.cfg.trainer.metric}"

    def _left(self) -> str:
        left = max(self.diary.budget - self.diary.spent(), 0.0)
        return f"{duration.words(left)} left"

    def _table(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=self._left())
        for header in ("candidate", "seeds", "epochs", self.metric, "s / epoch", ""):
            table.add_column(header, justify="left" if header in ("candidate", "") else "right")
        for cell in self.plan.candidates:
            trials = [t for s in self.plan.seeds if (t := self.diary.memory.latest(cell, s))]
            numbers = [""] * 4
            if trials:
                value = fmean(trial.value for trial in trials)
                speed = trials[0].seconds / trials[0].epochs
                epochs = max(trial.epochs for trial in trials)
                numbers = [str(len(trials)), str(epochs), f"{value:.4f}", f"{speed:.1f}"]
            table.add_row(cell, *numbers, self.status[cell])
        return table


def verdict(plan: Plan, memory: Memory, choice: Choice) -> str:
    """What to use, by the rule of ``halving``, with its evidence."""
    last, metric = choice.last, plan.cfg.trainer.metric
    seeds, epochs = last.round.seeds, last.round.epochs
    values = [memory.trials[choice.best, seed, epochs].value for seed in seeds]
    spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
    n = f"{len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    speed = {cell: _epoch_seconds(memory, cell, seeds) for cell in last.means}
    trained = max(memory.trials[choice.best, seed, epochs].epochs for seed in seeds)
    text = (
        f"Use {choice.best}: valid/{metric} {last.means[choice.best]:.4f}{spread} ({n}, "
        f"{trained} epoch{'s' if trained > 1 else ''}), "
        f"{duration.words(speed[choice.best])} per epoch"
    )
    for cell in choice.equals:
        times = speed[cell] / speed[choice.best]
        text += f"; {cell} is within noise ({last.means[cell]:.4f}), an epoch takes {times:.2f} x"
    return f"{text}."


def _epoch_seconds(memory: Memory, cell: str, seeds: Sequence[int]) -> float:
    trials = [trial for seed in seeds if (trial := memory.latest(cell, seed)) is not None]
    return sum(trial.seconds for trial in trials) / sum(trial.epochs for trial in trials)


def warnings(plan: Plan, memory: Memory, choice: Choice, tested: Tested) -> Iterator[str]:
    """What a person has to know of the choice beside it."""
    last, metric = choice.last, plan.cfg.trainer.metric
    trials = [memory.trials[choice.best, s, last.round.epochs] for s in last.round.seeds]
    if all(trial.rising for trial in trials):
        yield f"{choice.best} was still improving at its last epoch: a larger budget= says more"
    far = {
        cell: max(trial.epochs for s in seeds if (trial := memory.latest(cell, s)) is not None)
        for cell, seeds in tested.items()
    }
    if len(set(far.values())) > 1:
        listed = ", ".join(f"{cell} {epochs}" for cell, epochs in far.items())
        yield f"time or patience ended them at different epochs, tested after: {listed}"
    best = tested[choice.best].values()
    own, popular = ([m[f"{who}/{metric}"] for m in best] for who in ("test", "popularity"))
    if fmean(own) <= fmean(popular):
        yield f"{choice.best} is not better than the popularity ranker: do not deploy it"


def show(plan: Plan, diary: Diary, choice: Choice, tested: Tested, command: str) -> None:
    """The survivors on test, the verdict, and what trains the choice."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    metric = plan.cfg.trainer.metric
    names = list(dict.fromkeys([metric, "hr_10", "ndcg_10", "balance_10"]))
    table = Table(
        title=f"Survivors: {metric} on validation, then test, means over seeds in percent",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for header in ("", "valid", *names, "s / epoch", "seeds"):
        table.add_column(header, justify="right" if header else "left", no_wrap=True)
    for cell, by_seed in tested.items():
        means = [fmean(m.get(f"test/{x}", float("nan")) for m in by_seed.values()) for x in names]
        table.add_row(
            cell,
            f"{100 * choice.last.means[cell]:.2f}",
            *(f"{100 * value:.2f}" for value in means),
            f"{_epoch_seconds(diary.memory, cell, list(by_seed)):.1f}",
            str(len(by_seed)),
        )
    console = Console(highlight=False)
    console.print(table)
    for line in warnings(plan, diary.memory, choice, tested):
        console.print(f"note: {line}", soft_wrap=True, markup=False)
    spent = f"{duration.words(diary.spent())} of {duration.words(diary.budget)}"
    console.print(f"{verdict(plan, diary.memory, choice)} It took {spent}.", soft_wrap=True)
    console.print(f"train it: {command}", soft_wrap=True, markup=False)
