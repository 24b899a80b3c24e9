"""A model in a folder, loaded to recommend: what ``mlflow models serve`` runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import polars as pl
from hydra.utils import instantiate

import negrec
from negrec import identity
from negrec.commandline import configuration, explain, shorthand
from negrec.commandline.typed import Typed, parsed
from negrec.errors import InputError
from negrec.models.base import SequenceModel
from negrec.serving.bundle import Bundle, Seen, give_weights, said_as, settings_of
from negrec.serving.recommender import Recommender

if TYPE_CHECKING:
    import pandas as pd


class Served:
    """Answers tables of histories with tables of recommendations, in the user's own ids.

    Args:
        recommender: does the work.
        seen: what becomes of a history's items unless somebody says otherwise.
    """

    def __init__(self, recommender: Recommender, seen: Seen) -> None:
        self._recommender = recommender
        self._seen = seen

    def predict(
        self, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """The best items for each history.

        Args:
            model_input: ``history``, lists of own item ids, oldest first, where unknown ones are
                skipped; and perhaps ``user``, own ids. Of whom the model knows nothing gets what is
                most popular.
            params: ``top``, how many items (10); ``seen``, "filter" leaves out the items of the
                history, "keep" does not.

        Returns:
            ``items`` and ``scores``, lists of the same length, best first.
        """
        import pandas as pd

        given = params or {}
        top, seen = int(given.get("top", 10)), given.get("seen", self._seen)
        if top < 1:
            raise InputError(f"top={top} must be at least 1")
        if seen not in get_args(Seen):
            raise InputError(f"seen={seen} must be one of {', '.join(get_args(Seen))}")
        if "history" not in model_input.columns:
            raise InputError("the input needs a column history, of lists of item ids")
        recommender = self._recommender
        lists = [None if one is None else list(one) for one in model_input["history"]]
        histories = recommender.read(
            _own(model_input["user"], recommender.user_ids) if "user" in model_input else None,
            pl.Series(lists, dtype=pl.List(said_as(recommender.item_ids))),
        )
        items, scores = recommender.top(histories, min(top, len(recommender.item_ids)), seen)
        found = (items > 0).sum(1).tolist()
        own = recommender.own(items).reshape(tuple(items.shape)).to_list()
        columns = {"items": own, "scores": scores.tolist()}
        return pd.DataFrame(
            {
                name: [row[:n] for row, n in zip(rows, found, strict=True)]
                for name, rows in columns.items()
            },
            index=model_input.index,
        )


def _own(users: pd.Series, ids: pl.Series) -> pl.Series:
    missing = users.isna()
    told = [None if gone else user for user, gone in zip(users, missing, strict=True)]
    return pl.Series(told, dtype=said_as(ids))


def load(folder: Path) -> Served:
    """The model of a bundle.

    Its configuration is composed from this machine's own files, as a resumed run's is: of the
    folder only names and values are taken, and nothing that would choose code.

    Raises:
        InputError: the folder holds no such model, or one that cannot be made here.
    """
    bundle = Bundle.read(folder)
    model = _composed(bundle, folder)
    give_weights(model, bundle.weights)
    model.eval()
    recommender = Recommender(
        model, bundle.facts(), bundle.items["id"], bundle.users["id"], bundle.names
    )
    return Served(recommender, bundle.seen)


def _composed(bundle: Bundle, folder: Path) -> SequenceModel:
    """The model that the bundle's command stands for on this machine, with any weights."""
    saved = parsed(bundle.overrides)
    try:
        with configuration.opened() as loader:
            line = shorthand.chooses_code(saved, loader)
            if line is not None:
                raise InputError(
                    f"the model in {folder} was trained with {line}, and a model's folder may not "
                    "choose code: write it into a configuration file of your own and train with "
                    "that"
                )
            cfg = configuration.composed(bundle.overrides)
        now = settings_of(identity.part_of_the_result(cfg))
    except Exception as error:
        told = explain.before_a_job(error, Typed((), tuple(bundle.overrides)))
        if told is None:
            raise
        raise InputError(f"the model in {folder} cannot be made here: {told}") from error
    now, then = json.loads(json.dumps(now, default=str)), bundle.settings
    for key in sorted({*now, *then}):
        if now.get(key) != then.get(key):
            raise InputError(
                f"the model in {folder} has {key}={then.get(key)}, and the configuration of this "
                f"machine says {now.get(key)}: name the folders it was trained with in "
                f"{configuration.USER_FOLDERS} (it is of negrec {bundle.version}, this is "
                f"{negrec.__version__})"
            )
    model: SequenceModel = instantiate(cfg.model)(bundle.facts())
    return model


def _load_pyfunc(path: str) -> Served:
    """What MLflow calls; the name is its own."""
    return load(Path(path))
