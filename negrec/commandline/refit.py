"""``negrec refit``: a finished run's configuration, trained on all data to be put to use."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from negrec import experiment
from negrec.commandline import configuration, explain, shorthand, train
from negrec.commandline.trained import Composed, composed, composed_of
from negrec.commandline.typed import Typed, name, parsed, quoted
from negrec.errors import InputError

# Of what is typed beside run=, what the runs that it starts from are trained anew with too.
_SHARED = ("dataset", "paths", "tracking", "trainer.device", "trainer.threads")
_HELP = """\
The new run learns from every interaction, the validation and test items of the old one included,
for as many epochs as were best there. Nothing is left to measure it by: its quality is foretold by
the old run's test. The learning rate takes the old course up to that epoch; where the old run
started from the weights of a pre-training or of another run, that is trained on all data first.

  negrec refit run=ID dataset.path=newer.parquet    the same on newer data

Typed again it goes on with what was cut off, or says that it is done.
"""


def main(arguments: Sequence[str]) -> int:
    """``negrec refit run=ID [KEY=VALUE ...]``; 0, 1 for a failure, or 2 for bad input."""
    parser = argparse.ArgumentParser(
        prog="negrec refit",
        usage="negrec refit run=ID [KEY=VALUE ...]",
        description="Trains the configuration of a finished run on all data, for the best number "
        "of epochs, as a new run that is ready to be put to use.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="run=ID", help="a finished run")
    parser.add_argument(
        "more", metavar="KEY=VALUE", help="as for negrec train, such as dataset.path=newer.parquet"
    )
    if not arguments or {"-h", "--help"} & set(arguments):
        parser.print_help()
        return 0
    given = Typed.of(arguments)
    run = given.value("run")
    if not run:
        raise InputError("a run is needed: negrec refit run=ID")
    if given.multirun:
        raise InputError("refit trains one run: leave out -m")
    rest = [word for word in given.words if not word.startswith("run=")]
    code, _ = refit(run, rest, given.flags)
    return code


def refit(run_id: str, rest: Sequence[str], flags: Sequence[str]) -> tuple[int, Path]:
    """Trains a finished run's configuration on all data, unless that is done.

    Args:
        run_id: the finished run.
        rest: overrides that are laid over its own.
        flags: Hydra's.

    Returns:
        The exit code of the training, and the folder of the new run.
    """
    run = composed(run_id, [word for word in rest if word.startswith("paths.")], flags)
    typed = {name(override) for override in parsed(rest)}
    source = run.cfg.init_from
    before: list[str] = []
    if source is not None and not {"init_from", "pretraining"} & typed:
        code, folder = refit(_id(source), [w for w in rest if w.startswith(_SHARED)], flags)
        if code:
            return code, folder
        before = [f"init_from={quoted(_read(folder / 'run.json')['run_id'])}"]
    words = _words(run, [*before, *_settings(run, typed), *rest], flags)
    cfg = composed_of(words)
    with explain.explained():
        data = experiment.read(cfg)
    folder = Path(cfg.paths.runs_dir) / "refit" / f"{run_id}-{experiment.key(cfg, data)[:8]}"
    record, code = folder / "run.json", 0
    if record.exists() and _read(record)["status"] == "FINISHED":
        print(f"run {run_id} was trained on all data before, in {folder}")
    else:
        _tell(run, cfg, same=data.hash == run.record["data_hash"])
        place = f"hydra.run.dir={quoted(str(folder))}"
        code = train.main([*words.flags, *words.words, place])
    if code == 0:
        new = _read(record)["run_id"]
        print(f"run {new} is run {run_id} on all data: negrec recommend run={new}")
    return code, folder


def _settings(run: Composed, typed: Iterable[str]) -> list[str]:
    """What makes a run of all data out of another one; what was typed stands."""
    ours = ["split=none", f"refit_of={quoted(run.run_id)}"]
    ours += _epochs(run.folder, run.record["config"], "trainer")
    if run.cfg.pretraining is not None and "pretraining" not in typed:
        first = run.folder / "pretraining"
        ours += _epochs(first, _read(first / "run.json")["config"], "++pretraining.trainer")
    return [word for word in ours if word.partition("=")[0].lstrip("+") not in typed]


def _epochs(folder: Path, config: Mapping[str, Any], trainer: str) -> list[str]:
    """As many epochs as were best, with the learning rates that these had."""
    # A run of an older version has no schedule_epochs.
    course = config.get("trainer.schedule_epochs") or config["trainer.max_epochs"]
    return [
        f"{trainer}.metric=null",
        f"{trainer}.max_epochs={_read(folder / 'results.json')['best_epoch']}",
        f"{trainer}.schedule_epochs={course}",
    ]


def _words(run: Composed, new: Sequence[str], flags: Sequence[str]) -> Typed:
    """The whole command: that of the finished run with other words laid over it.

    Settings of the split that the run was measured with go, those of ``split=none`` stay.
    """
    with configuration.opened():
        known = {f"split.{key}" for key in configuration.composed(["split=none"]).split}
    command = shorthand.resumed(Typed(tuple(flags), (f"run={run.run_id}", *new)))
    place = command.words[-1]
    assert place.startswith("hydra.run.dir="), place
    words = [
        word
        for word, override in zip(command.words, parsed(command.words), strict=True)
        if word != place and (not name(override).startswith("split.") or name(override) in known)
    ]
    typed = Typed(command.flags, tuple(words))
    # An experiment's file may say more of its split.
    others = [key for key in composed_of(typed).split if f"split.{key}" not in known]
    return typed.plus(*(f"~split.{key}" for key in others))


def _tell(run: Composed, cfg: DictConfig, same: bool) -> None:
    """What is about to be trained, and what to think of."""
    results, epochs = _read(run.folder / "results.json"), cfg.trainer.max_epochs
    data = "all of its data" if same else "all of other data than it was trained on"
    print(
        f"run {run.run_id} anew, on {data}: epochs {epochs:,} (the best one was "
        f"{results['best_epoch']:,})"
    )
    if not results["converged"]:
        print(
            f"its best epoch was its last: more epochs may be better; first train it longer with "
            f"`negrec train run={run.run_id} trainer.max_epochs={2 * results['epochs']}`"
        )


def _id(source: object) -> str:
    """The id of a run that is named by it, or by its folder."""
    record = Path(str(source)) / "run.json"
    return str(_read(record)["run_id"]) if record.exists() else str(source)


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
