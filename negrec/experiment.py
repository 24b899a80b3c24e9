"""One run, from a configuration to measured results, top to bottom."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from filelock import FileLock, Timeout
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import negrec
from negrec import identity, schema, seeding
from negrec.data.interactions import Interactions, recommended
from negrec.data.sequences import Sequences
from negrec.data.splits.base import Split
from negrec.data.targets import Targets
from negrec.errors import InputError
from negrec.evaluation.evaluator import Evaluation, Evaluator
from negrec.evaluation.observer import Observer, Scene
from negrec.models.base import SequenceModel
from negrec.models.popularity import Popularity
from negrec.objectives.base import Objective
from negrec.objectives.ranking import Ranking
from negrec.serving.bundle import Bundle, UnwritableError, settings_of
from negrec.tracking.base import Tracker
from negrec.tracking.redaction import without_secrets
from negrec.training.checkpoint import Checkpoints
from negrec.training.cost import Peak, lifetime_peak_mb
from negrec.training.interruption import InterruptedRunError
from negrec.training.trainer import Fit, Trainer
from negrec.training.warm_start import warm_start
from negrec.world import ALONE, World
from negrec.writing import replacing

log = logging.getLogger(__name__)

# Groups that a run is named by, besides its data set and its model.
_NAMED = ("sampler", "sampler/false_negatives", "loss")
# Settings that a resumed run may change: its past stays what it was.
_MAY_CHANGE = ("trainer.max_epochs", "trainer.patience", "trainer.threads", "trainer.device")


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Attributes:
        run_id: the run's own id.
        folder: where its files lie.
        fit: how training went; ``best_value`` is what sweepers maximise.
        measured: its results on the test targets; None where they were not asked for.
        where: a line that says where a person finds the run's values.
    """

    run_id: str
    folder: Path
    fit: Fit
    measured: Measured | None
    where: str


@dataclass(frozen=True)
class Measured:
    """Results on the test targets.

    Attributes:
        test: the model's.
        popularity: the popularity ranker's.
        oracle: of the true distribution, where it is known.
    """

    test: Evaluation
    popularity: Evaluation
    oracle: Evaluation | None


@dataclass(frozen=True)
class Parts:
    """What the configuration asks for, built."""

    interactions: Interactions
    split: Split
    sequences: Sequences
    model: SequenceModel
    objective: Objective
    trainer: Trainer
    validate: Evaluator
    test: Evaluator


def run(
    cfg: DictConfig,
    folder: Path,
    overrides: Sequence[str],
    sweep: str | None = None,
    choices: Mapping[str, str] | None = None,
    test: bool = True,
    world: World | None = None,
) -> RunResult:
    """Trains, measures and logs one configuration; goes on where an earlier process stopped.

    Args:
        cfg: the composed configuration.
        folder: the run's folder; one with a ``run.json`` is resumed.
        overrides: what was typed, kept so that the run can be composed again.
        sweep: name of the sweep that the run belongs to.
        choices: the option chosen of each group; runs are named by them.
        test: whether the test targets are looked at; a later call may do so, in the same folder.
        world: the ranks that train together, of which this is rank 0 and the others ``assist``.

    Raises:
        InputError: the configuration or the data cannot be used.
        InterruptedRunError: a signal came; the state is saved.
    """
    with alone_in(folder):
        return _run(cfg, folder, overrides, sweep, choices or {}, test, world or ALONE)


def assist(cfg: DictConfig, world: World, test: bool = True) -> None:
    """The part that a rank other than the first has in a ``run``: the work, and no files.

    Args:
        cfg: the composed configuration, the same as rank 0's.
        world: the ranks that train together.
        test: whether the test targets are looked at.

    Raises:
        InputError: the configuration or the data cannot be used, or they are not rank 0's.
        InterruptedRunError: a signal came; rank 0 has saved the state.
    """
    parts = build(cfg, world)
    _compare(cfg, parts, world)
    if world.of_first(False):
        assist(pretraining(cfg), world, test=False)
    # Weights to start from are rank 0's, and go to all with the first step.
    parts.trainer.fit(
        parts.model,
        parts.objective,
        Checkpoints(Path(os.devnull)),
        validate=lambda model: parts.validate(model).metrics,
        log_metrics=lambda metrics, epoch: None,
        observer=observer_of(cfg, parts, Path(os.devnull)),
    )
    if test and cfg.trainer.metric is not None:
        _measure(parts)


