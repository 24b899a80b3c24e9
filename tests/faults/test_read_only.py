"""Folders that can be read only."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.conftest import SMALL, folder_of, go_on, run_id
from tests.faults.forks import Forks, Run

WORDS = [*(word for word in SMALL[1:] if not word.startswith("dataset."))]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [f"u{n % 70},i{n * n % 50},{n}\n" for n in range(2000)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "clicks.csv").write_text("user,item,timestamp\n" + "".join(rows))
    return tmp_path / "data"


def possible(run: Run) -> Run:
    if "OSError: [Errno 1] unshare" in run.said:
        pytest.skip("no folder can be made read-only for root here")
    return run


def error(run: Run) -> str:
    assert "Traceback" not in run.said, run.said
    (line,) = [line for line in run.said.splitlines() if line.startswith("negrec: ")]
    return line


@pytest.mark.long
def test_data(forks: Forks, data: Path, tmp_path: Path) -> None:
    fault = ("read_only", str(data))
    run = possible(forks.run(tmp_path, "train", f"{data}/clicks.csv", *WORDS, faults=[fault]))
    assert run.code == 0, run.said
    assert [path.name for path in data.iterdir()] == ["clicks.csv"]


@pytest.mark.long
def test_a_cache_that_has_the_data_set(forks: Forks, data: Path, tmp_path: Path) -> None:
    command = ["train", f"{data}/clicks.csv", *WORDS]
    assert forks.run(tmp_path, *command).code == 0
    shutil.rmtree(tmp_path / "multirun")
    run = possible(forks.run(tmp_path, *command, faults=[("read_only", str(tmp_path / "cache"))]))
    assert run.code == 0, run.said


@pytest.mark.long
def test_a_cache_that_has_it_not(forks: Forks, data: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    fault = ("read_only", str(tmp_path / "cache"))
    run = possible(forks.run(tmp_path, "train", f"{data}/clicks.csv", *WORDS, faults=[fault]))
    assert run.code == 2, run.said
    assert "the cache folder" in error(run)
    assert "paths.cache_dir=FOLDER" in error(run)
    assert not list(tmp_path.glob("multirun/*"))


def test_the_folder_of_runs(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "multirun").mkdir()
    run = possible(forks.run(tmp_path, *SMALL, faults=[("read_only", str(tmp_path / "multirun"))]))
    assert run.code == 2, run.said
    assert "cannot write to" in error(run)
    assert "paths.runs_dir=FOLDER" in error(run)


@pytest.mark.long
def test_the_folder_of_a_run_that_goes_on(forks: Forks, cut: Path) -> None:
    fault = ("read_only", str(folder_of(cut)))
    run = possible(forks.run(cut, "train", f"run={run_id(cut)}", faults=[fault]))
    assert run.code == 2, run.said
    assert "cannot write" in error(run)
    assert go_on(forks, cut).code == 0


@pytest.mark.long
def test_a_sweep(forks: Forks, tmp_path: Path) -> None:
    (tmp_path / "multirun").mkdir()
    words = [*SMALL, "-m", "seed=0,1", "sweep.probe=0"]
    run = possible(forks.run(tmp_path, *words, faults=[("read_only", str(tmp_path / "multirun"))]))
    assert run.code == 2, run.said
    assert "cannot write" in error(run)
