"""A finished run's model, for the verbs that use it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from negrec import experiment
from negrec.commandline import configuration, explain, shorthand
from negrec.commandline.typed import Typed
from negrec.errors import InputError
from negrec.models.base import SequenceModel
from negrec.tracking.runs import find_run
from negrec.training.checkpoint import Checkpoints, DamagedError, load


@dataclass(frozen=True)
class Trained:
    """A finished run, built again from the command that it was started with.

    Attributes:
        run_id: the run's own id.
        folder: where its files lie.
        record: its ``run.json``.
        typed: the command, written out.
        cfg: what that composes to.
        parts: what the configuration asks for, built.
        model: as the test saw it, with the weights that the run kept; not in training.
    """

    run_id: str
    folder: Path
    record: Mapping[str, Any]
    typed: Typed
    cfg: DictConfig
    parts: experiment.Parts
    model: SequenceModel


def trained(run_id: str, rest: Sequence[str] = (), flags: Sequence[str] = ()) -> Trained:
    """The model of a finished run.

    Nothing but the saved overrides is taken from the run's folder as configuration, see
    ``shorthand.resumed``; weights are safetensors.

    Args:
        run_id: the run's own id.
        rest: overrides that are laid over the saved ones, such as paths.runs_dir=FOLDER.
        flags: Hydra's, such as --config-dir with its value.

    Raises:
        InputError: no such run, one that is not finished, other data than it was trained on, or
            weights that cannot be read.
    """
    typed = Typed(tuple(flags), (f"run={run_id}", *rest))
    folder = finished(run_id, shorthand.runs_dir(typed, rest))
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    try:
        command = shorthand.resumed(typed)
        with configuration.opened(typed.flag("--config-path")):
            cfg = configuration.composed([*configuration.search(typed), *command.words])
        parts = experiment.build(cfg)
    except Exception as error:
        line = explain.inside_a_job(error) or explain.before_a_job(error, typed)
        if line is None:
            raise
        raise InputError(line) from error
    for name, now in (("data_hash", parts.interactions.hash), ("split_hash", parts.split.hash)):
        if record[name] != now:
            raise InputError(
                f"run={run_id} was trained on other data ({name} {record[name]}, now {now}): bring "
                "back that data"
            )
    model = _with_weights(parts, Checkpoints(folder / "checkpoint"), run_id)
    return Trained(run_id, folder, record, command, cfg, parts, model)


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
