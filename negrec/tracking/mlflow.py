"""MLflow: the one module that imports it, and only in a process of its own.

A run writes its events to its folder (see :mod:`negrec.tracking.base`). A second process, this
module run as a program, reads them there and sends them to MLflow, and keeps in ``tracking.json``
how far it came. So training never waits for a store, a server or the two seconds of
``import mlflow`` (a thread would: it holds the interpreter's lock while it imports), and whatever
was not sent is still in the log.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, ParamSpec, TypeVar
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from negrec.errors import InputError
from negrec.tracking.base import RUN_ID_TAG, Status, Tracker
from negrec.tracking.events import FILE_NAME, Event, EventLog
from negrec.tracking.redaction import without_secrets
from negrec.tracking.runs import at_work

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# All of it must be set before `import mlflow`. Our own pause between attempts takes the place of
# MLflow's retries, which would hold a call for minutes.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
}
PARENT_VARIABLE = "NEGREC_PARENT_RUN"

# MLflow's page of runs hides metrics and tags until they are chosen. A view that somebody shares is
# a tag of the experiment, and its key stands in the address (MLflow 3.17; the format is its own).
VIEW = "negrec"
_COLUMNS = (
    *("tags.`negrec.dataset`", "tags.`negrec.split`", "tags.`negrec.sampler`"),
    *("tags.`negrec.loss`", "metrics.`best/value`", "metrics.`test/hr_10`"),
    *("metrics.`test/ndcg_10`", "metrics.`test/balance_10`", "metrics.`cost/seconds`"),
)
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
_VIEW = {"selectedColumns": _COLUMNS, "orderByKey": "metrics.`best/value`", "orderByAsc": False}

_SCHEMES = r"(https?|sqlite|postgresql|mysql|mssql|databricks)(\+\w+)?://.+|databricks"
_POLL_SECONDS = 0.5  # how often the log is looked at
_LONGEST_PAUSE_SECONDS = 30.0  # between attempts while nothing answers
_SLOW_SECONDS = 3.0  # a call to a server that takes longer is trouble
_LAST_TRY_SECONDS = 2.0  # what a run waits at its end for a server in trouble
_LOCK_SECONDS = 5.0
_STORE_SECONDS = 120.0  # several processes make a store one after the other, 8 s for the first

# The limits of one call (mlflow/utils/validation.py), with room for JSON around the values.
_MOST_METRICS = 500
_MOST_NAMES = 100
_MOST_CHARACTERS = 100_000  # a character outside ASCII takes six bytes, and 1 MB is the limit

_TEXT_SUFFIXES = {".yaml", ".yml", ".json", ".jsonl", ".log", ".txt", ".md", ".csv"}


class MLflowTracker(Tracker):
    """Sends what a run tracks to MLflow while the run goes on, without ever holding it up.

    The end of the run waits for what is still on its way, at most ``flush_seconds``, and about
    two seconds where the server is refusing or slow. What is unsent then stays in the run folder,
    and the log names the command that sends it.

    Args:
        folder: the run folder; it exists.
        run_name: what a person calls the run.
        experiment: MLflow's experiment; made where it does not exist.
        uri: a SQLite file (``sqlite:///mlflow.db``, relative to the working directory), another
            database of SQLAlchemy's, or a server (``http://host:5000``).
        artifact_root: folder or URI for the artifacts of a new experiment; by default ``mlruns``
            beside the SQLite file, and on a server what the server decides.
        flush_seconds: the longest wait at the end of a run, seconds.
        model: the model of a run is stored as an MLflow model; "auto": of every run that is on its
            own, and of none in a sweep.
    """

    def __init__(
        self,
        folder: Path,
        run_name: str,
        experiment: str = "negrec",
        uri: str = "sqlite:///mlflow.db",
        artifact_root: str | None = None,
        flush_seconds: float = 60.0,
        model: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__(folder, run_name, experiment)
        if not (math.isfinite(flush_seconds) and flush_seconds >= 0):
            raise InputError(f"tracking.flush_seconds={flush_seconds}: give seconds, 0 or more")
        self.uri = absolute_uri(uri)
        self.artifact_root = artifact_root
        self.flush_seconds = flush_seconds
        self._stores_model = model
        self._delivery: Delivery | None = None

    def start(self, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Begins the run, or goes on with it, and starts to send."""
        parent = os.environ.get(PARENT_VARIABLE)
        super().start(params, {**tags, "mlflow.parentRunId": parent} if parent else tags)
        try:
            self._delivery = Delivery(self.folder, self.uri, self.artifact_root)
        except OSError as error:  # no memory, no more processes: the log still has everything
            log.warning("MLflow is not reached, no process for it (%s)", error)

    def finish(self, status: Status) -> None:
        """Ends the run and waits, within limits, until all of it has arrived."""
        if self._finished:
            return
        super().finish(status)
        arrived = False
        try:
            arrived = self._delivery is not None and self._delivery.finish(self.flush_seconds)
        finally:  # Ctrl-C may end the wait
            self._delivery = None
            if not arrived:
                log.warning(
                    "%s has not got everything%s; it is kept in %s and sent by: %s",
                    without_secrets(self.uri),
                    _because(Progress.read(self.folder).trouble),
                    self._log.path,
                    f"negrec sync run={self.run_id}",
                )

    def stores_model(self, in_sweep: bool) -> bool:
        return not in_sweep if self._stores_model == "auto" else bool(self._stores_model)

    def identify(self, seconds: float) -> str | None:
        """MLflow's id of the run."""
        deadline = time.monotonic() + seconds
        progress = Progress.read(self.folder)
        while not (progress.mlflow_run or progress.trouble) and time.monotonic() < deadline:
            time.sleep(0.05)
            progress = Progress.read(self.folder)
        return progress.mlflow_run or None

    def where(self) -> str:
        """The command or address that shows the run."""
        progress = Progress.read(self.folder)
        if not progress.mlflow_run:
            return f"{super().where()}; to MLflow with: negrec sync run={self.run_id}"
        return shown_at(progress)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the events of a run have been sent, kept in the run folder's ``tracking.json``.

    Attributes:
        uri: where to, without credentials.
        artifact_root: see :class:`MLflowTracker`.
        experiment: MLflow's id of the experiment.
        mlflow_run: MLflow's id of the run.
        sent: bytes of the log whose parameters, tags, metrics and states have arrived.
        artifacts: bytes of the log whose artifacts have arrived. They have a mark of their own,
            so that a server that refuses files gets the values nevertheless.
        trouble: why the last attempt failed or was slow; empty while all is well.
    """

    uri: str = ""
    artifact_root: str | None = None
    experiment: str = ""
    mlflow_run: str = ""
    sent: int = 0
    artifacts: int = 0
    trouble: str = ""

    @classmethod
    def read(cls, folder: Path) -> Progress:
        """What is kept in a run folder; nothing sent where there is none."""
        path = folder / "tracking.json"
        try:
            return cls(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError):
            # Sending again from the start costs time only: a store keeps one of equal values.
            log.warning("%s is damaged and not used", path)
            return cls()

    def towards(self, uri: str, artifact_root: str | None) -> Progress:
        """This, or a new beginning where it is about another store."""
        public = without_secrets(uri)
        return self if self.uri == public else Progress(public, artifact_root)

    def write(self, folder: Path) -> None:
        """Atomically: a killed process leaves the old state or the new one."""
        temporary = folder / "tracking.json.tmp"
        temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        temporary.replace(folder / "tracking.json")


class Delivery:
    """The process that sends a run's events to MLflow, seen from the run.

    Args:
        folder: the run folder.
        uri: where to.
        artifact_root: see :class:`MLflowTracker`.
    """

    def __init__(self, folder: Path, uri: str, artifact_root: str | None = None) -> None:
        self._folder = folder
        # From the first moment on it is known where the run's values belong.
        Progress.read(folder).towards(uri, artifact_root).write(folder)
        package_root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "negrec.tracking.mlflow"],
            stdin=subprocess.PIPE,
            # Chatter of MLflow and Alembic; trouble comes through tracking.json.
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for the run, which then says how it ended
        )
        # Not on the command line: the address may hold a password, and `ps` shows commands.
        order = {"folder": str(folder), "uri": uri, "artifact_root": artifact_root}
        self._say(json.dumps(order))

    def finish(self, seconds: float, patience: float = _LAST_TRY_SECONDS) -> bool:
        """Lets it send the rest; whether all arrived.

        Args:
            seconds: the longest wait.
            patience: the longest wait while MLflow is in trouble, seconds.
        """
        self._say("finish")
        now = well = time.monotonic()
        deadline = now + seconds
        try:
            while self._process.poll() is None and now < deadline and now - well < patience:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.1)
                now = time.monotonic()
                if not Progress.read(self._folder).trouble:
                    well = now
        finally:
            self._end()
        return self._process.returncode == 0

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def _say(self, line: str) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        # A process that has died says so by its exit code.
        with contextlib.suppress(OSError):
            stdin.write(line.encode() + b"\n")
            stdin.flush()


@dataclass(slots=True)
class _Load:
    """What goes to MLflow in one call."""

    metrics: list[tuple[str, float, int, int]] = field(default_factory=list)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    characters: int = 0

    def add(self, event: Event, name: str, value: str | float) -> None:
        if event.kind == "metrics":
            self.metrics.append((name, float(value), event.time, event.step or 0))
            return
        (self.params if event.kind == "params" else self.tags)[name] = str(value)
        self.characters += len(name) + len(str(value))

    @property
    def full(self) -> bool:
        return (
            len(self.metrics) >= _MOST_METRICS
            or len(self.params) >= _MOST_NAMES
            or len(self.tags) >= _MOST_NAMES
            or self.characters >= _MOST_CHARACTERS
        )


class Sender:
    """Brings a run folder's events to MLflow; whatever is sent twice arrives once.

    Values carry the time at which they were logged, and MLflow's databases keep one of equal
    values, so a batch whose answer was lost can be sent again. A run is found again by its own
    id, so there is never a second one for it.

    Args:
        folder: the run folder; this process holds its ``tracking.lock``.
        uri: where to.
        artifact_root: see :class:`MLflowTracker`.
    """

    def __init__(self, folder: Path, uri: str, artifact_root: str | None = None) -> None:
        self._folder = folder
        self._log = EventLog(folder / FILE_NAME)
        self._client: MlflowClient | None = None
        self._progress = Progress.read(folder).towards(uri, artifact_root)
        self._keep(trouble="")  # of an earlier process
        self._uri = _with_credentials_aside(uri)
        self._artifact_root = artifact_root

    def send(self) -> None:
        """Sends all that is not sent; whatever MLflow raises goes to the caller."""
        if self._log.size <= min(self._progress.sent, self._progress.artifacts):
            return
        if self._client is None:
            self._client = self._open()
        self._send_values(self._client)
        self._send_artifacts(self._client)

    def failed(self, error: Exception) -> None:
        """Notes why an attempt failed; the next one connects anew."""
        self._client = None
        self._keep(trouble=_short(error))

    def end(self, gone: bool) -> None:
        """Says that the run was killed, where its log does not say how it ended.

        Args:
            gone: its process is known to have died.
        """
        events = [event for event, _ in self._log.read()]
        said = [event.values["status"] for event in events if event.kind == "status"]
        ended = bool(said) and said[-1] != "RUNNING"
        if ended or not (gone or not at_work(self._folder)):
            return
        if self._client is None:  # all but this had arrived
            self._client = self._open()
        run = self._progress.mlflow_run
        self._call(self._client.set_terminated, run, "KILLED", events[-1].time)

    def _keep(self, **changes: object) -> None:
        changed = replace(self._progress, **changes)  # type: ignore[arg-type]
        if changed != self._progress:
            self._progress = changed
            changed.write(self._folder)

    def _call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls MLflow and notes whether it is slow."""
        before = time.monotonic()
        answer = function(*args, **kwargs)
        seconds = time.monotonic() - before
        slow = seconds > _SLOW_SECONDS and self._uri.startswith("http")
        self._keep(trouble=f"slow, {seconds:.1f} s for a call" if slow else "")
        return answer

    def _open(self) -> MlflowClient:
        """A client whose experiment and run exist."""
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        events = [event for event, _ in self._log.read()]
        about = next(event for event in events if event.kind == "run")
        with _opening(self._uri):
            client = MlflowClient(self._uri, registry_uri=self._uri)
            experiment = self._experiment(client, str(about.values["experiment"]))
        run = self._progress.mlflow_run
        if run:
            try:
                self._call(client.get_run, run)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                run = ""  # the store was made anew: it gets everything
        if not run:
            run = self._run(client, experiment, about)
            self._keep(sent=0, artifacts=0)
        self._keep(experiment=experiment, mlflow_run=run)
        return client

    def _experiment(self, client: MlflowClient, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._call(client.get_experiment_by_name, name)
        if found is None:
            location = _artifact_location(self._uri, self._artifact_root, name)
            try:
                view = {VIEW_TAG: json.dumps(_VIEW)}
                make = client.create_experiment
                return str(self._call(make, name, artifact_location=location, tags=view))
            except MlflowException as error:
                # Another run's process was faster.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._call(client.get_experiment_by_name, name)
                assert found is not None
        return str(found.experiment_id)

    def _run(self, client: MlflowClient, experiment: str, about: Event) -> str:
        """MLflow's id of the run, which an attempt without an answer may have made already."""
        run_id = str(about.values["run_id"])
        found = self._call(
            client.search_runs, [experiment], f"tags.`{RUN_ID_TAG}` = '{run_id}'", max_results=1
        )
        if found:
            return str(found[0].info.run_id)
        tags = {RUN_ID_TAG: run_id, "mlflow.source.name": "negrec", "mlflow.source.type": "LOCAL"}
        name = str(about.values["run_name"])
        run = self._call(client.create_run, experiment, about.time, tags, name)
        return str(run.info.run_id)

    def _send_values(self, client: MlflowClient) -> None:
        load = _Load()
        done = self._progress.sent
        for event, end in self._log.read(done):
            if event.kind == "status":
                self._send_load(client, load, done)
                load = _Load()
                self._send_status(client, event)
            elif event.kind in ("params", "tags", "metrics"):
                for name, value in event.values.items():
                    load.add(event, name, value)
                    if load.full:
                        self._send_load(client, load, done)
                        load = _Load()
            done = end
        self._send_load(client, load, done)

    def _send_load(self, client: MlflowClient, load: _Load, done: int) -> None:
        """Sends a load, after which the log has arrived up to ``done``."""
        from mlflow.entities import Metric, Param, RunTag

        if load.metrics or load.params or load.tags:
            self._call(
                client.log_batch,
                self._progress.mlflow_run,
                [Metric(*metric) for metric in load.metrics],
                [Param(*param) for param in load.params.items()],
                [RunTag(*tag) for tag in load.tags.items()],
            )
        self._keep(sent=done)

    def _send_status(self, client: MlflowClient, event: Event) -> None:
        run, status = self._progress.mlflow_run, str(event.values["status"])
        if status == "RUNNING":
            self._call(client.update_run, run, status)
        else:
            self._call(client.set_terminated, run, status, event.time)

    def _send_artifacts(self, client: MlflowClient) -> None:
        done = self._progress.artifacts
        paths: dict[tuple[str, str], None] = {}
        for event, end in self._log.read(done):
            done = end
            if event.kind in ("artifact", "model"):
                paths[event.kind, str(event.values["path"])] = None
        for kind, path in paths:
            if kind == "model":
                self._send_model(client, path)
            else:
                self._send_artifact(client, path)
        self._keep(artifacts=done)

    def _send_model(self, client: MlflowClient, path: str) -> None:
        from negrec.tracking import model

        bundle = self._folder.resolve() / path
        if bundle.is_dir() and bundle.resolve().is_relative_to(self._folder.resolve()):
            self._call(model.log, client, self._progress.mlflow_run, bundle)

    def _send_artifact(self, client: MlflowClient, path: str) -> None:
        root = self._folder.resolve()
        top = root / path
        for file in sorted(top.rglob("*")) if top.is_dir() else [top]:
            # A checkpoint may have been replaced since it was logged, and a link may lead out.
            if not file.is_file() or not file.resolve().is_relative_to(root):
                continue
            parent = file.relative_to(root).parent.as_posix()
            with _clean(file) as clean:
                client.log_artifact(
                    self._progress.mlflow_run, str(clean), None if parent == "." else parent
                )


def absolute_uri(uri: str) -> str:
    """The address, with the path of a SQLite file made absolute."""
    if not re.fullmatch(_SCHEMES, uri):
        raise InputError(
            f"tracking.uri={without_secrets(uri)}: give sqlite:///FILE.db, http://HOST:PORT or "
            "another database; tracking=none runs without MLflow"
        )
    path = sqlite_path(uri)
    return uri if path is None else f"sqlite:///{path}"


def sqlite_path(uri: str) -> Path | None:
    """The absolute path of a SQLite store; None for any other."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).absolute()


def shown_at(progress: Progress) -> str:
    """The command or the address that shows a run."""
    if progress.uri.startswith("http"):
        return f"{progress.uri}/#/experiments/{progress.experiment}/runs/{progress.mlflow_run}"
    if sqlite_path(progress.uri) == Path("mlflow.db").absolute():
        return "see it with: negrec ui"
    return f"see it with: negrec ui --uri {progress.uri}"


def _short(error: Exception) -> str:
    """One line that says what went wrong, without secrets."""
    text = " ".join(without_secrets(str(error)).split())
    if "timed out" in text:
        return "no answer in time"
    if found := re.search(r"too many 5\d\d error responses|Connection refused", text):
        return found[0]
    if "Max retries exceeded" in text or "Connection aborted" in text:
        return "no connection"
    if re.search(r"\b40[13]\b", text):
        text = f"give MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; {text}"
    return f"{type(error).__name__}: {text}"[:200]


def _because(trouble: str) -> str:
    return f" ({trouble})" if trouble else ""


def _with_credentials_aside(uri: str) -> str:
    """The address of a server without its credentials, which move to MLflow's variables.

    MLflow writes addresses into its error messages.
    """
    if not uri.startswith("http"):
        return uri
    parts = urlsplit(uri)
    if parts.username:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(parts.username)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(parts.password or "")
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host).geturl().rstrip("/")


def _artifact_location(uri: str, root: str | None, experiment: str) -> str | None:
    """Where a new experiment keeps its artifacts; None leaves it to a server."""
    if root is None and uri.startswith(("http", "databricks")):
        return None
    if root is None:
        # MLflow's own choice is the working directory of whoever makes the experiment.
        database = sqlite_path(uri)
        root = str((database.parent if database else Path.cwd()) / "mlruns")
    if "://" not in root:
        root = Path(root).absolute().as_uri()
    name = re.sub(r"[^\w.-]", "_", experiment).lstrip(".") or "_"  # ".." would lead out
    return f"{root}/{name}"


@contextlib.contextmanager
def _opening(uri: str) -> Iterator[None]:
    """Held while a store is opened: processes that make a SQLite store at once destroy it."""
    path = sqlite_path(uri)
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=_STORE_SECONDS):
        if not path.exists() or path.stat().st_size == 0:
            _make_store(path)
        yield


def _make_store(path: Path) -> None:
    """Makes an empty store that is there at once: one that is half made is lost for ever.

    MLflow migrates a new store for seconds, and a run that ends meanwhile stops this process.
    """
    from mlflow import MlflowClient

    copy = path.with_name(f"{path.name}.new")
    copy.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "mlflow.db"
        MlflowClient(f"sqlite:///{made}").search_experiments(max_results=1)
        with (
            contextlib.closing(sqlite3.connect(made)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
    copy.replace(path)


@contextlib.contextmanager
def _clean(file: Path) -> Iterator[Path]:
    """The file, or a copy of it without its secrets where it is a text that holds some."""
    if file.suffix not in _TEXT_SUFFIXES:
        yield file
        return
    text = file.read_text(encoding="utf-8", errors="replace")
    clean = without_secrets(text)
    if clean == text:
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        copy.write_text(clean, encoding="utf-8")
        yield copy


def main() -> int:
    """Sends the events of a run folder until the run's process says "finish" or is gone.

    Standard input is one line of JSON (folder, uri, artifact_root), and "finish" at the end.
    Returns 0 when all was sent, 1 when not (``tracking.json`` says why), 2 when another process
    is sending the same run.
    """
    os.nice(5)  # the run has the better right to the processor
    # An orderly end removes the temporary files of what was going on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    order = json.loads(_line())
    folder = Path(order["folder"])
    closing = threading.Event()
    said: list[str] = []

    def listen() -> None:
        said.append(_line())  # empty when the run's process is gone
        closing.set()

    threading.Thread(target=listen, daemon=True).start()
    lock = FileLock(folder / "tracking.lock")
    while True:
        last = closing.is_set()
        try:
            lock.acquire(timeout=_LOCK_SECONDS if last else _POLL_SECONDS)
            break
        except Timeout:
            if last:
                return 2
    with lock:
        sender = Sender(folder, order["uri"], order["artifact_root"])
        return _follow(sender, closing, said)


def _follow(sender: Sender, closing: threading.Event, said: list[str]) -> int:
    pause = _POLL_SECONDS
    while True:
        last = closing.is_set()  # asked before sending: what came before it is sent
        try:
            sender.send()
            if last:
                sender.end(gone=not said[0])
            pause = _POLL_SECONDS
        except Exception as error:  # a store may raise anything, and the log keeps the values
            sender.failed(error)
            if last:
                return 1
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        if last:
            return 0
        closing.wait(pause)


def _line() -> str:
    """A line of standard input, unbuffered: a thread that waits in a buffer disturbs the exit."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return line.decode().strip()


if __name__ == "__main__":
    sys.exit(main())