def _compare(cfg: DictConfig, parts: Parts, world: World) -> None:
    """Refuses a rank that would train something else than rank 0 does."""
    config = {k: str(v) for k, v in identity.part_of_the_result(cfg).items()}
    own = {**config, "data": parts.interactions.hash, "split": parts.split.hash}
    first = world.of_first(own)
    different = sorted(k for k in {*own, *first} if own.get(k) != first.get(k))
    if different:
        raise InputError(
            f"rank {world.rank} has another {', '.join(different)} than rank 0: all machines need "
            "the same data, configuration and version of negrec"
        )


@contextmanager
def alone_in(folder: Path, wait: bool = False) -> Iterator[None]:
    """Keeps other processes out of a run's folder; a process may enter more than once.

    Args:
        folder: of the run.
        wait: until another process has left it.

    Raises:
        InputError: another process is at work there, and is not waited for.
    """
    lock = FileLock(folder / "run.lock", is_singleton=True)
    try:
        lock.acquire(timeout=-1 if wait else 0)
    except Timeout as error:
        raise InputError(
            f"another process is at work on the run in {folder}: let it end"
        ) from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):  # Windows deletes it when it is released, and not before
                (folder / "run.lock").unlink()
        lock.release()


def _run(
    cfg: DictConfig,
    folder: Path,
    overrides: Sequence[str],
    sweep: str | None,
    choices: Mapping[str, str],
    test: bool,
    world: World,
) -> RunResult:
    peak = Peak()
    # Everything is refused or accepted before anything is written.
    parts = build(cfg, world)
    _compare(cfg, parts, world)
    begun = Checkpoints(folder / "checkpoint").begun
    if cfg.pretraining is not None and not begun:
        build(pretraining(cfg))
    elif cfg.init_from is not None and not begun:
        _start_from(str(cfg.init_from), cfg, parts)
    observer = observer_of(cfg, parts, folder)
    record = _record(cfg, parts, folder, overrides, sweep, choices)
    describe(parts)
    log.info("run %s; negrec train run=%s goes on if it is cut off", *[record["run_id"]] * 2)
    tracker: Tracker = instantiate(cfg.tracking)(
        folder, run_name=f"{_name(parts, choices)}-s{cfg.seed}-{record['run_id']}"
    )
    _write_inputs(cfg, parts, folder, record)
    tracker.start(identity.part_of_the_result(cfg), _tags(record, parts.trainer, folder))
    with _status(folder, record, tracker):
        for name in ("config.yaml", "leak_report.json"):
            tracker.artifact(folder / name)
        if cfg.pretraining is not None and not begun:
            before = _pretrained(cfg, folder, overrides, sweep, choices, world)
            _start_from(str(before), cfg, parts)
        else:
            world.of_first(False)  # nothing is pre-trained
        fit = parts.trainer.fit(
            parts.model,
            parts.objective,
            Checkpoints(folder / "checkpoint"),
            validate=lambda model: parts.validate(model).metrics,
            log_metrics=tracker.log,
            observer=observer,
        )
        measured = _measure(parts) if test and cfg.trainer.metric is not None else None
        device = parts.trainer.device
        peak_mb = peak.mb(device) or lifetime_peak_mb(device)
        metrics = _final_metrics(measured, fit, peak_mb, _seconds_before(folder))
        _write_results(str(record["run_id"]), measured, fit, metrics, folder)
        tracker.log(metrics)
        for pattern in ("*.parquet", "results.json", "checkpoint/best.safetensors"):
            for path in folder.glob(pattern):
                tracker.artifact(path)
        if test and tracker.stores_model(in_sweep=sweep is not None):
            _keep_model(record, parts, folder, tracker)
    return RunResult(str(record["run_id"]), folder, fit, measured, tracker.where())


