"""No password or token reaches a run's folder or the tracking store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import negrec
from negrec import cli

CANARY = "Sesame-4711-canary"
SMALL = [
    *("dataset.users=60", "dataset.items=30", "trainer.max_epochs=1", "trainer.batch_size=32"),
    *("trainer.threads=1", "model.dim=8", "diagnostics=none"),
]
SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": CANARY,
    "MLFLOW_TRACKING_TOKEN": CANARY,
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "SHOP_API_KEY": CANARY,
    "HF_TOKEN": CANARY,
    "PGPASSWORD": CANARY,
}


def planted(folder: Path) -> list[Path]:
    """The files below a folder that hold the canary, in any common writing."""
    needles = [CANARY.encode(), CANARY.encode("utf-16-le")]
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return [file for file in files if any(needle in file.read_bytes() for needle in needles)]


def train(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(negrec.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "negrec", "train", *SMALL, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": root, **SECRETS, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def here(tmp_path, migrated):
    """A working directory with an empty store, and configuration that holds secrets."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "mlflow.db").write_bytes(migrated.read_bytes())
    # A file of the person's own: what it says may be used, and is not written down.
    options = tmp_path / "conf" / "experiment"
    options.mkdir(parents=True)
    (options / "shop.yaml").write_text(
        "# @package _global_\n"
        "shop:\n"
        f"  address: https://ann:{CANARY}@shop.example/clicks.csv\n"
        f"  query: https://shop.example/clicks.csv?token={CANARY}&day=1\n"
        "  key: ${oc.env:SHOP_API_KEY}\n"
    )
    return folder


@pytest.mark.slow
def test_nothing_is_written_down(here, tmp_path):
    server = f"http://ann:{CANARY}@127.0.0.1:9"  # nothing listens there
    conf = str(tmp_path / "conf")
    store = ["tracking.uri=sqlite:///mlflow.db", "experiment=shop"]
    done = train(here, *store, MLFLOW_TRACKING_URI=server, NEGREC_CONF_DIR=conf)
    assert done.returncode == 0, done.stderr
    assert CANARY not in done.stdout + done.stderr
    assert list(here.rglob("mlruns/**/config.yaml"))  # it was tracked
    away = train(here, "tracking.flush_seconds=0", MLFLOW_TRACKING_URI=server)
    assert away.returncode == 0, away.stderr
    assert CANARY not in away.stdout + away.stderr
    assert len(list(here.rglob("tracking.json"))) == 2
    assert planted(here) == []
    (here / "seen.txt").write_text(f"x{CANARY}")
    assert planted(here) == [here / "seen.txt"]  # the search finds one


@pytest.mark.parametrize(
    "word",
    [
        f"tracking.uri=http://ann:{CANARY}@host:5000",
        f"dataset.path=https://ann:{CANARY}@host/clicks.csv",
        f"dataset.path='https://host/clicks.csv?token={CANARY}'",
        f"+note={CANARY}",  # the value of a variable
    ],
)
def test_a_typed_secret_is_refused(tmp_path, monkeypatch, capsys, word):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_API_KEY", CANARY)
    assert cli.main(["train", word]) == 2
    out, err = capsys.readouterr()
    assert "would be saved with the run" in err
    assert CANARY not in out + err
    assert not list(tmp_path.iterdir())
