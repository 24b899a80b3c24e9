"""``negrec choose``: which sampler for a person's data, within a person's time."""

from __future__ import annotations

import json
import logging
import math
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from filelock import FileLock, Timeout
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from negrec import identity
from negrec.commandline import configuration, explain, shorthand
from negrec.commandline.candidates import (
    Candidate,
    composed,
    listed,
    read_candidates,
    without_hydra,
)
from negrec.commandline.choose_screen import Screen, show
from negrec.commandline.typed import Typed, name, parsed
from negrec.errors import InputError
from negrec.sweeping import duration
from negrec.sweeping.halving import CandidateError, Choice, Halving, Memory, Trial
from negrec.sweeping.record import Order, Record
from negrec.writing import replacing

if TYPE_CHECKING:
    from negrec.data.interactions import Interactions
    from negrec.experiment import RunResult

USAGE = """\
usage: negrec choose [TABLE] [budget=1h] [seeds=3] [sampler=A,B] [loss=C,D] [KEY=VALUE ...]

Finds the sampler for your data within your time. Many candidates train for a few epochs with one
seed; the better ones go on, with more epochs and more seeds; the last ones are tested, once. What
is dropped, and why, is said at each round. The choice is made on validation.

  negrec choose clicks.parquet budget=8h            your own table
  negrec choose dataset=beauty budget=30m           a named data set
  negrec choose clicks.csv sampler=uniform,genni loss=bce,gbce budget=90m

budget is the time for all of it: 90s, 30m, 8h, 2d. The same command again goes on where an earlier
one stopped, and counts the time that it took. seeds is what the last candidates get where there is
time. Candidates are those of choose.yaml, which your own choose.yaml in a folder of NEGREC_CONF_DIR
adds to; sampler= takes those of some samplers, loss= tries each with other losses. Where there are
timestamps and no split= is given, the split is by time. Every other KEY=VALUE is that of
`negrec train`, and goes to the candidates that know the key; trainer.max_epochs is the longest that
anything trains, sweep.name the folder's name.
"""

_FILE_NAME = "choose.json"
_LOCK = "choose.lock"
_SEEDS = 3
_BUDGET = "1h"
# Not part of what is chosen: the data, and where and how a run goes.
_OF_THE_COMMAND = re.compile(
    r"dataset|paths|tracking|diagnostics|seed$|sweep|hydra|trainer\.(device|threads|progress|checkpoint)"
)
_MANY = ("sampler", "loss")


@dataclass(frozen=True)
class Asked:
    """A command, told apart.

    Attributes:
        command: as it was typed.
        table: the word for a table, as it was typed; None for a named data set.
        budget: seconds.
        n_seeds: for the survivors.
        samplers: that were named; None: all candidates.
        losses: likewise; None: each candidate's own.
        rest: overrides of the training.
        split: whether the command, or a file it names, chooses one.
    """

    command: str
    table: str | None
    budget: float
    n_seeds: int
    samplers: list[str] | None
    losses: list[str] | None
    rest: tuple[str, ...]
    split: bool


@dataclass(frozen=True)
class Plan:
    """What will be done.

    Attributes:
        asked: the command.
        candidates: by name.
        data: what they are trained on.
        folder: of the choice.
        key: hash of what determines the result.
    """

    asked: Asked
    candidates: Mapping[str, Candidate]
    data: Interactions
    folder: Path
    key: str

    @property
    def cfg(self) -> DictConfig:
        """Of the first candidate, for what all have in common."""
        return next(iter(self.candidates.values())).cfg

    @property
    def seeds(self) -> range:
        return range(self.cfg.seed, self.cfg.seed + self.asked.n_seeds)


