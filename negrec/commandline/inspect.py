"""``negrec inspect``: what a finished run predicts for one user."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from negrec import experiment
from negrec.commandline.trained import trained
from negrec.commandline.typed import Typed
from negrec.errors import InputError, printable
from negrec.evaluation.calibration import probability_sums
from negrec.evaluation.cohorts import COHORTS
from negrec.evaluation.evaluator import batch_of
from negrec.evaluation.ranks import rank, top
from negrec.losses.sampled_softmax import SampledSoftmax
from negrec.losses.softmax import Softmax
from negrec.models.base import SequenceModel
from negrec.objectives.ranking import Ranking
from negrec.types import HeldOut

_SHOWN = 20  # newest items of a history
_HELP = """\
The probability of an item is the sigmoid of its score, as in gSASRec's figure 1 and in the run's
calibration.parquet; for a run with a softmax loss it is the softmax over the catalogue. Exactly one
item comes next: calibrated probabilities sum to 1, and an overconfident model's to far more.
"""


@dataclass(frozen=True)
class Target:
    """A test target: its own id, and where it stood; rank and probability None where it is cold."""

    item: object
    cohort: str
    rank: int | None
    probability: float | None


@dataclass(frozen=True)
class Portrait:
    """What a model predicts for one user.

    Attributes:
        history: own ids and training counts, oldest first.
        items: own ids in the order of the ranking.
        counts: of these, in training.
        scores: of these, descending, (n,).
        probabilities: of these, (n,).
        kind: how a probability is made of a score: "sigmoid" or "softmax".
        total: the sum of the probabilities of the whole catalogue.
        targets: of the test.
    """

    history: list[tuple[object, int]]
    items: list[object]
    counts: list[int]
    scores: Tensor
    probabilities: Tensor
    kind: str
    total: float
    targets: list[Target]


def main(arguments: Sequence[str]) -> int:
    """``negrec inspect run=ID user=USER [top=10]``; 0, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="negrec inspect",
        usage="negrec inspect run=ID user=USER [top=10] [KEY=VALUE ...]",
        description="Shows a user's history, the first items of the ranking, the predicted "
        "probability by rank with its sum, and where the test target stood; draws a figure into "
        "the run's folder.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="run=ID", help="a finished run")
    parser.add_argument("user", metavar="user=USER", help="the user's own id in your data")
    parser.add_argument("top", metavar="top=N", help="items of the ranking that are shown (10)")
    parser.add_argument(
        "more", metavar="KEY=VALUE", help="as for negrec train, such as paths.runs_dir=FOLDER"
    )
    if not arguments or {"-h", "--help"} & set(arguments):
        parser.print_help()
        return 0
    given = Typed.of(arguments)
    run, user, shown = given.value("run"), given.value("user"), given.value("top") or "10"
    if not run or not user:
        raise InputError("a run and a user are needed: negrec inspect run=ID user=USER")
    if not shown.isdecimal() or int(shown) < 1:
        raise InputError(f"top={shown} must be a whole number from 1")
    rest = [word for word in given.words if word.partition("=")[0] not in ("run", "user", "top")]
    found = trained(run, rest, given.flags)
    folder, parts, model = found.folder, found.parts, found.model
    if not any(True for _ in parts.model.parameters()):
        raise InputError(f"run={run} trained nothing: there are no probabilities to look at")
    index = {str(own): i for i, own in enumerate(parts.interactions.user_ids.to_list())}
    if user not in index:
        raise InputError(
            f"there is no user {user} in {parts.interactions.name}; its ids look like "
            f"{', '.join(list(index)[:3])}"
        )
    portrait = draw(parts, model, index[user])
    _print(portrait, user, int(shown))
    path = folder / f"inspect-{re.sub(r'[^A-Za-z0-9._-]', '_', user)}.png"
    save_figure(portrait, f"user {user}, run {run}", path)
    print(f"figure {path}")
    return 0


def draw(parts: experiment.Parts, model: SequenceModel, user: int) -> Portrait:
    """What the model predicts for a user, by index, after the newest history of the test."""
    split, data = parts.split, parts.interactions
    own_ids: list[object] = data.item_ids.gather(split.catalogue).to_list()
    counts = split.info.counts
    part, cohorts = _newest(parts, user)
    history = [item for item in part.select(slice(1)).histories().values.tolist() if item]
    if not history:
        raise InputError(
            f"user {data.user_ids[user]} has no history in the catalogue: nothing to predict from"
        )
    known = HeldOut(
        part.user,
        part.target,
        torch.tensor(history),
        torch.zeros_like(part.start),
        torch.full_like(part.end, len(history)),
    )
    with torch.no_grad():
        scorer = model.scorer.fixed()
        hidden = model.represent(batch_of(known.select(slice(1)), split.info.max_length))
        states = hidden.expand(len(known), -1)
        ranks = rank(states, scorer, known, parts.test.seen)
        items, scores = top(
            states[:1], scorer, known.select(slice(1)), parts.test.seen, scorer.n_items
        )
        listed = items[0] > 0
        order, scores = items[0][listed], scores[0][listed]
        own = scorer.target(states, known.target.clamp(min=1))
        loss = parts.objective.loss if isinstance(parts.objective, Ranking) else None
        if isinstance(loss, Softmax | SampledSoftmax):
            kind, total, tau = "softmax", 1.0, loss.temperature
            norm = (scorer.every(hidden) / tau).logsumexp(1)
            probabilities, of_targets = (scores / tau - norm).exp(), (own / tau - norm).exp()
        else:
            kind, total = "sigmoid", probability_sums(hidden, scorer).item()
            probabilities, of_targets = scores.sigmoid(), own.sigmoid()
    targets = []
    for at, target in enumerate(part.target.tolist()):
        if cohorts is None:  # the user has no test target
            break
        inside = target > 0
        targets.append(
            Target(
                own_ids[target - 1] if inside else None,
                (*COHORTS, "cold")[cohorts[at]],
                int(ranks.greater[at]) + 1 if inside else None,
                of_targets[at].item() if inside else None,
            )
        )
    return Portrait(
        [(own_ids[i - 1], int(counts[i - 1])) for i in history],
        [own_ids[i - 1] for i in order.tolist()],
        counts[order - 1].tolist(),
        scores,
        probabilities,
        kind,
        total,
        targets,
    )


