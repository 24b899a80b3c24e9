import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest

from negrec.data import cache
from negrec.errors import InputError
from tests.data import made

DATA = made.interactions([(1, 7, 1), (1, 8, 2), (2, 7, 3), (2, 9, 4)])


def no_need():
    raise AssertionError("built although it lies in the cache")


def same(one, other):
    for name in ("user", "item", "timestamp"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.user_ids.equals(other.user_ids)
    assert one.item_ids.equals(other.item_ids)
    assert (one.name, one.hash, one.cleaning) == (other.name, other.hash, other.cleaning)


@pytest.mark.parametrize("data", [DATA, made.interactions([("ü", "a b"), ("2", "c")])])
def test_a_second_run_builds_nothing(tmp_path, data):
    same(cache.cached(tmp_path / "cache", "key", lambda: data), data)
    again = cache.cached(tmp_path / "cache", "key", no_need)
    same(again, data)
    assert isinstance(again.user, np.memmap)


def test_only_whole_entries_have_the_keys_name(tmp_path):
    def fails():
        raise InputError("no data")

    with pytest.raises(InputError, match="no data"):
        cache.cached(tmp_path, "key", fails)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


FILES = ["user.npy", "item.npy", "timestamp.npy", "users.parquet", "items.parquet", "manifest.json"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_a_damaged_entry_is_built_anew(tmp_path, name, damage, caplog):
    cache.cached(tmp_path, "key", lambda: DATA)
    file = tmp_path / "key" / name
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    elif damage == "flip":
        content[len(content) // 2] ^= 0x80
        file.write_bytes(content)
    else:
        file.write_bytes(content[: len(content) - 1 if damage == "cut" else 0])
    built = []
    found = cache.cached(tmp_path, "key", lambda: built.append(1) or DATA)
    assert built
    assert "it is built anew" in caplog.text
    same(found, DATA)
    same(cache.cached(tmp_path, "key", no_need), DATA)
    assert not list(tmp_path.glob("*.part-*"))


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / "key.part-0123").mkdir()
    (tmp_path / "other.part-0123").mkdir()
    cache.cached(tmp_path, "key", lambda: DATA)
    assert [path.name for path in tmp_path.glob("*.part-*")] == ["other.part-0123"]


def built_elsewhere(folder: Path, gate, builds) -> None:
    def build():
        with builds.get_lock():
            builds.value += 1
        return DATA

    gate.wait()
    same(cache.cached(folder, "key", build), DATA)


def test_processes_that_start_at_once_build_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    gate, builds = context.Barrier(3), context.Value("i", 0)
    processes = [
        context.Process(target=built_elsewhere, args=(tmp_path, gate, builds)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert builds.value == 1


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"the cache folder .*file/c cannot be written \(Not a d"):
        cache.cached(tmp_path / "file" / "c", "key", lambda: DATA)


def test_a_cache_of_somebody_else_is_read(tmp_path, monkeypatch):
    cache.cached(tmp_path, "key", lambda: DATA)
    monkeypatch.setattr(cache, "FileLock", no_need)  # reading needs no right to write
    same(cache.cached(tmp_path, "key", no_need), DATA)


def test_keys(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("a")
    shutil.copy(one, other)
    assert cache.key(one, (1, "x")) == cache.key(other, (1, "x"))
    assert cache.key(one, (1, "x")) != cache.key(one, (2, "x"))
    other.write_text("b")
    assert cache.key(one, (1, "x")) != cache.key(other, (1, "x"))
