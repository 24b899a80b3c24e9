"""``negrec bench``: what samplers and losses cost on a person's own data and machine."""

from __future__ import annotations

import csv
import datetime
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from hydra import compose
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from negrec.commandline import configuration, explain, shorthand
from negrec.commandline.console import quiet
from negrec.commandline.typed import Typed
from negrec.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from negrec.data.sequences import Sequences
    from negrec.models.base import SequenceModel
    from negrec.objectives.base import Objective
    from negrec.training.cost import Cost
    from negrec.training.trainer import Trainer
    from negrec.types import DatasetInfo

USAGE = """\
usage: negrec bench [sampler=A,B] [loss=C,D] [steps=30] [rounds=3] [KEY=VALUE ...]

Measures what each sampler costs with each loss: seconds per 1,000 queries, the sampler's share of
them, and peak memory. Each pair is trained for some steps by the trainer itself, in rounds that
take turns. Samplers alone are measured with bce, losses alone with a sampler that fits; without
either it is every sampler and every loss.

  negrec bench                                    on the embedded data
  negrec bench dataset=beauty                     on a named data set
  negrec bench clicks.csv sampler=uniform,genni   on your own table
  negrec bench loss=bce,gbce k=256 sampler.share=sequence trainer.batch_size=128

steps are measured of each pair in all; rounds is how often pairs take turns. Every other KEY=VALUE
is that of `negrec train`, and goes to the pairs that know the key. The table is printed, and saved
as bench.csv and bench.png in the folder for runs (paths.runs_dir).
"""

_GROUPS = ("sampler", "loss")
_BCE = "bce"
_FITS = ("uniform", "full")  # what a loss is measured with: the first that it goes with
# What the baseline, uniform with k=1 and bce, takes nothing of.
_NOT_OF_THE_BASELINE = ("sampler", "loss", "objective", "false_negatives", "k")


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Attributes:
        samplers: options of the group, None where none was named.
        losses: likewise.
        rest: overrides of the training.
        steps: of each pair, in all.
        rounds: in which the pairs take turns.
    """

    samplers: list[str] | None
    losses: list[str] | None
    rest: list[str]
    steps: int = 30
    rounds: int = 3

    @property
    def steps_of_a_round(self) -> int:
        return -(-self.steps // self.rounds)


@dataclass
class Cell:
    """A pair, and what it came to.

    Attributes:
        sampler: as it is shown.
        loss: as it is shown.
        words: the overrides that make its configuration.
        cfg: that configuration.
        refusal: why it cannot be trained; "" where it can.
        costs: of each round.
    """

    sampler: str
    loss: str
    words: list[str]
    cfg: DictConfig
    refusal: str = ""
    costs: list[Cost] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """For 1,000 queries."""
        return median(cost.seconds for cost in self.costs)

    @property
    def sampler_share(self) -> float:
        return median(cost.sampler_share for cost in self.costs)

    @property
    def peak_mb(self) -> float:
        return max(cost.peak_mb for cost in self.costs if cost.peak_mb is not None)

    def times(self, base: Cell) -> float:
        """How many times another cell it costs: the median over rounds, each seen on its own."""
        pairs = zip(self.costs, base.costs, strict=True)
        return median(own.seconds / other.seconds for own, other in pairs)


@dataclass(frozen=True)
class Data:
    """What all cells are trained on."""

    name: str
    info: DatasetInfo
    sequences: Sequences

    @classmethod
    def of(cls, cfg: DictConfig) -> Data:
        """Reads and splits the data of a configuration."""
        from negrec import experiment

        data = experiment.read(cfg)
        split, sequences = experiment.prepare(cfg, data)
        return cls(data.name, sequences.facts(split.info), sequences)


def main(arguments: Sequence[str]) -> int:
    """Runs ``negrec bench ARGUMENTS``; 0, 2 for bad input, 128 + a signal's number."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    from negrec.training.interruption import InterruptedRunError

    try:
        return bench(arguments)
    except InterruptedRunError as error:
        print("negrec: interrupted", file=sys.stderr)
        return 128 + error.signal


