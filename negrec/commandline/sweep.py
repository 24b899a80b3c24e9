"""``negrec train -m``: many jobs as one sweep, which can be typed again and loses nothing."""

from __future__ import annotations

import logging
import math
import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from hydra.utils import instantiate
from omegaconf import DictConfig

from negrec.commandline import configuration, explain, plan, sweep_table, train
from negrec.commandline.plan import Sweep
from negrec.commandline.sweep_table import Outcome
from negrec.commandline.typed import Typed, quoted
from negrec.sweeping import jobs, tuning
from negrec.sweeping.display import Display
from negrec.sweeping.jobs import Failure
from negrec.tracking.base import Status, Tracker
from negrec.tracking.runs import at_work
from negrec.training.interruption import InterruptedRunError, exit_code

if TYPE_CHECKING:
    from negrec.commandline.forecasting import Outlook

log = logging.getLogger(__name__)

# What a job learns of the command that started it, on whatever machine it runs.
_STARTED = "NEGREC_SWEEP_STARTED"  # when, seconds since 1970
_PROCESS = "NEGREC_SWEEP_PROCESS"  # its process
_PARENT = "NEGREC_PARENT_RUN"  # the sweep's run in the tracking store
_WHERE = "NEGREC_SWEEP_WHERE"  # the folder that it was typed in
_PROGRAM = "NEGREC_SWEEP_PROGRAM"  # what was typed before its overrides

_STORE_SECONDS = 120.0  # the longest wait for a store that has to be made
_WATCH_SECONDS = 1.0
_SAVE_SECONDS = 30.0  # the longest wait for jobs that save their state
_STOP = "stop"  # a file in the sweep's folder that says so to jobs of other processes


def run(typed: Typed) -> int:
    """Runs the jobs of ``negrec train -m ...``; 0, 1 where one failed, 128 + a signal's number.

    Raises:
        InputError: the sweep cannot be meant; nothing has been written.
    """
    # The clock may be set meanwhile: what it says is compared with files only.
    started, began = time.time(), time.monotonic()
    sweep = plan.planned(typed)
    # Only now: it imports torch.
    from negrec.commandline import forecasting
    from negrec.sweeping.record import Record

    record = Record.read(sweep.folder) or Record(sweep.name)
    outlook, record = forecasting.foretold(sweep, record)
    sweep = outlook.sweep
    sweep_table.show_plan(outlook)
    if sweep.frame.sweep.dry_run:
        return 0
    sweep.folder.mkdir(parents=True, exist_ok=True)
    record.plus(outlook.order).write(sweep.folder)
    with _parent(sweep, record.id) as parent:
        interrupted = _work(outlook, started, parent.identify(_STORE_SECONDS))
        outcome = Outcome.of(sweep, started)
        status: Status = "KILLED" if interrupted else "FAILED" if outcome.failed else "FINISHED"
        parent.log(outcome.metrics)
        parent.finish(status)
    sweep_table.show_outcome(sweep, outcome, time.monotonic() - began, bool(interrupted))
    if not (interrupted or outcome.missing) and (sweep.frame.sweep.tune or sweep.searches):
        _tell_the_best(sweep, outcome)
    return interrupted or int(bool(outcome.failed or outcome.missing))


def _tell_the_best(sweep: Sweep, outcome: Outcome) -> None:
    """The best setting of each data set and sampler, as a file where one is asked for."""
    for found in tuning.best(outcome.folders, plan.tuned(sweep.axes)):
        values = " ".join(f"{key}={value}" for key, value in found.values.items())
        print(
            f"{found.dataset} {found.sampler}: the best of {found.trials} settings is {values} "
            f"(valid/{found.metric} {found.value:.4f})"
        )
        if sweep.frame.sweep.tune:
            print(f"    in {found.write(configuration.writable_dir(), sweep.name)}")


@contextmanager
def _parent(sweep: Sweep, run_id: str) -> Iterator[Tracker]:
    """The sweep's own run in the tracking store, which is closed however the sweep ends."""
    parent: Tracker = instantiate(sweep.frame.tracking)(sweep.folder, run_name=sweep.name)
    tags = {"negrec.sweep": sweep.name, "negrec.kind": "sweep", "negrec.command": sweep.command}
    parent.start({}, {"negrec.run_id": run_id, **tags})
    try:
        yield parent
    except (train.StopError, KeyboardInterrupt):
        parent.finish("KILLED")
        raise
    except BaseException:
        parent.finish("FAILED")
        raise


def _work(outlook: Outlook, started: float, parent: str | None) -> int:
    """Runs what is to be done; 0, or 128 + the number of the signal that ended it."""
    sweep = outlook.sweep
    expected = {
        folder: forecast.seconds if (forecast := outlook.forecasts.get(cell.key)) else None
        for cell in (() if sweep.searches else sweep.cells)
        for _, folder in cell.jobs.values()
        if sweep.is_open(folder)
    }
    done = 0 if sweep.searches else sweep.total - len(expected)
    try:
        with (
            Display(sweep.folder, expected, sweep.total, done, outlook.at_once, started),
            _stopping_jobs(sweep.folder),
        ):
            _launch(sweep, started, parent)
    except train.StopError as stop:
        return stop.code
    except KeyboardInterrupt as stop:
        return exit_code(stop)
    return 0


