"""``negrec export``: a finished run's model, for use without negrec or behind MLflow."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from negrec import experiment
from negrec.commandline.trained import Trained, trained
from negrec.commandline.typed import Typed, spelled_out
from negrec.errors import InputError
from negrec.serving import export
from negrec.serving.bundle import UnwritableError
from negrec.tracking import model
from negrec.tracking.mlflow import ENVIRONMENT

Format = Literal["torch", "onnx", "mlflow"]

_KEYS = ("run", "format", "out", "force")
_MARKS = ("export.json", "MLmodel")  # a folder that an export made has one of them
_NEXT: dict[Format, str] = {
    "torch": "how to use it without negrec: {folder}/README.md",
    "onnx": "how to use it without negrec: {folder}/README.md",
    "mlflow": "mlflow models serve -m {folder} --env-manager local --host 127.0.0.1 --port 5001",
}
_HELP = """\
torch and onnx write the encoder (histories to queries), the item vectors (safetensors: a score is
the dot product of a query and a vector), the ids (Parquet), and a README with ten lines of Python
that use them without negrec. encoder.pt2 is loaded by torch.export.load, which unpickles: load only
what you trust. encoder.onnx and everything else hold no code.

mlflow writes an MLflow model, which any model can be, for a server that has negrec:
  mlflow models serve -m FOLDER --env-manager local --host 127.0.0.1 --port 5001
It takes {"dataframe_records": [{"history": [your item ids, oldest first]}], "params": {"top": 10}}.
"""


def main(arguments: Sequence[str]) -> int:
    """``negrec export run=ID [format=torch|onnx|mlflow] [-o FOLDER]``; 0 or 2."""
    parser = argparse.ArgumentParser(
        prog="negrec export",
        usage="negrec export run=ID [format=torch|onnx|mlflow] [-o FOLDER] [force=true]",
        description="Writes a finished run's model into a folder.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, text in (
        ("run=ID", "a finished run"),
        ("format=F", "torch (torch.export), onnx or mlflow (torch)"),
        ("out=FOLDER", "where to (export-ID-FORMAT); the same as -o FOLDER"),
        ("force=true", "replace what negrec export wrote there before"),
        ("KEY=VALUE", "as for negrec train, such as paths.runs_dir=FOLDER"),
    ):
        parser.add_argument(name.lower(), metavar=name, help=text)
    if not arguments or {"-h", "--help"} & set(arguments):
        parser.print_help()
        return 0
    given = Typed.of(spelled_out(arguments, "exported"))
    for key in _KEYS:
        if sum(word.startswith(f"{key}=") for word in given.words) > 1:
            raise InputError(f"{key} is given twice: keep one of them")
    run_id, asked = given.value("run"), given.value("format") or "torch"
    if not run_id:
        raise InputError("a run is needed: negrec export run=ID")
    if asked not in get_args(Format):
        raise InputError(f"format={asked} must be one of {', '.join(get_args(Format))}")
    format_: Format = asked  # type: ignore[assignment] # it was looked at above
    folder = Path(given.value("out") or f"export-{run_id}-{format_}").absolute()
    _refuse(folder, given.value("force") or "false")
    rest = [word for word in given.words if word.partition("=")[0] not in _KEYS]
    _export(run_id, rest, given.flags, format_, folder)
    return 0


def _refuse(folder: Path, force: str) -> None:
    """Refuses a folder that cannot be written, before anything is computed."""
    if force not in ("true", "false"):
        raise InputError(f"force={force} must be true or false")
    if not folder.parent.is_dir():
        raise InputError(f"{folder}: there is no folder {folder.parent}")
    if not folder.exists():
        return
    if force == "false":
        raise InputError(f"{folder} exists: choose another name, or add force=true")
    if not any((folder / name).is_file() for name in _MARKS):
        raise InputError(
            f"{folder} is no export, and force=true replaces exports only: choose another name"
        )


def _export(
    run_id: str,
    rest: Sequence[str],
    flags: Sequence[str],
    format_: Format,
    folder: Path,
) -> None:
    """Writes the folder, whole or not at all."""
    run = trained(run_id, rest, flags)
    # Beside the folder, so that a rename is all that is left to do.
    place = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(run, format_, place)
        if folder.exists():
            shutil.rmtree(folder)
        (place / "whole").rename(folder)
    except (OSError, UnwritableError) as error:
        raise InputError(f"cannot write {folder} ({error}): free some space") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    print(_NEXT[format_].format(folder=folder))


def _write(run: Trained, format_: Format, place: Path) -> None:
    bundle = experiment.bundle(run.record, run.parts, run.model)
    if format_ == "mlflow":
        os.environ.update(ENVIRONMENT)  # before MLflow is imported
        bundle.write(place / "bundle")
        model.save(place / "bundle", place / "whole")
        return
    (place / "whole").mkdir()
    export.write(run.model, bundle, format_, place / "whole")