def bundle(record: Mapping[str, Any], parts: Parts, model: SequenceModel) -> Bundle:
    """A run's model with all that makes it again elsewhere.

    Args:
        record: the run's ``run.json``.
        parts: the run, built.
        model: as the test saw it.
    """
    items, users = _tables(parts)
    names = parts.interactions.names
    if names is not None:
        items = items.with_columns(name=names.gather(parts.split.catalogue))
    return Bundle(
        version=str(record["version"]),
        run_id=str(record["run_id"]),
        overrides=record["overrides"],
        settings=settings_of(record["config"]),
        seen="keep" if parts.test.seen == "keep" else "filter",
        items=items,
        users=users,
        weights=model.state_dict(),
    )


def _keep_model(record: Mapping[str, object], parts: Parts, folder: Path, tracker: Tracker) -> None:
    """Hands the model to whoever stores it; the run is none the worse where that fails."""
    place = folder / "model"
    try:
        bundle(record, parts, parts.objective.evaluated(parts.model)).write(place)
    except UnwritableError as error:
        log.warning("the model is not stored (%s); negrec export writes it later", error)
    else:
        tracker.model(place)


def pretraining(cfg: DictConfig) -> DictConfig:
    """The configuration of the run whose weights this one starts from.

    It is this one's, with ``pretraining`` laid over it: a part (with a ``_target_``) takes the
    place of the part of its name, other values are set one by one.
    """
    first = OmegaConf.masked_copy(cfg, [str(key) for key in cfg if key != "hydra"])
    first.pretraining = None
    for name, node in cfg.pretraining.items():
        part = OmegaConf.is_config(node) and "_target_" in node
        first[name] = node if part else OmegaConf.merge(first, {name: node})[name]
    return first


def _pretrained(
    cfg: DictConfig,
    folder: Path,
    overrides: Sequence[str],
    sweep: str | None,
    choices: Mapping[str, str],
    world: World,
) -> Path:
    """The folder of the finished pre-training, which is begun or gone on with where it is not."""
    place = folder / "pretraining"
    place.mkdir(exist_ok=True)
    record = place / "run.json"
    done = record.exists() and json.loads(record.read_bytes())["status"] == "FINISHED"
    if world.of_first(not done):
        log.info("pre-training in %s", place)
        named = {**choices, "objective": "pretraining"}
        run(pretraining(cfg), place, overrides, sweep, named, test=False, world=world)
    return place


def _start_from(source: str, cfg: DictConfig, parts: Parts) -> None:
    hashes = {"data_hash": parts.interactions.hash, "split_hash": parts.split.hash}
    warm_start(parts.model, source, Path(cfg.paths.runs_dir), hashes)


def read(cfg: DictConfig) -> Interactions:
    """The data set of a configuration, from the cache where it was read before."""
    interactions: Interactions = instantiate(
        cfg.dataset, cache_dir=cfg.paths.cache_dir, data_dir=cfg.paths.data_dir
    )
    return interactions


def key(cfg: DictConfig, interactions: Interactions) -> str:
    """What determines the result, as a hash: configuration, data, version of negrec."""
    known = interactions.attributes
    return identity.digest(
        [
            identity.part_of_the_result(cfg),
            interactions.hash,
            negrec.__version__,
            *([] if known is None else [known.hash]),
        ]
    )


def prepare(cfg: DictConfig, interactions: Interactions) -> tuple[Split, Sequences]:
    """What is held out, and what is trained on."""
    split: Split = instantiate(cfg.split)(interactions, max_length=cfg.max_length, seed=cfg.seed)
    return split, Sequences(split.train, cfg.max_length, instantiate(cfg.targets), cfg.window)


