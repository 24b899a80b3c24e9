import json
from pathlib import Path

import pytest

from negrec.errors import InputError
from negrec.tracking.runs import find_run


def make(folder: Path, run_id: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"run_id": run_id}))
    return folder


def test_runs_of_sweeps_and_single_ones(tmp_path: Path) -> None:
    single = make(tmp_path / "2026" / "a", "0a1b2c3d")
    swept = make(tmp_path / "sweep" / "0" / "b", "11112222")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "run.json").write_text('{"run_')
    assert find_run("0a1b2c3d", tmp_path) == single
    assert find_run("11112222", tmp_path) == swept


@pytest.mark.parametrize("wrong", ["0a1b2c3e", "0a1b"])
def test_unknown_id_names_near_ones(tmp_path: Path, wrong: str) -> None:
    make(tmp_path / "a", "0a1b2c3d")
    make(tmp_path / "b", "ffffffff")
    with pytest.raises(InputError, match=r"near ones: 0a1b2c3d$"):
        find_run(wrong, tmp_path)


def test_no_runs_and_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there are no runs"):
        find_run("0a1b2c3d", tmp_path / "multirun")


def test_a_copied_folder(tmp_path: Path) -> None:
    make(tmp_path / "a", "0a1b2c3d")
    make(tmp_path / "b", "0a1b2c3d")
    with pytest.raises(InputError, match="several folders"):
        find_run("0a1b2c3d", tmp_path)
