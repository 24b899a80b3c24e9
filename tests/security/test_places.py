"""What lies where: data in their folder, pages on this machine, names as text on a page."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

import negrec
from negrec import cli
from negrec.data.columns import Columns
from negrec.data.interactions import Counts
from negrec.data.tables import Source, load
from negrec.errors import InputError
from negrec.reporting import report, runs
from tests.reporting.fake_runs import write
from tests.tracking.stores import Store, until

SOURCE = Source(
    url="https://host/x", preparation="", licence="", citation="", counts=Counts(2, 2, 4)
)


@pytest.mark.parametrize("path", ["../secret.parquet", "a/../../secret.parquet", "{absolute}"])
@pytest.mark.parametrize("what", ["path", "attributes"])
def test_a_named_data_set_lies_in_its_folder(tmp_path, path, what):
    folder = tmp_path / "data"
    folder.mkdir()
    table = pl.DataFrame({"user": [1, 1, 2, 2], "item": [1, 2, 1, 2], "attribute": ["a"] * 4})
    for place in (tmp_path / "secret.parquet", folder / "here.parquet"):
        table.write_parquet(place)
    given = {"path": "here.parquet", "attributes": None}
    assert load("shop", **given, columns=Columns(), cache_dir=tmp_path / "c", data_dir=folder,
                source=SOURCE).n_users == 2  # fmt: skip
    given[what] = path.format(absolute=tmp_path / "secret.parquet")
    with pytest.raises(InputError, match="leads out of the folder"):
        load("shop", **given, columns=Columns(), cache_dir=tmp_path / "c", data_dir=folder,
             source=SOURCE)  # fmt: skip


@pytest.mark.parametrize("name", ["../up", "/tmp/x", "a\\b"])
def test_a_sweep_is_a_folder_of_the_runs(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    words = ["seed=0,1", f"sweep.name='{name}'", "tracking=none", "sweep.dry_run=true"]
    assert cli.main(["train", "-m", *words]) == 2
    assert "make a folder's name" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def listening(pid: int) -> set[str]:
    """The addresses at which the processes of a session listen."""
    sockets = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            session = (folder / "stat").read_text().rpartition(")")[2].split()[3]
            links = [link.readlink().name for link in (folder / "fd").iterdir()]
        except OSError:
            continue  # gone, or another person's
        if int(session) == pid:
            sockets |= {link[8:-1] for link in links if link.startswith("socket:[")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found.add(fields[1].split(":")[0])
    return found


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> Store:
    return Store(Path(shutil.copy(migrated, tmp_path / "mlflow.db")))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_no_variable_opens_the_pages_to_others(store: Store, request: pytest.FixtureRequest):
    widened = {
        "MLFLOW_HOST": "0.0.0.0",
        "UVICORN_HOST": "0.0.0.0",
        "MLFLOW_UVICORN_OPTS": "--fd 0",  # in place of an address
        "UVICORN_FD": "0",
        "GUNICORN_CMD_ARGS": "--bind 0.0.0.0:5999",
        "MLFLOW_GUNICORN_OPTS": "--bind 0.0.0.0:5999",
    }
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "negrec", "ui", "--port", "5700"],
        cwd=store.path.parent,
        env={**os.environ, "PYTHONPATH": str(Path(negrec.__file__).parents[1]), **widened},
        stdout=subprocess.PIPE,
        text=True,
    )
    request.addfinalizer(process.terminate)
    assert process.stdout is not None
    with process.stdout as out:
        assert out.readline().startswith("opening http://127.0.0.1:")
        assert out.readline().startswith("MLflow is at http://127.0.0.1:")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        server = int(children[0])  # in a session of its own
        until(lambda: listening(server) != set(), 20)
        assert listening(server) == {"0100007F"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


SCRIPT = "<script>alert(1)</script><img src=x onerror=alert(2)>"


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_names_are_text_on_a_page(tmp_path):
    sweep = tmp_path / "runs" / "sweep"
    for number, sampler in enumerate(("uniform", SCRIPT)):
        for seed in range(2):
            write(
                sweep / f"{number}-{seed}",
                run_id=f"{SCRIPT}{number}{seed}",
                sampler=sampler,
                dataset=SCRIPT,
                split=SCRIPT,
                loss=SCRIPT,
                seed=seed,
                data_hash=SCRIPT,
                config={"model.dim": 64 + number, SCRIPT: SCRIPT},
                choices={"model": SCRIPT},
            )
    (sweep / "failed").mkdir()
    failure = {"error": SCRIPT, "command": SCRIPT, "key": None}
    (sweep / "failed" / "failure.json").write_text(json.dumps(failure))
    record = {"name": SCRIPT, "orders": [{"command": SCRIPT, "jobs": 2, "seconds": 1, "seeds": 2}]}
    (sweep / "sweep.json").write_text(json.dumps(record))
    report.write(runs.find(tmp_path / "runs"), tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;script&gt;alert(1)" in page  # it is there, as text
    for tag, attributes in Tags(page).found:
        assert tag != "script"
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("src", "") != "x"