def build(cfg: DictConfig, world: World = ALONE) -> Parts:
    """Builds every part; the order of construction is that of the data's way.

    Args:
        cfg: the composed configuration.
        world: the ranks that train and measure together.
    """
    schema.check(cfg)
    for name in ("seed", "max_length"):
        if not isinstance(cfg[name], int):
            raise InputError(f"{name} must be a whole number, got {name}={cfg[name]}")
    if cfg.init_from is not None and cfg.pretraining is not None:
        raise InputError(
            f"init_from={cfg.init_from} and pretraining both say which weights the run starts "
            "from: leave one out (pretraining=null)"
        )
    interactions = read(cfg)
    split, sequences = prepare(cfg, interactions)
    info = sequences.facts(split.info)
    torch.manual_seed(seeding.stream_seed(cfg.seed, "model"))
    model: SequenceModel = instantiate(cfg.model)(info)
    refuse(model, sequences.targets)
    # A stream of its own: what a sampler or an objective draws does not move the model's start.
    torch.manual_seed(seeding.stream_seed(cfg.seed, "objective"))
    objective: Objective = instantiate(cfg.objective)(info, sequences)
    try:  # refuses a model that it cannot train; training binds it anew
        objective.bind(model)
    except ValueError as error:
        raise InputError(str(error)) from error
    evaluator = instantiate(cfg.evaluation, seen=_seen(cfg.evaluation.seen, interactions))
    if cfg.trainer.metric is not None and len(split.valid) == 0:
        raise InputError(
            f"trainer.metric={cfg.trainer.metric} is a validation metric, and the split holds "
            "nothing out for validation: choose another split, or trainer.metric=null with the "
            "number of epochs that a run with another split found best (negrec refit)"
        )
    validate = evaluator(split.valid, split.info, world=world)
    if cfg.trainer.metric is not None and cfg.trainer.metric not in validate.names:
        raise InputError(
            f"trainer.metric={cfg.trainer.metric} is not a validation metric: choose one of "
            f"{', '.join(validate.names)}"
        )
    return Parts(
        interactions,
        split,
        sequences,
        model,
        objective,
        instantiate(cfg.trainer)(sequences, cfg.seed, world),
        validate,
        evaluator(split.test, split.info, lists=True, world=world),
    )


def refuse(model: SequenceModel, targets: Targets) -> None:
    """Refuses targets that a model cannot be asked for.

    Raises:
        InputError: naming both, the reason and what to do.
    """
    model_name, name = type(model).__name__, type(targets).__name__
    if targets.hides and model.causal:
        reason = (
            "they are hidden items, and the model asks for the item after the last one: use "
            "targets=next_item"
        )
    elif not targets.hides and not model.causal:
        reason = (
            "they stand in the sequence, and the model reads all of it: use targets=masked_item"
        )
    elif model.reads and not targets.hides and targets.ahead == 0:
        reason = "they stand at the state's own item, which the model reads: use targets=next_item"
    else:
        return
    raise InputError(f"targets {name} do not go with model {model_name}: {reason}")


def observer_of(cfg: DictConfig, parts: Parts, folder: Path) -> Observer:
    """What looks at the training; beside the evaluation it alone is shown held-out items."""
    objective = parts.objective
    ranking = objective if isinstance(objective, Ranking) else None
    scene = Scene(
        parts.interactions,
        parts.split,
        parts.sequences,
        ranking.sampler if ranking else None,
        ranking.loss if ranking else None,
        cfg.seed,
        len(parts.trainer.loader),
        parts.trainer.loader.batch_size,
        folder,
    )
    observer: Observer = instantiate(cfg.diagnostics)(scene)
    return observer


def _seen(setting: str, interactions: Interactions) -> str:
    """What becomes of seen items in rankings; "auto" looks at how often people repeat."""
    if setting != "auto":
        return setting
    chosen = recommended(interactions).seen
    log.info("evaluation.seen=%s, by how often people take things again", chosen)
    return chosen


def describe(parts: Parts) -> None:
    """Says what will run."""
    data, split = parts.interactions, parts.split
    log.info(
        "data: %s, %s users, %s items, %s interactions; catalogue %s; "
        "%s training sequences, %s validation and %s test targets",
        data.name,
        *(f"{n:,}" for n in (data.n_users, data.n_items, data.n_interactions, split.info.n_items)),
        *(f"{len(x):,}" for x in (parts.sequences, split.valid, split.test)),
    )
    for line in (*data.lines(), *split.leak.lines()):
        log.info("%s", line)
    n_parameters = sum(p.numel() for p in parts.model.parameters())
    log.info(
        "model: %s, %s parameters; device %s, CPU threads %d%s",
        type(parts.model).__name__,
        f"{n_parameters:,}",
        parts.trainer.device,
        parts.trainer.threads,
        _ranks(parts.trainer),
    )


def _name(parts: Parts, choices: Mapping[str, str]) -> str:
    """Data set, model, and where something is trained how, as chosen, for people."""
    trained = any(True for _ in parts.model.parameters())
    how = _NAMED if isinstance(parts.objective, Ranking) else ("objective",)
    groups = ["model", *how] if trained else ["model"]
    names = [choices[group] for group in groups if choices.get(group, "none") != "none"]
    return "-".join([parts.interactions.name, *names])