def bench(arguments: Sequence[str]) -> int:
    """Measures, prints the table and saves it."""
    from rich.console import Console

    with explain.explained():
        plan = planned(arguments)
        with configuration.opened() as loader:
            baseline, candidates = Composer(plan, loader).cells()
        OmegaConf.to_container(baseline.cfg, resolve=True, throw_on_missing=True)
        data = Data.of(baseline.cfg)
        cells = [fitting(data, some) for some in candidates]
        reasons = [refusal(data, baseline), *(cell.refusal for cell in cells)]
        if reasons[0] or all(reasons[1:]):
            raise InputError(reasons[0] or reasons[1])
        same = [cell for cell in cells if cell.cfg == baseline.cfg]
        baseline, cells = (same[0], cells) if same else (baseline, [baseline, *cells])
        folder = _folder(data, baseline.cfg)  # refused before anybody has waited
        try:
            measure([cell for cell in cells if not cell.refusal], data, plan)
            if baseline.refusal:
                raise InputError(baseline.refusal)
        except BaseException:
            folder.rmdir()
            raise
    title = _title(data, baseline.cfg, plan)
    save(cells, baseline, folder / "bench.csv")
    picture(cells, baseline, title, folder / "bench.png")
    console = Console(highlight=False)
    console.print(table(cells, baseline, title))
    console.print(f"bench.csv and bench.png are in {folder}", soft_wrap=True)
    return 0


# ---- what is measured


def planned(arguments: Sequence[str]) -> Plan:
    """The words, told apart.

    Raises:
        InputError: naming the word that cannot be meant.
    """
    typed = Typed.of(arguments)
    if typed.flags:
        raise InputError(
            f"bench has no {typed.flags[0]} (negrec bench --help); options of your own are found "
            f"in the folders of {configuration.USER_FOLDERS}"
        )
    if typed.value("run") is not None:
        raise InputError("bench measures settings, not a run: leave out run=")
    counts = {key: _positive(typed, key) for key in ("steps", "rounds")}
    words = tuple(word for word in typed.words if word.partition("=")[0] not in counts)
    chosen: dict[str, list[str]] = {}
    rest = []
    expanded = shorthand.expand(Typed((), words)).words
    with configuration.opened() as loader:
        for override in OverridesParser.create(loader).parse_overrides(list(expanded)):
            key = override.get_key_element()
            if key in _GROUPS:
                chosen[key] = _choices(override, loader)
            elif override.is_sweep_override():
                raise InputError(f"{override.input_line}: only sampler and loss take several")
            else:
                rest.append(str(override.input_line))
    given = {key: value for key, value in counts.items() if value is not None}
    return Plan(chosen.get("sampler"), chosen.get("loss"), rest, **given)


def _positive(typed: Typed, key: str) -> int | None:
    if len([word for word in typed.words if word.startswith(f"{key}=")]) > 1:
        raise InputError(f"{key} is given twice: keep one of them")
    text = typed.value(key)
    if text is not None and not re.fullmatch("[1-9][0-9]*", text):
        raise InputError(f"{key} must be a whole number of at least 1, got {key}={text}")
    return None if text is None else int(text)


def _choices(override: Override, loader: ConfigLoader) -> list[str]:
    """The options that a word names, each once.

    Raises:
        InputError: one of them does not exist.
    """
    several = override.is_sweep_override()
    names = override.sweep_string_iterator() if several else [override.value()]
    group, found = override.get_key_element(), list(dict.fromkeys(map(str, names)))
    for name in found:
        if name not in loader.get_group_options(group):
            _composed([f"{group}={name}"])  # refused as `train` refuses it
    return found


def _composed(words: Sequence[str]) -> DictConfig:
    """The configuration of a training, while Hydra is open."""
    try:
        return compose(configuration.CONFIG_NAME, list(words))
    except Exception as error:
        raise explain.NotComposedError(words, error) from error