def main(arguments: Sequence[str]) -> int:
    """Runs ``negrec choose ARGUMENTS``; 0, 2 for bad input, 128 + a signal's number."""
    if {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return 0
    from negrec.training.interruption import InterruptedRunError, exit_code

    try:
        choose(arguments)
    except (InterruptedRunError, KeyboardInterrupt) as error:
        again = shlex.join(["negrec", "choose", *arguments])
        print(f"negrec: interrupted, and saved; `{again}` goes on", file=sys.stderr)
        return exit_code(error)
    return 0


def choose(arguments: Sequence[str]) -> None:
    """Chooses, tests what is left, and writes down what was found.

    Raises:
        InputError: the command, the data or the budget cannot be used.
    """
    with explain.explained():
        plan = planned(understood(arguments))
        plan.folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(plan.folder), Diary(plan) as diary, Screen(plan, diary) as screen:
        runner = Runner(plan, diary.memory)
        trainers = [candidate.cfg.trainer for candidate in plan.candidates.values()]
        choice = Halving(
            tuple(plan.candidates),
            plan.seeds,
            diary.budget,
            max(trainer.max_epochs for trainer in trainers),
            runner.train,
            diary.spent,
            diary.memory,
            screen,
            every=math.lcm(*(trainer.evaluate_every for trainer in trainers)),
        ).run()
        tested = {cell: measured(runner, choice, cell, screen) for cell in choice.survivors}
        write_chosen(plan, choice)
        diary.finish(choice.best)
    show(plan, diary, choice, tested, command(plan, choice))
    write_report(plan)


# ---- what was asked for


def understood(arguments: Sequence[str]) -> Asked:
    """The words, told apart.

    Raises:
        InputError: naming the word that cannot be meant.
    """
    typed = Typed.of(arguments)
    if typed.flags:
        raise InputError(
            f"choose has no {typed.flags[0]} (negrec choose --help); options of your own are found "
            f"in the folders of {configuration.USER_FOLDERS}"
        )
    for key, why in (
        ("run", "choose compares settings, and goes on when its own command is typed again"),
        ("experiment", "candidates set sampler and loss themselves: name them in choose.yaml"),
    ):
        if typed.value(key) is not None:
            raise InputError(f"choose has no {key}=: {why}")
    own = ("budget", "seeds")
    for key in own:
        if len([word for word in typed.words if word.startswith(f"{key}=")]) > 1:
            raise InputError(f"{key} is given twice: keep one of them")
    try:
        budget = duration.parse(typed.value("budget") or _BUDGET)
    except InputError as error:
        raise InputError(f"budget: {error}") from error
    n_seeds = typed.value("seeds") or str(_SEEDS)
    if not re.fullmatch("[1-9][0-9]*", n_seeds):
        raise InputError(f"seeds must be a whole number of at least 1, got seeds={n_seeds}")
    words = tuple(word for word in typed.words if word.partition("=")[0] not in own)
    expanded = shorthand.expand(Typed((), words))
    table = [word for word in words if word not in expanded.words]
    rest, many = [], {}
    for override in parsed(expanded.words):
        if name(override) in _MANY:
            many[name(override)] = _several(override)
        elif override.is_sweep_override():
            raise InputError(f"{override.input_line}: only sampler and loss take several")
        else:
            rest.append(str(override.input_line))
    split = expanded.value("split") is not None or configuration.overridden(
        "split", Typed((), tuple(rest))
    )
    return Asked(
        shlex.join(["negrec", "choose", *arguments]),
        table[0] if table else None,
        budget,
        int(n_seeds),
        many.get("sampler"),
        many.get("loss"),
        tuple(rest),
        split,
    )


def _several(override: Override) -> list[str]:
    names = override.sweep_string_iterator() if override.is_sweep_override() else [override.value()]
    return list(dict.fromkeys(map(str, names)))


def planned(asked: Asked) -> Plan:
    """The candidates on the data, all composed.

    Raises:
        InputError: something does not exist, or there is nothing to choose from.
    """
    from negrec import experiment
    from negrec.data.interactions import recommended

    with configuration.opened():
        rest = list(asked.rest)
        of_data = [o for o in parsed(rest) if re.match("dataset|paths", name(o))]
        cfg, _ = without_hydra([str(override.input_line) for override in of_data])
        data = experiment.read(cfg)
        if not asked.split:
            split = recommended(data).split
            are = "no timestamps" if data.timestamp is None else "timestamps"
            print(f"split={split}, since there are {are}")
            rest.append(f"split={split}")
        candidates = composed(listed(read_candidates(), asked.samplers, asked.losses), rest)
    if len(candidates) < 2:
        raise InputError(
            f"there is one candidate, {next(iter(candidates))}: name more with sampler=A,B or "
            "loss=C,D; `negrec train` trains one"
        )
    cfg = next(iter(candidates.values())).cfg
    if cfg.trainer.schedule != "constant":
        raise InputError(
            f"trainer.schedule={cfg.trainer.schedule} depends on the last epoch, which choose "
            "does not know beforehand: leave it out"
        )
    keys = [[cell, experiment.key(made.cfg, data)] for cell, made in candidates.items()]
    key = identity.digest([keys, asked.n_seeds])
    folder = cfg.sweep.name or f"choose-{data.name}-{key[:8]}"
    return Plan(asked, candidates, data, Path(cfg.paths.runs_dir) / folder, key)


# ---- what is done


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InputError(f"another process is choosing in {folder}: let it end") from error
    try:
        yield
    finally:
        lock.release()


class Diary:
    """What a choice remembers between processes, in ``choose.json``.

    A choice that is finished stays what it is: its survivors were tested. One that is not may be
    given another budget.

    Args:
        plan: what is to be done.

    Attributes:
        memory: of the algorithm.
        budget: seconds.
        before: of these, spent by earlier processes.
        chosen: the candidate, once everything is done.

    Raises:
        InputError: the folder belongs to something else, or the file is damaged.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.path = plan.folder / _FILE_NAME
        self.memory = Memory()
        self.budget, self.before = plan.asked.budget, 0.0
        self.chosen: str | None = None
        self.started = time.monotonic()
        if not self.path.exists():
            if [path for path in plan.folder.iterdir() if path.name != _LOCK]:
                raise InputError(f"{plan.folder} holds something else: choose another sweep.name")
            return
        try:
            saved = json.loads(self.path.read_bytes())
            key, self.before = saved["key"], float(saved["spent"])
            self.chosen = saved["chosen"]
            self.budget = float(saved["budget"]) if self.chosen else self.budget
            self.memory = Memory.of(saved)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.path} is damaged: choose another sweep.name") from error
        if key != plan.key:
            raise InputError(
                f"{plan.folder} holds another choice, `{saved.get('command')}`: choose another "
                "sweep.name"
            )

    def spent(self) -> float:
        """Seconds of the budget that are gone; of a finished choice, what it took."""
        now = 0.0 if self.chosen else time.monotonic() - self.started
        return self.before + now

    def __enter__(self) -> Diary:
        order = Order(self.plan.asked.command)
        Record(self.plan.folder.name, (order,)).write(self.plan.folder)
        self.save()
        return self

    def __exit__(self, *error: object) -> None:
        self.save()

    def finish(self, chosen: str) -> None:
        """Everything is done."""
        self.before, self.chosen = self.spent(), chosen

    def save(self) -> None:
        """Atomically: a killed process leaves the old file or the new one."""
        saved: dict[str, object] = {
            "key": self.plan.key,
            "command": self.plan.asked.command,
            "budget": self.budget,
            "spent": self.spent(),
            "chosen": self.chosen,
            "candidates": {c: made.words for c, made in self.plan.candidates.items()},
            **self.memory.as_dict(),
        }
        with replacing(self.path) as file:
            file.write_text(json.dumps(saved, indent=1) + "\n", encoding="utf-8")


class Runner:
    """Trains and tests candidates, each with its seed in a folder of its own.

    Args:
        plan: what is to be done.
        memory: what was done.
    """

    def __init__(self, plan: Plan, memory: Memory) -> None:
        self.plan = plan
        self.memory = memory

    def train(self, cell: str, seed: int, epochs: int) -> Trial:
        """See ``halving.Train``."""
        from negrec.training.interruption import InterruptedRunError

        started = time.monotonic()
        before = self.memory.latest(cell, seed)
        try:
            fit = self.run(cell, seed, epochs, test=False).fit
        except InterruptedRunError:
            raise
        except Exception as error:  # nothing that befalls one candidate may stop the others
            why = explain.inside_a_job(error) or f"{type(error).__name__}: {error}"
            raise CandidateError(explain.one_line(why)) from error
        if not fit.epochs:
            raise CandidateError("this model has nothing to train")
        seconds = time.monotonic() - started
        training = fit.seconds - (before.seconds if before else 0.0)
        return Trial(
            fit.best_value,
            fit.epochs,
            fit.seconds,
            overhead=max(seconds - training, 0.0),
            converged=fit.epochs < epochs,
            rising=not fit.converged,
        )

    def run(self, cell: str, seed: int, epochs: int, test: bool) -> RunResult:
        """The run of a candidate and a seed, from where it stands."""
        from negrec import experiment

        candidate, folder = self.plan.candidates[cell], self.folder(cell, seed)
        cfg = candidate.cfg.copy()
        cfg.seed, cfg.trainer.max_epochs, cfg.trainer.progress = seed, epochs, False
        changed = ("seed=", "trainer.max_epochs=", "trainer.progress=")
        words = [word for word in candidate.words if not word.startswith(changed)]
        words += [f"seed={seed}", f"trainer.max_epochs={epochs}"]
        folder.mkdir(exist_ok=True)
        with _logged(folder / "train.log"):
            return experiment.run(
                cfg, folder, words, self.plan.folder.name, candidate.choices, test=test
            )

    def folder(self, cell: str, seed: int) -> Path:
        return self.plan.folder / f"{cell}-s{seed}"


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """A run's log goes to its file alone."""
    log = logging.getLogger("negrec")
    level, propagate = log.level, log.propagate
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    except Exception:
        log.exception("this run failed")
        raise
    finally:
        log.removeHandler(handler)
        handler.close()
        log.setLevel(level)
        log.propagate = propagate


def measured(
    runner: Runner, choice: Choice, cell: str, screen: Screen
) -> dict[int, dict[str, float]]:
    """The final metrics of a survivor by seed; the test targets are looked at once."""
    found = {}
    for seed in choice.last.round.seeds:
        file = runner.folder(cell, seed) / "results.json"
        metrics = json.loads(file.read_bytes())["metrics"]
        if not any(key.startswith("test/") for key in metrics):
            screen.line(f"testing {cell}, seed {seed}")
            # All with the same longest training: runs of one setting, as a report sees them.
            runner.run(cell, seed, choice.last.round.epochs, test=True)
            metrics = json.loads(file.read_bytes())["metrics"]
        found[seed] = {key: value for key, value in metrics.items() if value is not None}
    return found


# ---- what is left behind


def write_chosen(plan: Plan, choice: Choice) -> None:
    """Writes ``experiment/chosen.yaml``, which makes ``+experiment=chosen``."""
    path = plan.folder / "experiment" / "chosen.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(chosen_yaml(plan, choice), encoding="utf-8")


def chosen_yaml(plan: Plan, choice: Choice) -> str:
    """The overrides of the choice as a configuration file."""
    defaults: list[dict[str, str]] = []
    values: dict[str, Any] = {}
    groups = plan.candidates[choice.best].choices
    for override in _of_the_setting(plan.candidates[choice.best]):
        key = str(override.key_or_group)
        if key in groups:
            defaults.append({f"override /{key}": str(override.value())})
            continue
        node = values
        *parents, last = key.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = override.value()
    lines = [
        "# @package _global_",
        f"# {choice.best}, chosen by `{plan.asked.command}` on {plan.data.name}.",
        yaml.safe_dump({"defaults": defaults}, sort_keys=False).rstrip(),
    ]
    if values:
        lines += ["", yaml.safe_dump(values, sort_keys=False).rstrip()]
    return "\n".join(lines) + "\n"


def _of_the_setting(candidate: Candidate) -> list[Override]:
    return [o for o in parsed(candidate.words) if _in_a_file(o)]


def _in_a_file(override: Override) -> bool:
    """Whether chosen.yaml says it; what it cannot or should not say is part of the command."""
    sayable = not override.is_delete() and override.package is None
    return sayable and not _OF_THE_COMMAND.match(str(override.key_or_group))


def write_report(plan: Plan) -> None:
    """The report of the survivors' runs, where their metrics make one."""
    from negrec.reporting import report
    from negrec.reporting.runs import find

    folder = plan.folder / "report"
    try:
        report.write(find(plan.folder.parent, [plan.folder.name]), folder)
    except InputError as error:
        print(f"no report: {error}")
    else:
        print(f"report {folder / 'report.html'}")


def command(plan: Plan, choice: Choice) -> str:
    """What trains the choice from the start."""
    candidate = plan.candidates[choice.best]
    rest = [str(o.input_line) for o in parsed(candidate.words) if not _in_a_file(o)]
    if plan.asked.table is not None:
        rest = [w for w in rest if w != "dataset=file" and not w.startswith("dataset.path=")]
        rest.insert(0, plan.asked.table)
    rest = [word for word in rest if not word.startswith("sweep.")]
    folder = str(plan.folder)
    return shlex.join(["negrec", "train", *rest, "+experiment=chosen", "--config-dir", folder])