def _record(
    cfg: DictConfig,
    parts: Parts,
    folder: Path,
    overrides: Sequence[str],
    sweep: str | None,
    choices: Mapping[str, str],
) -> dict[str, object]:
    """Who the run is: its id and what determines its result.

    A folder that holds a run already is resumed: its id stays, and what determines its past must
    be what it was.
    """
    config = {
        key: without_secrets(value) if isinstance(value, str) else value
        for key, value in identity.part_of_the_result(cfg).items()
    }
    known = parts.interactions.attributes
    record: dict[str, object] = {
        "run_id": identity.new_id(),
        "overrides": list(overrides),
        "config": config,
        "config_hash": identity.digest(config),
        "data_hash": parts.interactions.hash,
        "attributes_hash": None if known is None else known.hash,
        "split_hash": parts.split.hash,
        "key": key(cfg, parts.interactions),
        "version": negrec.__version__,
        "git_commit": git_commit(),
        "hardware": _hardware(parts.trainer),
        "trials": OmegaConf.select(cfg, "tuned.trials", default=0),
        "sweep": sweep,
        "refit_of": cfg.refit_of,
        "choices": {g: name for g, name in choices.items() if not g.startswith("hydra/")},
        "status": "RUNNING",
    }
    path = folder / "run.json"
    if not path.exists():
        return record
    before = json.loads(path.read_text(encoding="utf-8"))
    was = before["config"]
    # Through JSON, as the saved one went: tuples become lists.
    now = json.loads(json.dumps(config, default=str))
    changed = {k for k in {*was, *now} if was.get(k) != now.get(k)}
    if "trainer.max_epochs" in changed and not _can_be_longer(was):
        raise InputError(
            f"run={before['run_id']} cannot have another trainer.max_epochs: its schedule, or its "
            "last validation, would have been another with it; start a new run"
        )
    changed -= {*_MAY_CHANGE}
    if changed:
        raise InputError(
            f"run={before['run_id']} cannot go on with another {', '.join(sorted(changed))}: only "
            f"{', '.join(_MAY_CHANGE)} may change; start a new run for the rest"
        )
    for name in ("data_hash", "split_hash", "attributes_hash"):
        if before.get(name) != record[name]:
            raise InputError(
                f"run={before['run_id']} was trained on other data ({name} {before.get(name)}, now "
                f"{record[name]}): bring back that data, or start a new run"
            )
    if before["version"] != record["version"]:
        log.warning("the run was started with negrec %s", before["version"])
    return {**record, "run_id": before["run_id"], "sweep": before.get("sweep")}


def _can_be_longer(config: Mapping[str, Any]) -> bool:
    """Whether a run with more epochs begins like this one, bit for bit."""
    regular = config["trainer.max_epochs"] % config["trainer.evaluate_every"] == 0
    return bool(regular and config["trainer.schedule"] == "constant")


def _ranks(trainer: Trainer) -> str:
    ranks = trainer.world.size
    return "" if ranks == 1 else f" in each of {ranks} processes"


