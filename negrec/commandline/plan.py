"""What a command with ``-m`` will run, before it runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from negrec import identity
from negrec.commandline import configuration
from negrec.commandline.typed import Typed, name, parsed
from negrec.errors import InputError
from negrec.sweeping import jobs
from negrec.sweeping.jobs import Retry

# What of the configuration a sweep needs for itself, and what makes no other sweep of a command.
_AROUND = ("sweep", "paths", "tracking", "hydra")
_GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"

# What changes the data or the ruler; settings that differ in it cannot be compared.
_MEASURED = ("dataset.", "split", "evaluation", "targets", "trainer.metric")


@dataclass(frozen=True)
class Plugin:
    """A launcher or sweeper that is not Hydra's own.

    Attributes:
        module: in ``hydra_plugins``.
        extra: of negrec that brings it; None where it is always there.
        settings: what a sweep needs where the plugin's own default is another.
    """

    module: str
    extra: str | None
    settings: tuple[str, ...] = ()


_PLUGINS = {
    "hydra/launcher": {
        # A job that is handed out early cannot be taken back.
        "joblib": Plugin(
            "hydra_joblib_launcher",
            None,
            ("hydra.launcher.pre_dispatch=n_jobs", "hydra.launcher.batch_size=1"),
        ),
        # A cluster that exists already refuses the size of its memory.
        "ray": Plugin(
            "hydra_ray_launcher",
            "ray",
            (
                "+hydra.launcher.ray.init.object_store_memory=null",
                "+hydra.launcher.ray.remote.num_cpus=1",
            ),
        ),
        # Minutes; what takes longer goes on when typed again. Jobs start all at once.
        "submitit_local": Plugin(
            "hydra_submitit_launcher",
            "slurm",
            ("hydra.launcher.timeout_min=1440", "+hydra.job.env_set.OMP_NUM_THREADS='1'"),
        ),
        "submitit_slurm": Plugin(
            "hydra_submitit_launcher", "slurm", ("hydra.launcher.timeout_min=1440",)
        ),
    },
    "hydra/sweeper": {
        # Seeded, so that the same command draws the same and finds what is done.
        "optuna": Plugin(
            "hydra_optuna_sweeper",
            "optuna",
            (
                "hydra.sweeper.direction=maximize",
                "hydra.sweeper.sampler.seed=0",
                "hydra.sweeper.n_jobs=1",
                "hydra.sweeper.max_failure_rate=1.0",
            ),
        ),
    },
}


@dataclass(frozen=True)
class Cell:
    """Jobs that differ in their seed only.

    Attributes:
        label: for people: what the sweep varies.
        cfg: the configuration, of the first seed.
        key: hash of what determines the results, the seed left out.
        jobs: of each seed the overrides and the folder's name.
    """

    label: str
    cfg: DictConfig
    key: str
    jobs: Mapping[int, tuple[tuple[str, ...], str]]


@dataclass(frozen=True)
class Sweep:
    """A sweep before its jobs run.

    Attributes:
        typed: the command as it is launched.
        command: the command as a person typed it.
        frame: the configuration of what stands around the jobs.
        name: of its folder and of its run in the tracking store.
        axes: the keys that it varies.
        cells: what is run; of a search one example.
        searches: whether a sweeper decides on the way what is run.
    """

    typed: Typed
    command: str
    frame: DictConfig
    name: str
    axes: tuple[str, ...]
    cells: tuple[Cell, ...]
    searches: bool

    @property
    def folder(self) -> Path:
        """Where its jobs lie, absolute: workers may have been started elsewhere."""
        return Path(str(self.frame.hydra.sweep.dir)).absolute()

    @property
    def folders(self) -> list[str]:
        """Of all jobs; none of a search."""
        if self.searches:
            return []
        return [folder for cell in self.cells for _, folder in cell.jobs.values()]

    @property
    def total(self) -> int:
        """How many jobs there are."""
        return int(self.frame.hydra.sweeper.n_trials) if self.searches else len(self.folders)

    def is_open(self, folder: str) -> bool:
        """Whether a job is to run, as far as its folder tells."""
        past, retry = jobs.look(self.folder / folder), self.frame.sweep.retry
        if past.status == "FINISHED":
            return bool(retry == "all")
        return not (past.status == "FAILED" and retry == "none")


def planned(typed: Typed) -> Sweep:
    """The jobs of a command, all composed, none begun.

    Raises:
        InputError: an extra is missing, or a name cannot be a folder's.
        HydraException, OmegaConfBaseException: a job does not compose.
    """
    command = shlex.join(["negrec", "train", *typed.arguments])
    require_plugins(typed)
    with configuration.opened(typed.flag("--config-path")) as loader:
        typed = with_settings(typed, _frame(typed))
        frame = _frame(typed)
        if frame.sweep.retry not in get_args(Retry):
            raise InputError(f"sweep.retry must be failed, all or none, got {frame.sweep.retry}")
        own = frame.hydra.sweeper.get("params") or {}
        # An experiment file may name axes of its own; what is typed goes before them.
        words = [f"{key}={value}" for key, value in own.items() if typed.value(key) is None]
        words += [w for w in typed.words if not is_about(w, "hydra")]
        overrides = OverridesParser.create(loader).parse_overrides(words)
        axes = tuple(name(o) for o in overrides if o.is_sweep_override())
        if frame.sweep.tune:
            _refuse_to_tune(axes, loader)
        searches = frame.hydra.sweeper._target_ != _GRID
        if searches:
            overrides = [o for o in overrides if not o.is_sweep_override()]
        every = _jobs(overrides)
        hydras = [w for w in typed.words if is_about(w, "hydra")]
        cells = tuple(
            _cell([*configuration.search(typed), *hydras], list(words), seeds, {*axes} - {"seed"})
            for words, seeds in every.items()
        )
        title = frame.sweep.name or _title(typed, words, cells, loader)
    if frame.sweep.tune and any(cell.cfg.hydra.runtime.choices.dataset == "file" for cell in cells):
        raise InputError(
            "sweep.tune keeps values by the name of the data, and dataset=file is any table: write "
            "yours into dataset/NAME.yaml of a folder that NEGREC_CONF_DIR names"
        )
    if not re.fullmatch(r"[\w][\w.+=,-]*", str(title)):
        raise InputError(
            f"sweep.name={title}: letters, digits and . + = , _ - make a folder's name"
        )
    OmegaConf.update(frame, "sweep.name", str(title))
    return Sweep(typed, command, frame, str(title), axes, cells, searches)


def _refuse_to_tune(axes: Sequence[str], loader: ConfigLoader) -> None:
    """Tuning finds values for data sets and samplers; it does not choose parts."""
    parts = [axis for axis in axes if loader.get_group_options(axis)]
    if other := [part for part in parts if part not in ("dataset", "sampler")]:
        raise InputError(
            f"sweep.tune finds values for each data set and sampler, and {other[0]} is a part: "
            "tune in one sweep for each"
        )
    if measured := [axis for axis in tuned(axes) if axis.startswith(_MEASURED)]:
        raise InputError(
            f"sweep.tune compares runs that are measured alike, and {measured[0]} changes what is "
            "measured: leave it out of the axes"
        )
    if not tuned(axes):
        raise InputError("sweep.tune has nothing to tune: vary a value, such as alpha=1,2,3")
    configuration.writable_dir()


def tuned(axes: Sequence[str]) -> list[str]:
    """The axes that a tuning sweep finds values for."""
    return [axis for axis in axes if axis not in ("dataset", "sampler", "seed")]


def with_fewer(sweep: Sweep, seeds: int | None, max_epochs: int | None) -> Sweep:
    """The same sweep, cut for a budget; it keeps its name.

    Raises:
        InputError: the epochs are an axis of the sweep.
    """
    words = {name(o): str(o.input_line) for o in parsed(sweep.typed.words)}
    if seeds is not None:
        kept = list(max(sweep.cells, key=lambda cell: len(cell.jobs)).jobs)[:seeds]
        words["seed"] = f"seed={','.join(map(str, kept))}"
    if max_epochs is not None:
        typed = words.get("trainer.max_epochs", "")
        if typed and parsed([typed])[0].is_sweep_override():
            raise InputError(
                "sweep.budget would cut trainer.max_epochs, which the sweep varies: give fewer "
                "values, or more time"
            )
        words["trainer.max_epochs"] = f"trainer.max_epochs={max_epochs}"
    words["sweep.name"] = f"sweep.name={sweep.name}"
    less = planned(replace(sweep.typed, words=tuple(words.values())))
    return replace(less, command=sweep.command)


def require_plugins(typed: Typed) -> None:
    """Refuses a launcher or sweeper that is not installed."""
    for group, plugins in _PLUGINS.items():
        plugin = plugins.get(typed.value(group) or "")
        if plugin is not None and find_spec(f"hydra_plugins.{plugin.module}") is None:
            extra = f"negrec[{plugin.extra}]" if plugin.extra else "negrec"
            raise InputError(
                f"{group}={typed.value(group)} is not installed: pip install '{extra}'"
            )


def with_settings(typed: Typed, frame: DictConfig) -> Typed:
    """The command with what a sweep needs of its plugins, where it does not say."""
    for group, plugins in _PLUGINS.items():
        plugin = plugins.get(str(frame.hydra.runtime.choices.get(group)))
        for word in plugin.settings if plugin is not None else ():
            if typed.value(name(parsed([word])[0])) is None:
                typed = typed.plus(word)
    return typed


def is_about(word: str, *roots: str) -> bool:
    """Whether an override is of one of the given parts of the configuration."""
    key = word.lstrip("+~").partition("=")[0]
    return re.split(r"[./@]", key)[0] in roots


def _frame(typed: Typed) -> DictConfig:
    """The configuration without what differs between jobs."""
    words = [word for word in typed.words if is_about(word, *_AROUND)]
    for override in parsed(typed.words):
        if name(override) == "experiment" and not override.is_sweep_override():
            words.append(str(override.input_line))
    return configuration.composed([*configuration.search(typed), *words])


def _jobs(overrides: Sequence[Override]) -> dict[tuple[str, ...], list[tuple[str, ...]]]:
    """The overrides of each job, by what jobs have in common that differ in their seed only."""
    (every,) = BasicSweeper.split_arguments(list(overrides), None)
    cells: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    for words in every:
        without = tuple(word for word in words if not word.startswith("seed="))
        cells.setdefault(without, []).append(tuple(words))
    return cells


def _cell(
    around: Sequence[str], shared: list[str], jobs: Sequence[tuple[str, ...]], varied: set[str]
) -> Cell:
    cfg = configuration.composed([*around, *jobs[0]])
    found = {}
    for words in jobs:
        for seed in (word for word in words if word.startswith("seed=")):
            OmegaConf.update(cfg, "seed", parsed([seed])[0].value())
        found[cfg.seed] = (words, str(cfg.hydra.sweep.subdir))
    first = next(iter(found))
    OmegaConf.update(cfg, "seed", first)
    result = {k: v for k, v in identity.part_of_the_result(cfg).items() if k != "seed"}
    chosen = [word for word in shared if word.lstrip("+").partition("=")[0] in varied]
    label = " ".join(chosen) or "all jobs"
    return Cell(label, cfg, identity.digest(result), found)


def _title(typed: Typed, words: Sequence[str], cells: Sequence[Cell], loader: ConfigLoader) -> str:
    """A name that says what is varied on which data, and is the same for the same command."""
    what = [word for word in words if not is_about(word, *_AROUND, "trainer.progress")]
    axes = OverridesParser.create(loader).parse_overrides(what)
    varied = [name(o).rpartition("/")[2].rpartition(".")[2] for o in axes if o.is_sweep_override()]
    data = sorted({str(cell.cfg.hydra.runtime.choices.dataset) for cell in cells})
    about = "-".join(axis for axis in varied if axis != "dataset") or "runs"
    of = "+".join(data) if len(data) <= 3 else f"{len(data)}-datasets"
    return f"{of}_{about}"[:60] + f"_{identity.digest(sorted(what))[:6]}"