class Composer:
    """Makes cells of a plan, while Hydra is open.

    Args:
        plan: what was asked for.
        loader: Hydra's.
    """

    def __init__(self, plan: Plan, loader: ConfigLoader) -> None:
        self.plan = plan
        self.options = {group: sorted(loader.get_group_options(group)) for group in _GROUPS}
        overrides = OverridesParser.create(loader).parse_overrides(plan.rest)
        self.groups = [o for o in overrides if loader.get_group_options(str(o.key_or_group))]
        self.values = [o for o in overrides if o not in self.groups]
        self.used: set[str] = set()

    def cells(self) -> tuple[Cell, list[list[Cell]]]:
        """The baseline, and each cell as a list of what it may be: the first that fits."""
        cells = [[self.cell(sampler, loss) for sampler in some] for some, loss in self.pairs()]
        for line in _lines(self.values):
            if line not in self.used:  # refused as `train` refuses it
                _composed([*cells[0][0].words, line])
        return self.baseline(), cells

    def pairs(self) -> list[tuple[Sequence[str], str]]:
        """Samplers to choose from, and a loss, for each cell."""
        samplers, losses = self.plan.samplers, self.plan.losses
        if samplers is not None and losses is not None:
            return [([sampler], loss) for sampler in samplers for loss in losses]
        found: list[tuple[Sequence[str], str]] = []
        if losses is None:
            found += [([sampler], _BCE) for sampler in samplers or self.options["sampler"]]
        if samplers is None:
            others = [loss for loss in self.options["loss"] if loss != _BCE]
            found += [(_FITS, loss) for loss in losses or others]
        return found

    def cell(self, sampler: str, loss: str) -> Cell:
        """With all that the plan sets and this pair knows."""
        words = [f"sampler={sampler}", f"loss={loss}", *_lines(self.groups)]
        words, cfg = self.with_known(words, self.values)
        self.used.update(words)
        if cfg.get("mining_start") == "plateau":
            raise InputError(
                "mining_start=plateau does not come within the few steps of a benchmark: add "
                "mining_start=0 to measure false-negative mining, or a teacher"
            )
        return Cell(sampler, loss, words, cfg)

    def baseline(self) -> Cell:
        """Uniform with k=1 and bce, on the same data with the same model and trainer."""

        def shared(override: Override) -> bool:
            part = re.split("[./@]", str(override.key_or_group))[0]
            return part not in _NOT_OF_THE_BASELINE

        words = ["sampler=uniform", "sampler/false_negatives=none", f"loss={_BCE}"]
        words += ["objective=ranking", *_lines(filter(shared, self.groups)), "k=1"]
        words, cfg = self.with_known(words, [*filter(shared, self.values)])
        return Cell("uniform, k=1", _BCE, words, cfg)

    def with_known(self, words: list[str], values: list[Override]) -> tuple[list[str], DictConfig]:
        """The words with the overrides whose keys their parts have, and what they make."""
        cfg = _composed(words)
        # What is added or deleted is Hydra's to judge.
        known = _lines(
            override
            for override in values
            if override.is_add()
            or override.is_delete()
            or configuration.has_key(cfg, str(override.key_or_group))
        )
        return (words + known, _composed(words + known)) if known else (words, cfg)


def _lines(overrides: Iterable[Override]) -> list[str]:
    return [str(override.input_line) for override in overrides]


def fitting(data: Data, candidates: list[Cell]) -> Cell:
    """The first of the cells that can be trained, or the last where none can."""
    for cell in candidates:
        cell.refusal = refusal(data, cell)
        if not cell.refusal:
            return cell
    return candidates[-1]


def refusal(data: Data, cell: Cell) -> str:
    """Why the parts of a cell do not go together; "" where they do."""
    try:
        instantiate(cell.cfg.objective)(data.info, data.sequences)
    except Exception as error:
        line = explain.inside_a_job(error)
        if line is None:
            raise
        return re.sub(r"^.* does not go with sampler [^:]*: ", "", line)
    return ""


def measure(cells: list[Cell], data: Data, plan: Plan) -> None:
    """Trains the cells in turns, forwards and backwards, so that drift is shared by all."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=(console := Console(stderr=True)),
        transient=True,
        disable=not console.is_terminal,
    )
    with quiet(), progress:
        task = progress.add_task("", total=plan.rounds * len(cells))
        for turn in range(plan.rounds):
            for cell in cells if turn % 2 == 0 else cells[::-1]:
                progress.update(task, description=f"{cell.sampler} + {cell.loss}".ljust(34))
                if not cell.refusal:
                    _take_turn(cell, data, plan.steps_of_a_round)
                progress.advance(task)


def _take_turn(cell: Cell, data: Data, steps: int) -> None:
    try:
        cost = cost_of(cell.cfg, data, steps)
    except Exception as error:  # a model that cannot be built, a loss that is not finite
        line = explain.inside_a_job(error)
        if line is None:
            raise
        cell.refusal = line
        return
    if cost is None:
        raise InputError("this model has nothing to train: there is nothing to measure")
    if cost.peak_mb is None:
        peak = cell.costs[0].peak_mb if cell.costs else _in_a_fresh_process(cell.words, steps)
        cost = replace(cost, peak_mb=peak)
    cell.costs.append(cost)


def cost_of(cfg: DictConfig, data: Data, steps: int) -> Cost | None:
    """What some steps of a configuration cost; None where there is nothing to train."""
    import torch

    from negrec.training import cost

    def build() -> tuple[Trainer, SequenceModel, Objective]:
        torch.manual_seed(cfg.seed)
        model = instantiate(cfg.model)(data.info)
        objective = instantiate(cfg.objective)(data.info, data.sequences)
        return _trainer(cfg, data), model, objective

    return cost.measure(build, steps)


def _trainer(cfg: DictConfig, data: Data) -> Trainer:
    trainer: Trainer = instantiate(
        cfg.trainer,
        max_epochs=3,
        evaluate_every=3,
        progress=False,
        checkpoint_minutes=math.inf,
    )(data.sequences, cfg.seed)
    return trainer


def _in_a_fresh_process(words: list[str], steps: int) -> float:
    context = get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_peak_of, words, steps).result()


def _peak_of(words: list[str], steps: int) -> float:
    """The peak memory of this process, which does nothing else than train."""
    from negrec.training.cost import lifetime_peak_mb

    with configuration.opened():
        cfg = _composed(words)
    data = Data.of(cfg)
    with quiet():
        cost_of(cfg, data, steps)
    return lifetime_peak_mb(_trainer(cfg, data).device)


# ---- what is shown and saved

_COLUMNS = (
    *("sampler", "loss", "seconds_per_1000_queries", "least", "most", "times_baseline"),
    *("sampler_share", "peak_mb", "refused"),
)
_HEADERS = ("sampler", "loss", "s / 1,000", "times", "sampling", "peak MB")


def table(cells: list[Cell], baseline: Cell, title: str) -> Table:
    """What was measured, a row for each cell."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption="\n".join(_notes(cells)),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for header in _HEADERS:
        table.add_column(header, justify="left" if header in _GROUPS else "right", no_wrap=True)
    for cell in cells:
        if cell.refusal:
            table.add_row(cell.sampler, cell.loss, "refused", style="dim")
            continue
        table.add_row(
            cell.sampler,
            cell.loss,
            f"{cell.seconds:.4f}",
            f"{cell.times(baseline):.2f}",
            f"{cell.sampler_share:.0%}",
            f"{cell.peak_mb:,.0f}",
        )
    return table


