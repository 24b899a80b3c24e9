"""A trained model as an MLflow model: a folder without code, and the name of who loads it.

The folder is what ``negrec.serving.bundle`` writes; here it is a folder with a ``bundle.json`` that
says in what types its ids are told.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.models import ModelSignature

NAME = "model"
_LOADER = "negrec.commandline.served"
_DIGEST_TAG = "negrec.model_digest"
_TOP = 10


def save(bundle: Path, folder: Path) -> None:
    """Writes a bundle as an MLflow model, which any MLflow with negrec beside it loads.

    There is no code in it: MLflow is told the name of the module that reads the bundle.

    Args:
        bundle: a folder.
        folder: it is made.
    """
    import pandas as pd

    told = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    example = pd.DataFrame({"history": [told["asked"]["example"]]})
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it tells each step
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's remarks about type hints of its own
        from mlflow.pyfunc import save_model

        save_model(
            str(folder),
            loader_module=_LOADER,
            data_path=str(bundle),
            signature=_signature(told["asked"], told["seen"]),
            input_example=(example, {"top": _TOP}),
            # Said, not found out: MLflow would load the model in another process for it.
            pip_requirements=[f"negrec=={told['negrec']}"],
        )


def _signature(asked: dict[str, Any], seen: str) -> ModelSignature:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    kinds = {"Int64": DataType.long, "String": DataType.string}
    items = Array(kinds[asked["item"]])
    return ModelSignature(
        Schema([ColSpec(items, "history"), ColSpec(kinds[asked["user"]], "user", required=False)]),
        Schema([ColSpec(items, "items"), ColSpec(Array(DataType.double), "scores")]),
        ParamSchema(
            [ParamSpec("top", DataType.long, _TOP), ParamSpec("seen", DataType.string, seen)]
        ),
    )


def log(client: MlflowClient, run_id: str, bundle: Path) -> None:
    """Stores a bundle as a model of a run; one that is there already is not stored again.

    It is found as ``runs:/<run_id>/model``, and on MLflow's pages under the run and the models.

    Args:
        client: of the store.
        run_id: MLflow's id of the run.
        bundle: a folder.
    """
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    run = client.get_run(run_id)
    digest = _digest(bundle)
    models = client.search_logged_models(
        [run.info.experiment_id], f"source_run_id = '{run_id}' AND name = '{NAME}'"
    )
    same = [model for model in models if model.tags.get(_DIGEST_TAG) == digest]
    if any(model.status == LoggedModelStatus.READY for model in same):
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / NAME
        save(bundle, folder)  # first: a bundle that is no good makes no model
        if same:  # an attempt that was cut off
            (model, *_) = same
        else:
            tags = {k: v for k, v in run.data.tags.items() if k.startswith("negrec.")}
            model = client.create_logged_model(
                run.info.experiment_id, NAME, run_id, {**tags, _DIGEST_TAG: digest}
            )
            client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        _name(folder, model, run_id)
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _name(folder: Path, stored: LoggedModel, run_id: str) -> None:
    """Says in MLflow's own file which model of the store it is."""
    from mlflow.models import Model
    from mlflow.models.model import MLMODEL_FILE_NAME

    described = Model.load(str(folder))
    described.run_id, described.artifact_path = run_id, stored.artifact_location
    described.model_id = described.model_uuid = stored.model_id
    described.save(str(folder / MLMODEL_FILE_NAME))


def _digest(bundle: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(bundle.iterdir()):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
