"""Short forms of ``negrec train``, written out as plain Hydra overrides."""

import difflib
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.types import Override

from negrec.commandline import configuration
from negrec.commandline.typed import Typed, name, parsed, quoted, refuse_repeats
from negrec.errors import InputError
from negrec.tracking.redaction import without_secrets


def expand(typed: Typed) -> Typed:
    """The same command without short forms.

    Raises:
        InputError: a short form that cannot be meant.
    """
    typed = experiment(table(typed))
    refuse_repeats(typed.words)
    refuse_secrets(typed)
    if typed.value("run") is not None:
        return resumed(typed)
    if typed.value("dataset") == "file":
        return with_split(typed)
    return typed


def table(typed: Typed) -> Typed:
    """``clicks.csv`` as ``dataset=file dataset.path=clicks.csv``."""
    word = next((word for word in typed.words if _is_table(word)), None)
    if word is None:
        return typed
    if not Path(word).exists():
        raise InputError(f"there is no file {word}")
    for key in ("dataset", "dataset.path"):
        if typed.value(key) not in (None, "file"):
            raise InputError(
                f"{word} stands for dataset=file, and {key}={typed.value(key)} is given too: "
                "keep one of them"
            )
    rest = tuple(other for other in typed.words if other not in (word, "dataset=file"))
    return Typed(typed.flags, ("dataset=file", f"dataset.path={quoted(word)}", *rest))


def _is_table(word: str) -> bool:
    from negrec.data.readers.base import FORMATS

    named = word.lower().endswith(tuple(FORMATS))
    if "=" in word:  # a folder's name may have one: data/day=1/clicks.parquet
        return named and Path(word).exists()
    return named or Path(word).exists()


def refuse_secrets(typed: Typed) -> None:
    """What is typed is kept with the run, and in the shell's history; a password must not be.

    Raises:
        InputError: saying where it belongs.
    """
    for word in typed.words:
        if not word.lstrip("+").startswith("tracking.uri=") and without_secrets(word) != word:
            raise InputError(
                f"{word.partition('=')[0]} holds a password or a token, which would be saved with "
                "the run: keep it in a file of configuration as ${oc.env:NAME}, or leave it out"
            )
    uri = typed.value("tracking.uri")
    if uri is not None and without_secrets(uri) != uri:
        raise InputError(
            "tracking.uri holds a password, which would be saved with the run: set the environment "
            "variable MLFLOW_TRACKING_URI in place of it, or MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD beside it"
        )


def experiment(typed: Typed) -> Typed:
    """``+experiment=x`` as ``experiment=x``: the group has a place in the defaults, left empty."""
    words = (
        word.removeprefix("+") if word.startswith("+experiment=") else word for word in typed.words
    )
    typed = Typed(typed.flags, tuple(words))
    chosen = typed.value("experiment")
    if chosen is None or typed.flag("--config-dir") is not None:
        return typed
    # The group is optional in the defaults, so Hydra would take a slip for no experiment at all.
    with configuration.opened(typed.flag("--config-path")) as loader:
        known = sorted(loader.get_group_options("experiment"))
    for name_ in chosen.split(","):
        if name_ not in (*known, "null"):
            near = difflib.get_close_matches(name_, known, n=1)
            hint = f", did you mean {near[0]}?" if near else ""
            raise InputError(
                f"there is no experiment={name_}{hint} (experiment can be {', '.join(known)})"
            )
    return typed


def with_split(typed: Typed) -> Typed:
    """A person's own table is split by time where it has times, and says how it was read."""
    from negrec.data.columns import sniff

    given = {
        name(override).removeprefix("dataset."): override.value()
        for override in parsed(typed.words)
        if name(override).startswith("dataset.")
    }
    path = given.get("path")
    if not isinstance(path, str):
        return typed  # missing, or several in a sweep: Hydra's business
    prefix = "columns."
    columns = {
        key.removeprefix(prefix): value for key, value in given.items() if key.startswith(prefix)
    }
    if given.get("events") is not None:
        columns.setdefault("event", "auto")
    found = sniff(Path(path), columns)
    # What `--cfg job` prints stays a configuration file.
    stream = sys.stderr if typed.shows else sys.stdout
    print(f"{path}: {found}; correct it with dataset.columns.user=NAME", file=stream)
    if typed.value("split") is not None or configuration.overridden("split", typed):
        return typed
    split = "leave_one_out" if found.timestamp is None else "global_temporal"
    why = "there are no timestamps" if found.timestamp is None else "there are timestamps"
    print(f"split={split}, since {why}", file=stream)
    return typed.plus(f"split={split}")


def resumed(typed: Typed) -> Typed:
    """``run=ID ...``: the command the run was started with, changed where the new one says so.

    Nothing but the saved *overrides* is taken from the run's folder, and none of them may choose
    code: a folder that somebody sent must not be able to run anything.

    Raises:
        InputError: no such run, or saved overrides that only the person may give.
    """
    from negrec.tracking.runs import find_run

    if typed.multirun:
        raise InputError("run=ID goes on with one run: leave out -m")
    run_id = str(typed.value("run"))
    new = tuple(word for word in typed.words if not word.startswith("run="))
    retyped = {name(override) for override in parsed(new)}
    folder = find_run(run_id, runs_dir(typed, new))
    if (folder.parent / "run.json").exists():  # a pre-training goes on with the run it is for
        folder = folder.parent
    saved = _saved_overrides(folder)
    kept = [o for o in parsed(saved) if name(o) not in retyped]
    with configuration.opened(typed.flag("--config-path")) as loader:
        line = chooses_code(kept, loader)
    if line is not None:
        raise InputError(
            f"run {run_id} was saved with {line}, and a run's folder may not choose code: "
            "type it again if it is yours"
        )
    words = (*(str(o.input_line) for o in kept), *new)
    return Typed(typed.flags, (*words, f"hydra.run.dir={quoted(str(folder))}"))


def chooses_code(saved: Sequence[Override], loader: ConfigLoader) -> str | None:
    """The first of some saved overrides that only the person may give; None where all may be used.

    Names of options are harmless: what they stand for comes from the person's own folders.

    Args:
        saved: overrides that come with a run or a model.
        loader: of the configuration that they will be laid over.
    """
    for override in saved:
        key, line = str(override.key_or_group), str(override.input_line)
        group = bool(loader.get_group_options(key))
        outside = group and re.search(r"\.\.|^/|:", str(override.value()))
        hydras = key.split("/")[0].split(".")[0] == "hydra"
        # A resolver, ${NAME:...}, can put a _target_ together or read a secret.
        resolves = "${" in line and ":" in line
        if "_target_" in line or hydras or outside or resolves:
            return line
    return None


def runs_dir(typed: Typed, words: Sequence[str]) -> Path:
    """Where this command would write its runs."""
    paths = [word for word in words if word.lstrip("+").startswith("paths")]
    with configuration.opened(typed.flag("--config-path")):
        cfg = configuration.composed([*configuration.search(typed), *paths])
    return Path(str(cfg.paths.runs_dir))


def _saved_overrides(folder: Path) -> list[str]:
    file = folder / "run.json"
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))["overrides"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged: it holds no list of overrides") from error
    if not isinstance(saved, list) or not all(isinstance(word, str) for word in saved):
        raise InputError(f"{file} is damaged: its overrides are no list of texts")
    return saved
