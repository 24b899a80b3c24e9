"""``negrec train``: Hydra in front of ``experiment.run``."""

from __future__ import annotations

import logging
import math
import os
import shutil
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from negrec.commandline import configuration, explain, ranks, shorthand
from negrec.commandline.typed import Typed
from negrec.tracking.redaction import without_secrets
from negrec.training.interruption import InterruptedRunError, exit_code

if TYPE_CHECKING:
    from negrec.experiment import RunResult
    from negrec.world import World

log = logging.getLogger(__name__)


class JobError(Exception):
    """A job that ended without a result; its log has said why."""


class StopError(BaseException):
    """The command ends here, for a reason that was told already.

    Not an Exception: Hydra adds a line of its own to those, and goes on with the other jobs.

    Attributes:
        code: the exit code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def main(arguments: Sequence[str]) -> int:
    """Runs ``negrec train ARGUMENTS``; the exit code is 0, 1 for a failure, 2 for bad input."""
    typed = Typed.of(arguments)
    with ranks.joined(typed) as world:
        return _run(typed, world)


def _run(typed: Typed, world: World | None) -> int:
    everything = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        typed = ranks.same(shorthand.expand, typed, world)
        if typed.multirun and not typed.shows:
            from negrec.commandline import sweep

            return sweep.run(typed)
        launch(typed, world)
    except SystemExit as stop:  # Hydra after --help, argparse after a wrong flag
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except (Exception, StopError) as error:
        if everything:
            traceback.print_exc()
        return told(error, typed, world)
    except KeyboardInterrupt as error:
        # torchrun ends the others so when one of them has failed.
        if world is None or world.speaks(waits=True):
            raise
        return exit_code(error)
    return 0


def told(error: Exception | StopError, typed: Typed, world: World | None = None) -> int:
    """Says what stopped the command, unless it was said already, and returns the exit code.

    Args:
        error: what stopped it.
        typed: the command.
        world: the ranks, of which one says it for all.
    """
    if world is not None and not isinstance(error, StopError):
        if not world.speaks(waits=ranks.gone(error)):
            return 2
        if ranks.gone(error):
            print(f"negrec: {ranks.LOST}", file=sys.stderr)
            return 2
    match error:
        case StopError():
            return error.code
        case JobError():
            print(f"negrec: {error}", file=sys.stderr)
            return 1
        case Exception() if (line := explain.before_a_job(error, typed)) is not None:
            print(f"negrec: {line}", file=sys.stderr)
            return 2
    traceback.print_exception(error)
    return 1


def launch(typed: Typed, world: World | None = None) -> None:
    """Lets Hydra compose the configuration and run the task, once or for every job of a sweep.

    Args:
        typed: the command.
        world: the ranks that train one run together; None for a process by itself.
    """
    # By itself the task goes as it is to launchers' workers.
    job = task if world is None else lambda cfg: task(cfg, world)
    configuration.register()
    application = hydra.main(
        config_path=str(configuration.conf_dir()),
        config_name=configuration.CONFIG_NAME,
        version_base=configuration.VERSION_BASE,
    )(job)
    with _seen_by_hydra(typed.arguments):
        application()


def task(cfg: DictConfig, world: World | None = None) -> float | None:
    """One job, from its configuration to its validation metric, which sweepers maximise."""
    settings = HydraConfig.get()
    strike_secrets(settings)
    if settings.mode == RunMode.MULTIRUN:
        from negrec.commandline import sweep

        return sweep.job(cfg, settings)
    try:
        return single(cfg, settings, world)
    except InterruptedRunError as error:
        if world is None or world.first:
            log.error(
                "negrec: %s and saved; `negrec train run=...` with the id above goes on", error
            )
        if world is not None:  # torchrun kills all others when the first one ends
            world.meet()
        raise StopError(exit_code(error)) from error
    except KeyboardInterrupt:
        withdraw(settings)
        raise
    except Exception as error:
        if world is not None and not world.speaks(waits=ranks.gone(error)):
            withdraw(settings)
            raise StopError(2) from error
        line = ranks.LOST if ranks.gone(error) else explain.inside_a_job(error)
        who = "" if world is None or world.first else f"rank {world.rank}: "
        if line is not None:
            log.error("negrec: %s%s", who, line)
            withdraw(settings)
            raise StopError(2) from error
        log.exception("negrec: %sthis run failed", who)
        words = " ".join(settings.overrides.task)
        what = f"{type(error).__name__}: {error}"
        if world is not None:
            raise StopError(1) from error
        raise JobError(f"the job `negrec train {words}` failed: {what}") from error


def single(cfg: DictConfig, settings: HydraConf, world: World | None = None) -> float:
    """A run on its own, and what a person wants to see of it."""
    refuse_unknown(cfg)
    from negrec import experiment  # imports torch

    if world is not None and not world.first:
        experiment.assist(cfg, world)
        return math.nan
    folder = Path(settings.runtime.output_dir)
    overrides = list(settings.overrides.task)
    result = experiment.run(cfg, folder, overrides, None, choices(settings), world=world)
    show(result, cfg)
    return result.fit.best_value


def strike_secrets(settings: HydraConf) -> None:
    """Takes passwords out of what Hydra wrote down of the configuration, before the job began."""
    if settings.output_subdir is None:
        return
    for file in (Path(settings.runtime.output_dir) / settings.output_subdir).glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        clean = without_secrets(text)
        if clean != text:
            file.write_text(clean, encoding="utf-8")


def refuse_unknown(cfg: DictConfig) -> None:
    """Refuses missing values and dangling references, before anything is built or written."""
    OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def choices(settings: HydraConf) -> dict[str, str]:
    """The option chosen of each group."""
    return {str(group): str(option) for group, option in settings.runtime.choices.items()}


def show(result: RunResult, cfg: DictConfig) -> None:
    """The table a person came for, and where everything lies."""
    from rich.console import Console

    from negrec.reporting.tables import final_table
    from negrec.training.checkpoint import Checkpoints

    fit, measured = result.fit, result.measured
    console = Console()
    if measured is not None:
        console.print(
            final_table(measured.test, measured.popularity, measured.oracle, cfg.evaluation.cutoffs)
        )
    if not fit.epochs:
        what = "nothing was trained"
        console.print(f"{what}, and nothing was measured" if measured is None else what)
    elif cfg.trainer.metric is None:
        console.print(f"{fit.epochs} epochs, {fit.seconds:.0f} s; nothing was measured")
        console.print(
            f"use it with `negrec recommend run={result.run_id}`, or start another run from its "
            f"weights with init_from={result.run_id}"
        )
    else:
        console.print(
            f"best epoch {fit.best_epoch + 1} of {fit.epochs} "
            f"(valid/{cfg.trainer.metric} {fit.best_value:.4f}), {fit.seconds:.0f} s"
        )
    if not fit.converged:
        log.warning(
            "the best epoch is the last: the model was still improving; go on with "
            "`negrec train run=%s trainer.max_epochs=%d`",
            result.run_id,
            2 * fit.epochs,
        )
    console.print(f"run {result.run_id} in {result.folder}", soft_wrap=True)
    best = Checkpoints(result.folder / "checkpoint").best
    if best.exists():
        console.print(f"checkpoint {best}", soft_wrap=True)
    print(result.where)


def withdraw(settings: HydraConf) -> None:
    """Takes back what Hydra wrote for a run that never began, so that nothing is half there.

    Only what Hydra wrote: the folder may be one of the user's.
    """
    if ranks.silent():
        return  # nothing was written
    folder = Path(settings.runtime.output_dir)
    if (folder / "run.json").exists():
        return  # the run had begun, now or in an earlier process
    root = logging.getLogger()
    for handler in [x for x in root.handlers if isinstance(x, logging.FileHandler)]:
        root.removeHandler(handler)  # closed, it would open its file again for another line
        handler.close()
    (folder / f"{settings.job.name}.log").unlink(missing_ok=True)
    if settings.output_subdir is not None:
        shutil.rmtree(folder / settings.output_subdir)
    here = Path.cwd()
    for left in (folder, folder.parent):  # the run's and the day's
        if any(left.iterdir()) or here.is_relative_to(left):
            break
        left.rmdir()


@contextmanager
def _seen_by_hydra(arguments: Sequence[str]) -> Iterator[None]:
    """The arguments as the program's, and errors as exceptions in place of Hydra's reports."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [argv[0], *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