def _notes(cells: list[Cell]) -> Iterator[str]:
    from negrec.training.cost import MEMORY

    yield (
        "s / 1,000: seconds of training for 1,000 queries, the median of the rounds; times: that "
        "of uniform with k=1 and bce; sampling: the sampler's share of the step; peak MB: "
        f"{MEMORY}"
    )
    for cell in cells:
        if cell.refusal:
            yield f"refused: {cell.sampler} with {cell.loss}: {cell.refusal}"


def save(cells: list[Cell], baseline: Cell, path: Path) -> None:
    """Writes the table as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(_COLUMNS)
        for cell in cells:
            measured: list[str] = [""] * 6
            if not cell.refusal:
                seconds = [cost.seconds for cost in cell.costs]
                numbers = [cell.seconds, min(seconds), max(seconds), cell.times(baseline)]
                measured = [f"{x:.6g}" for x in (*numbers, cell.sampler_share, cell.peak_mb)]
            rows.writerow([cell.sampler, cell.loss, *measured, cell.refusal])


def picture(cells: list[Cell], baseline: Cell, title: str, path: Path) -> None:
    """Draws times and memory, a bar for each cell."""
    from matplotlib.figure import Figure

    shown = [cell for cell in cells if not cell.refusal][::-1]  # the first one on top
    names = [f"{cell.sampler} + {cell.loss}" for cell in shown]
    figure = Figure(figsize=(10, 1.6 + 0.32 * len(shown)), layout="constrained")
    time, memory = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    times = [cell.times(baseline) for cell in shown]
    of_sampler = [cell.sampler_share * t for cell, t in zip(shown, times, strict=True)]
    rest = [t - part for t, part in zip(times, of_sampler, strict=True)]
    time.barh(names, of_sampler, color="tab:orange", label="sampler")
    bars = time.barh(names, rest, left=of_sampler, color="tab:blue", label="rest of the step")
    time.bar_label(bars, [f"{t:.2f}" for t in times], padding=3)
    time.axvline(1, color="lightgrey", zorder=0)
    time.set_xlabel("time of a step, uniform with k=1 and bce = 1")
    time.margins(x=0.12)
    time.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False)
    peaks = [cell.peak_mb for cell in shown]
    memory.bar_label(
        memory.barh(names, peaks, color="tab:grey"), [f"{x:,.0f}" for x in peaks], padding=3
    )
    memory.set_xlabel("peak memory, MB")
    memory.margins(x=0.25)
    figure.suptitle(title, fontsize="medium")
    figure.savefig(path, dpi=120)


def _title(data: Data, cfg: DictConfig, plan: Plan) -> str:
    trainer = _trainer(cfg, data)
    where = f"CPU, threads={trainer.threads}" if trainer.device.type == "cpu" else trainer.device
    return (
        f"{data.name}: {data.info.n_items:,} items, {len(data.sequences):,} sequences in batches "
        f"of {trainer.loader.batch_size}; {where}; rounds={plan.rounds}, "
        f"steps={plan.steps_of_a_round * plan.rounds}"
    )


def _folder(data: Data, cfg: DictConfig) -> Path:
    """A new folder beside the runs."""
    now = datetime.datetime.now()
    name = f"{now:%H-%M-%S}_bench-{data.name}_{now:%f}"
    folder = Path(cfg.paths.runs_dir) / f"{now:%Y-%m-%d}" / name
    folder.mkdir(parents=True)
    return folder