def _newest(parts: experiment.Parts, user: int) -> tuple[HeldOut, Sequence[int] | None]:
    """The test targets after the user's newest history, and their cohorts.

    For a user without a test target: all that was trained on, with target 0, and None.
    """
    test, train = parts.split.test, parts.split.train
    rows = (test.user == user).nonzero()[:, 0]
    if len(rows):
        rows = rows[test.end[rows] == test.end[rows].max()]
        return test.select(rows), [int(parts.test.cohort[row]) for row in rows.tolist()]
    start, end = train.offsets[user : user + 1], train.offsets[user + 1 : user + 2]
    return HeldOut(torch.tensor([user]), torch.zeros_like(start), train.values, start, end), None


def _print(portrait: Portrait, user: str, shown: int) -> None:
    console = Console()
    history = portrait.history[-_SHOWN:]
    earlier = len(portrait.history) - len(history)
    before = f", after {earlier:,} earlier items" if earlier else ""
    table = _table("item", "training count")
    for item, count in history:
        table.add_row(_shown(item), f"{count:,}")
    console.print(f"user {_shown(user)}: history, newest last{before}", table, highlight=False)
    found = {target.item for target in portrait.targets if target.rank is not None}
    table = _table("rank", "item", "training count", "score", "probability", "")
    rows = zip(portrait.items, portrait.counts, strict=True)
    for place, (item, count) in enumerate(list(rows)[:shown]):
        table.add_row(
            str(place + 1),
            _shown(item),
            f"{count:,}",
            f"{portrait.scores[place]:.3f}",
            f"{portrait.probabilities[place]:.4f}",
            "test target" if item in found else "",
        )
    console.print(f"top {shown}", table, highlight=False)
    table = _table("rank", "probability")
    for place in log_spaced(len(portrait.items)):
        table.add_row(f"{place:,}", f"{portrait.probabilities[place - 1]:.6f}")
    console.print("predicted probability by rank", table, highlight=False)
    how = {
        "sigmoid": "the sigmoid of the score",
        "softmax": "the softmax over the catalogue, which the loss trains",
    }[portrait.kind]
    console.print(
        f"a probability is {how}; sum over the catalogue: {portrait.total:,.2f} (calibrated: 1)",
        highlight=False,
    )
    for target in portrait.targets:
        if target.rank is None:
            console.print("test target: outside the catalogue (cold), a miss")
        else:
            console.print(
                f"test target: {_shown(target.item)} ({target.cohort}) at rank {target.rank:,} of "
                f"{len(portrait.items):,}, probability {target.probability:.6f}",
                highlight=False,
            )
    if not portrait.targets:
        console.print("no test target: the user is in the training part only")


def _shown(own: object) -> str:
    """An id of the data as rich prints it, whatever it holds."""
    return escape(printable(str(own)))


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for name in columns:
        table.add_column(name, justify="left" if name in ("item", "") else "right")
    return table


def log_spaced(n: int) -> list[int]:
    """1, 2, 5, 10, 20, 50, ... and n."""
    steps = [m * 10**power for power in range(len(str(n))) for m in (1, 2, 5)]
    return sorted({step for step in steps if step < n} | {n})


def save_figure(portrait: Portrait, title: str, path: Path) -> None:
    """Probability over rank (arXiv:2308.07192, figure 1), with the test targets."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    ranks = range(1, len(portrait.items) + 1)
    axes.plot(ranks, portrait.probabilities.tolist(), label=f"{portrait.kind}(score)")
    warm = [t for t in portrait.targets if t.rank is not None and t.probability is not None]
    if warm:
        axes.plot(
            [t.rank for t in warm if t.rank is not None],
            [t.probability for t in warm if t.probability is not None],
            "o",
            label="test target",
        )
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("rank")
    axes.set_ylabel("predicted probability")
    title = f"{printable(title)}: sum of probabilities {portrait.total:,.2f}"
    axes.set_title(title, parse_math=False)
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
