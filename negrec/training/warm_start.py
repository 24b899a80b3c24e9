"""A run that starts from the weights of another one."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from negrec.errors import InputError
from negrec.models.base import SequenceModel
from negrec.tracking.runs import find_run
from negrec.training.checkpoint import Checkpoints, DamagedError, load

log = logging.getLogger(__name__)


def warm_start(
    model: SequenceModel, source: str, runs_dir: Path, hashes: Mapping[str, str]
) -> None:
    """Gives a model the weights that another run of the same data and split kept.

    Args:
        model: of the run that begins.
        source: the other run's id, or its folder.
        runs_dir: where runs are found by their id.
        hashes: ``data_hash`` and ``split_hash`` of the run that begins.

    Raises:
        InputError: there is no such run, it is not finished, or its weights are not this model's.
    """
    folder = Path(source)
    if not (folder / "run.json").exists():
        try:
            folder = find_run(source, runs_dir)
        except InputError as error:
            raise InputError(f"init_from={str(error).removeprefix('run=')}") from error
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if record["status"] != "FINISHED":  # its weights would be others when the same is typed again
        raise InputError(
            f"init_from={source} is not finished ({record['status']}): `negrec train "
            f"run={record['run_id']}` goes on with it"
        )
    for name, here in hashes.items():
        if record[name] != here:
            what = name.removesuffix("_hash")
            raise InputError(
                f"init_from={source} was trained on another {what} ({name} {record[name]}, here "
                f"{here}): its items are others, or it has learnt from what is held out here; "
                "start from a run with the same dataset and split"
            )
    _load(model, source, folder)
    log.info("the model starts from the weights of run %s in %s", record["run_id"], folder)


def _load(model: SequenceModel, source: str, folder: Path) -> None:
    try:
        best = load(Checkpoints(folder / "checkpoint").best)
    except DamagedError as error:
        raise InputError(
            f"init_from={source}: its best checkpoint cannot be read ({error})"
        ) from error
    theirs, mine = best.part("model"), model.state_dict()
    differs = [
        *(f"{name} is only there" for name in theirs if name not in mine),
        *(f"{name} is only here" for name in mine if name not in theirs),
        *(
            f"{name} is {tuple(theirs[name].shape)} there and {tuple(own.shape)} here"
            for name, own in mine.items()
            if name in theirs and theirs[name].shape != own.shape
        ),
    ]
    if differs:
        more = f", and {len(differs) - 3} more" if len(differs) > 3 else ""
        raise InputError(
            f"init_from={source} has another model: {'; '.join(differs[:3])}{more}: choose the "
            "same model, with the same settings and max_length"
        )
    model.load_state_dict(theirs)
