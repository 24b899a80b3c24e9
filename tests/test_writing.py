import errno
from pathlib import Path

import polars as pl
import pytest

from negrec.errors import InputError
from negrec.writing import replacing


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.json"
    path.write_text("old")
    return path


def fail(file: Path, error: BaseException) -> None:
    with replacing(file, pl.exceptions.PolarsError) as aside:
        aside.write_text("half")
        raise error


def test_the_new_one_takes_the_place_at_the_end(file: Path) -> None:
    with replacing(file) as aside:
        aside.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError()])
def test_what_is_no_fault_of_the_disk_passes(file: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        fail(file, error)
    assert file.read_text() == "old"
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (pl.exceptions.ComputeError("os error 28"), "os error 28"),
    ],
)
def test_a_full_disk_is_said(file: Path, error: Exception, reason: str) -> None:
    with pytest.raises(InputError) as raised:
        fail(file, error)
    assert str(raised.value).startswith(f"cannot write {file} ({reason}): free some space")
    assert file.read_text() == "old"
    assert [path.name for path in file.parent.iterdir()] == ["a.json"]