def _launch(sweep: Sweep, started: float, parent: str | None) -> None:
    """Hands the jobs to Hydra's launcher, until each of them has come to an end.

    A process that dies takes with it what others of the same launcher were doing. What it
    interrupted runs again, one job at a time, so that the one to blame is found out.
    """
    flags = [flag for flag in sweep.typed.flags if flag not in ("-m", "--multirun")]
    program = shlex.join(["negrec", "train", *flags])
    about = {
        _STARTED: str(started),
        _PROCESS: str(os.getpid()),
        _PARENT: parent or "",
        _WHERE: str(Path.cwd()),
        _PROGRAM: program,
    }
    around = [f"++hydra.job.env_set.{key}={quoted(value)}" for key, value in about.items()]
    if sweep.typed.value("hydra.sweep.dir") is None:
        around.append(f"hydra.sweep.dir={quoted(str(sweep.folder))}")
    if sweep.typed.value("hydra/job_logging") is None:
        around.append("hydra/job_logging=negrec_sweep")
    around.append(f"sweep.name={sweep.name}")
    typed = replace(sweep.typed, words=tuple(w for w in sweep.typed.words if not _names(w)))
    words = {folder: overrides for cell in sweep.cells for overrides, folder in cell.jobs.values()}
    before = {name: _last_line(sweep.folder / name) for name in sweep.folders}
    while True:
        try:
            train.launch(typed.plus(*around))
            return
        except Exception as error:
            suspects = [name for name in before if _cut_off(sweep.folder / name, before[name])]
            if not suspects:
                raise
            log.debug("a worker died: %s", error)
        hydras = [w for w in sweep.typed.words if plan.is_about(w, "hydra")]
        for name in suspects:
            own = [word for word in words[name] if not _names(word)]
            alone = Typed(sweep.typed.flags, (*own, *hydras, *around))
            try:
                train.launch(alone)
            except Exception as error:
                folder = sweep.folder / name
                if not _cut_off(folder, before[name]):
                    raise
                what = explain.one_line(f"its process died ({type(error).__name__}: {error})")
                hint = "was there memory enough? Fewer jobs at once need less"
                own = [word for word in words[name] if not plan.is_about(word, "sweep")]
                Failure(f"{what}; {hint}", f"{program} {shlex.join(own)}", None).write(folder)


@contextmanager
def _stopping_jobs(folder: Path) -> Iterator[None]:
    """A signal lets the jobs of other processes save before their launcher kills them."""
    note = folder / _STOP
    note.unlink(missing_ok=True)

    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        restore()  # once more to stop at once
        note.touch()
        deadline = time.monotonic() + _SAVE_SECONDS
        while any(map(at_work, folder.iterdir())) and time.monotonic() < deadline:
            time.sleep(0.1)
        signal.raise_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup: stays ignored
            before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        restore()
        note.unlink(missing_ok=True)


def _names(word: str) -> bool:
    return word.lstrip("+").startswith("sweep.name=")


def _last_line(folder: Path) -> int | None:
    """When a job's log was written to, in ns; None where there is none."""
    written = folder / "train.log"
    return written.stat().st_mtime_ns if written.exists() else None


def _cut_off(folder: Path, before: int | None) -> bool:
    """Whether a job began with this command and did not end; ``before``: its log's last line."""
    begun = _last_line(folder) != before
    return begun and jobs.look(folder).status not in ("FINISHED", "FAILED")


def job(cfg: DictConfig, settings: HydraConf) -> float | None:
    """One job of a sweep, in whatever process: its best validation value, None where it failed.

    What is done already is not done again, and a failure is written down in place of raised, so
    that no launcher stops the other jobs for it.
    """
    folder = Path(settings.runtime.output_dir)
    overrides = [w for w in settings.overrides.task if not plan.is_about(w, "sweep")]
    _stop_with_the_sweep(Path(settings.sweep.dir))
    key = None
    try:
        os.chdir(os.environ.get(_WHERE, "."))  # what was typed may be relative to it
        train.refuse_unknown(cfg)
        from negrec import experiment  # imports torch

        with experiment.alone_in(folder, wait=True):
            key = experiment.key(cfg, experiment.read(cfg))
            started = float(os.environ.get(_STARTED, math.inf))
            past = jobs.settled(folder, key, cfg.sweep.retry, started)
            if past is not None:
                if past.git_commit != experiment.git_commit():
                    log.warning("this is the result of another commit, %s", past.git_commit)
                return past.value
            # Workers share a terminal, which belongs to the sweep.
            cfg.trainer.progress = False
            name = Path(settings.sweep.dir).name
            result = experiment.run(cfg, folder, overrides, name, train.choices(settings))
            return result.fit.best_value
    except InterruptedRunError as error:
        log.error("negrec: %s and saved", error)
        if os.environ.get(_PROCESS) != str(os.getpid()):
            # It would take the next job, and its end is a reason for some launchers to kill the
            # workers that are still saving: the sweep ends it.
            time.sleep(_SAVE_SECONDS)
            os._exit(exit_code(error))
        raise train.StopError(exit_code(error)) from error
    except Exception as error:
        line = explain.inside_a_job(error)
        if line is None:
            log.exception("negrec: this job failed")
            line = explain.one_line(f"{type(error).__name__}: {error}")
        log.error("negrec: %s", line)
        command = f"{os.environ.get(_PROGRAM, 'negrec train')} {shlex.join(overrides)}"
        Failure(line, command, key).write(folder)
        return None


def _stop_with_the_sweep(folder: Path) -> None:
    """A worker saves its job when the sweep is stopped, or when its parent is gone."""
    parent = os.getppid()
    if os.environ.get(_PROCESS) in (None, str(os.getpid())):
        return

    def watch() -> None:
        while os.getppid() == parent and not (folder / _STOP).exists():
            time.sleep(_WATCH_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    if not any(thread.name == _stop_with_the_sweep.__name__ for thread in threading.enumerate()):
        threading.Thread(target=watch, name=_stop_with_the_sweep.__name__, daemon=True).start()
