"""Several processes on one cache while it is made."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.faults.conftest import SMALL, Came, folder_of
from tests.faults.forks import Forks

WORDS = ["train", "clicks.csv", *(word for word in SMALL[1:] if not word.startswith("dataset."))]
WRITE = "negrec.data.cache._write"


@pytest.fixture
def started(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with the same data set; their runs share a cache."""
    rows = [f"u{n % 70},i{n * n % 50},{n}\n" for n in range(2000)]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "clicks.csv").write_text("user,item,timestamp\n" + "".join(rows))
    return tmp_path / "one", tmp_path / "two"


@pytest.mark.long
def test_one_builds_and_the_other_waits(
    forks: Forks, started: tuple[Path, Path], tmp_path: Path
) -> None:
    one, two = started
    mark, cache = tmp_path / "mark", {"NEGREC_CACHE_DIR": str(tmp_path / "cache")}
    builder = forks.start(one, *WORDS, faults=[("hold", WRITE, str(mark))], **cache)
    builder.until(mark.exists)
    # It would die if it built too.
    waiting = forks.start(two, *WORDS, faults=[("die_in", WRITE, 0)], **cache)
    waiting.until(lambda: _holds_open(waiting.pid, ".lock"))
    assert not waiting.ended()
    mark.unlink()
    assert (builder.wait(), waiting.wait()) == (0, 0), builder.said + waiting.said
    assert Came.to(folder_of(one)) == Came.to(folder_of(two))
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


@pytest.mark.long
@pytest.mark.parametrize("target", ["numpy.save", "polars.DataFrame.write_parquet"])
def test_the_builder_is_killed(
    forks: Forks, started: tuple[Path, Path], tmp_path: Path, target: str
) -> None:
    one, two = started
    mark, cache = tmp_path / "mark", {"NEGREC_CACHE_DIR": str(tmp_path / "cache")}
    dies = [("hold", WRITE, str(mark)), ("die_in", target, 1, "torn")]
    builder = forks.start(one, *WORDS, faults=dies, **cache)
    builder.until(mark.exists)
    waiting = forks.start(two, *WORDS, **cache)
    waiting.until(lambda: _holds_open(waiting.pid, ".lock"))
    mark.unlink()
    assert (builder.wait(), waiting.wait()) == (-9, 0), waiting.said
    assert "damaged" not in waiting.said
    assert not list((tmp_path / "cache").glob("*.part-*"))
    again = forks.run(one, *WORDS, **cache)
    assert again.code == 0, again.said
    assert Came.to(folder_of(one)) == Came.to(folder_of(two))


def _holds_open(pid: int, suffix: str) -> bool:
    """Whether a process has a file open, seen from outside."""
    time.sleep(0.01)
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if str(descriptor.readlink()).endswith(suffix):
                return True
        except OSError:  # closed meanwhile
            continue
    return False
