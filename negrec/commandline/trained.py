"""A finished run's model, for the verbs that use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from negrec import experiment, identity
from negrec.commandline import configuration, explain, shorthand
from negrec.commandline.typed import Typed
from negrec.errors import InputError
from negrec.models.base import SequenceModel
from negrec.tracking.runs import find_run
from negrec.training.checkpoint import Checkpoints, DamagedError, load

# What may be another than it was in training: the data's hash is compared, and how targets are
# ranked or on which device does not change the model.
_MAY_CHANGE = ("dataset.", "evaluation.", "trainer.device", "trainer.threads")


@dataclass(frozen=True)
class Composed:
    """A finished run's configuration, composed again from the command that it was started with.

    Attributes:
        run_id: the run's own id.
        folder: where its files lie.
        record: its ``run.json``.
        typed: the command, written out.
        cfg: what that composes to.
    """

    run_id: str
    folder: Path
    record: Mapping[str, Any]
    typed: Typed
    cfg: DictConfig


@dataclass(frozen=True)
class Trained(Composed):
    """A finished run, built again.

    Attributes:
        parts: what the configuration asks for, built.
        model: as the test saw it, with the weights that the run kept; not in training.
    """

    parts: experiment.Parts
    model: SequenceModel


def composed(run_id: str, rest: Sequence[str] = (), flags: Sequence[str] = ()) -> Composed:
    """The configuration of a finished run.

    Nothing but the saved overrides is taken from the run's folder as configuration, see
    ``shorthand.resumed``.

    Args:
        run_id: the run's own id.
        rest: overrides that are laid over the saved ones, such as paths.runs_dir=FOLDER.
        flags: Hydra's, such as --config-dir with its value.

    Raises:
        InputError: no such run, one that is not finished, or a configuration that it was not
            trained with.
    """
    typed = Typed(tuple(flags), (f"run={run_id}", *rest))
    folder = finished(run_id, shorthand.runs_dir(typed, rest))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    command = shorthand.resumed(typed)
    cfg = composed_of(command)
    was = record["config"]
    # Through JSON, as the saved one went; a key that only one of them has is another version's.
    now = json.loads(json.dumps(identity.part_of_the_result(cfg), default=str))
    for key in sorted({*was} & {*now}):
        if was[key] != now[key] and not key.startswith(_MAY_CHANGE):
            raise InputError(
                f"run={run_id} was trained with {key}={was[key]}, and this is {key}={now[key]}: "
                "leave that out, or bring back the configuration file that says so"
            )
    return Composed(run_id, folder, record, command, cfg)


def composed_of(command: Typed) -> DictConfig:
    """What a command composes to.

    Raises:
        InputError: it does not.
    """
    try:
        with configuration.opened(command.flag("--config-path")):
            return configuration.composed([*configuration.search(command), *command.words])
    except Exception as error:
        line = explain.before_a_job(error, command)
        if line is None:
            raise
        raise InputError(line) from error


def trained(run_id: str, rest: Sequence[str] = (), flags: Sequence[str] = ()) -> Trained:
    """The model of a finished run; see ``composed``. Weights are safetensors.

    Raises:
        InputError: as ``composed`` does; other data than it was trained on, or weights that
            cannot be read.
    """
    run = composed(run_id, rest, flags)
    with explain.explained():
        parts = experiment.build(run.cfg)
    known = parts.interactions.attributes
    hashes = {
        "data_hash": parts.interactions.hash,
        "split_hash": parts.split.hash,
        "attributes_hash": None if known is None else known.hash,
    }
    for name, now in hashes.items():
        if run.record.get(name) != now:
            raise InputError(
                f"run={run_id} was trained on other data ({name} {run.record.get(name)}, now "
                f"{now}): bring back that data"
            )
    model = _with_weights(parts, Checkpoints(run.folder / "checkpoint"), run_id)
    return Trained(run_id, run.folder, run.record, run.typed, run.cfg, parts, model)


def finished(run_id: str, root: Path) -> Path:
    """The folder of a finished run.

    Raises:
        InputError: there is no such run, or it is not finished.
    """
    folder = find_run(run_id, root)
    status = json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"]
    if status != "FINISHED":
        raise InputError(
            f"run={run_id} is not finished ({status}): `negrec train run={run_id}` goes on with it"
        )
    return folder


def _with_weights(parts: experiment.Parts, checkpoints: Checkpoints, run_id: str) -> SequenceModel:
    """The model as the test saw it; one without parameters is what it is built as."""
    parts.objective.bind(parts.model)
    if any(True for _ in parts.model.parameters()):
        try:
            best = load(checkpoints.best)
        except DamagedError as error:
            raise InputError(
                f"run={run_id}: its best checkpoint cannot be read ({error})"
            ) from error
        parts.model.load_state_dict(best.part("model"))
        parts.objective.load_state_dict(best.part("objective"))
    parts.model.eval()
    parts.objective.eval()
    return parts.objective.evaluated(parts.model)