def _hardware(trainer: Trainer) -> str:
    name = platform.processor() or platform.machine()
    if trainer.device.type == "cuda":
        name = torch.cuda.get_device_name(trainer.device)
    return (
        f"{trainer.device} ({name}), {trainer.threads} of {os.cpu_count()} CPU threads"
        f"{_ranks(trainer)}, "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


@cache
def git_commit() -> str | None:
    """The commit of negrec's own checkout, where it runs from one."""
    root = Path(negrec.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _tags(record: Mapping[str, object], trainer: Trainer, folder: Path) -> dict[str, str]:
    names = ["run_id", "config_hash", "data_hash", "attributes_hash", "split_hash", "key"]
    names += ["version", "git_commit", "sweep", "refit_of", "trials"]
    tags = {f"negrec.{name}": str(record[name]) for name in names if record[name] is not None}
    chosen = record["choices"]
    assert isinstance(chosen, dict)
    groups = ("dataset", "split", "model", "objective", *_NAMED)
    tags |= {f"negrec.{group}": chosen[group] for group in groups if group in chosen}
    return {**tags, "negrec.device": str(trainer.device), "negrec.folder": folder.name}


def _write_inputs(
    cfg: DictConfig, parts: Parts, folder: Path, record: Mapping[str, object]
) -> None:
    """What the run was made from, and how its ids map to the user's own."""
    public = {
        k: v for k, v in identity.resolved(cfg).items() if k != "tracking"
    }  # may hold a password
    with replacing(folder / "config.yaml") as file:
        file.write_text(without_secrets(OmegaConf.to_yaml(public)), encoding="utf-8")
    _write_json(folder / "leak_report.json", parts.split.leak.as_dict())
    items, users = _tables(parts)
    _write_table(folder / "users.parquet", users)
    _write_table(folder / "items.parquet", items)
    _write_json(folder / "run.json", record)


def _tables(parts: Parts) -> tuple[pl.DataFrame, pl.DataFrame]:
    """How ids map to the user's own: ``item``, ``id``, ``count``; and ``user``, ``id``."""
    data, split = parts.interactions, parts.split
    items = pl.DataFrame(
        {
            "item": range(1, split.info.n_items + 1),
            "id": data.item_ids.gather(split.catalogue),
            "count": split.info.counts.numpy(),
        }
    )
    return items, pl.DataFrame({"user": range(data.n_users), "id": data.user_ids})


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    with replacing(path) as file:
        file.write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")


def _write_table(path: Path, table: pl.DataFrame) -> None:
    with replacing(path, pl.exceptions.PolarsError) as file:
        table.write_parquet(file)


@contextmanager
def _status(folder: Path, record: Mapping[str, object], tracker: Tracker) -> Iterator[None]:
    """Writes down how the run ended, however it ends."""

    def end(status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        _write_json(folder / "run.json", {**record, "status": status})
        tracker.finish(status)

    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, InterruptedRunError | KeyboardInterrupt)
        with suppress(InputError):  # the disk that ended it may take this neither
            end("KILLED" if stopped else "FAILED")
        raise
    end("FINISHED")


def _measure(parts: Parts) -> Measured:
    info, truth = parts.split.info, parts.interactions.truth
    parts.model.eval()
    parts.objective.eval()
    with torch.no_grad():
        test = parts.test(parts.objective.evaluated(parts.model))
        popularity = parts.test(Popularity(info))
        oracle = None
        # The truth gives seen items the weight they had: with them ranked it would be no oracle.
        if truth is not None and parts.test.seen == "filter":
            oracle = parts.test(truth.for_catalogue(parts.split.catalogue))
    return Measured(test, popularity, oracle)


def _seconds_before(folder: Path) -> float:
    """What a run's pre-training took."""
    results = folder / "pretraining" / "results.json"
    if not results.exists():
        return 0.0
    return float(json.loads(results.read_bytes())["metrics"]["cost/seconds"])


def _final_metrics(
    measured: Measured | None, fit: Fit, peak_mb: float, before: float
) -> dict[str, float]:
    metrics: dict[str, float] = {}
    if measured is not None:
        metrics |= {f"test/{name}": value for name, value in measured.test.metrics.items()}
        metrics |= {f"popularity/{name}": v for name, v in measured.popularity.metrics.items()}
    if measured is not None and measured.oracle is not None:
        metrics |= {f"oracle/{name}": value for name, value in measured.oracle.metrics.items()}
    return metrics | {
        "cost/peak_mb": peak_mb,
        "cost/seconds": before + fit.seconds,
        "cost/seconds_to_best": before + fit.seconds_to_best,
        "best/epoch": float(fit.best_epoch),
        "best/value": fit.best_value,
    }


def _write_results(
    run_id: str, measured: Measured | None, fit: Fit, values: Mapping[str, float], folder: Path
) -> None:
    if measured is not None:
        _write_table(folder / "ranks.parquet", measured.test.frame())
        if measured.test.calibration is not None:
            _write_table(folder / "calibration.parquet", measured.test.calibration)
    _write_json(
        folder / "results.json",
        {
            "run_id": run_id,
            "epochs": fit.epochs,
            "best_epoch": fit.best_epoch + 1,
            "converged": fit.converged,
            "metrics": {k: _json_number(v) for k, v in values.items()},
        },
    )


def _json_number(value: float) -> float | None:
    return value if math.isfinite(value) else None
