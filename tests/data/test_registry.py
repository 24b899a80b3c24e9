import errno
import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import replace
from random import Random

import polars as pl
import pytest

from negrec.commandline.data_list import entries
from negrec.data import registry
from negrec.data.interactions import Counts
from negrec.data.registry import Entry, fetch
from negrec.data.sources.delimited import Delimited
from negrec.data.tables import Source
from negrec.errors import InputError
from tests.data import published
from tests.data.server import served

FOUR = {"user_id": 0, "item_id": 1, "rating": 2, "timestamp": 3}
CSV = b"1,7,4,100\n1,8,5,50\n2,7,3,10\n"


@pytest.fixture(scope="module")
def known():
    return {entry.name: entry for entry in entries()}


def made(url, **more):
    source = Source(url, "all rows", "free", "Z 2020", Counts(2, 2, 3), **more)
    reader = Delimited(FOUR, "number")
    return Entry("z", "z.parquet", True, replace(source, reader=reader))


def fetched(entry, folder, given=None):
    return fetch(entry, folder, given, lambda *at: None)


def left(folder):
    """What lies in a data folder, the lock left out."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return sorted(path.relative_to(folder).as_posix() for path in files)


def test_every_entry_has_a_layout_here(known):
    assert set(published.LAYOUTS) == set(known)


@pytest.mark.parametrize("name", published.LAYOUTS)
def test_an_entry_reads_what_its_owners_publish(known, tmp_path, name):
    rows = published.rows()
    # Of a user with one row and an item with one: what the preparation leaves out of a core.
    extra = [(99, 98, 3, rows[-1][3])]
    content = published.LAYOUTS[name](rows + extra)
    with served(archive=content) as site:
        source = known[name].source
        kind = source.checksum.partition(":")[0] if source.checksum else None
        checksum = kind and f"{kind}:{hashlib.new(kind, content).hexdigest()}"
        local = replace(source, url=f"{site.url}/archive", checksum=checksum)
        done = fetched(replace(known[name], source=local), tmp_path)
    table = pl.read_parquet(done.path)
    core = bool(source.prepare.least)
    assert done.counts == (Counts(6, 6, 36) if core else Counts(7, 7, 37))
    assert done.incomplete == 0
    # Users and items are written in each set's way, in this order.
    table = table.filter(pl.len().over("user_id") == 6)
    assert table["position"].to_list() == [*range(6)] * 6
    assert table["item_id"].n_unique() == 6
    assert table["item_id"].to_list() == table["item_id"][:6].to_list() * 6
    assert table["item_id"][:6].is_sorted()
    assert table["user_id"].is_sorted()
    times = table["timestamp"][:6]
    assert times.dtype == pl.Int64
    days = {"steam": 86_400}.get(name, 1)  # whole days there
    unit = {"retailrocket": 1000}.get(name, 1)
    assert times.to_list() == [t // days * days * unit for _, _, _, t in rows[:6]]
    if "rating" in table.columns:
        assert table["rating"][:6].to_list() == [r for _, _, r, _ in rows[:6]]
    assert ("rating" in source.reader.columns) == ("rating" in table.columns)


def test_the_years_outside_yelps_are_left_out(known, tmp_path):
    rows = published.rows() + [(u, i, 5, 1_500_000_000) for u, i, _, _ in published.rows(5)]
    archive = tmp_path / "yelp.tgz"
    archive.write_bytes(published.yelp(rows))
    assert fetched(known["yelp"], tmp_path, archive).counts == Counts(6, 6, 36)


def test_what_is_left_behind(tmp_path):
    with served(**{"z.csv": CSV}) as site:
        entry = made(f"{site.url}/z.csv")
        done = fetched(entry, tmp_path)
    assert pl.read_parquet(done.path).rows() == [
        (1, 8, 5.0, 50, 0),
        (1, 7, 4.0, 100, 1),
        (2, 7, 3.0, 10, 0),
    ]
    archive = done.archive.relative_to(tmp_path).as_posix()
    assert left(tmp_path) == [archive, "z.parquet", "z.source.json"]
    record = json.loads((tmp_path / "z.source.json").read_text())
    assert record["from"] == f"{site.url}/z.csv"
    assert record["sha256"] == done.sha256 == hashlib.sha256(CSV).hexdigest()
    assert (record["bytes"], record["licence"]) == (len(CSV), "free")


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_checksum_that_fits(tmp_path, kind):
    with served(**{"z.csv": CSV}) as site:
        sum_ = hashlib.new(kind, CSV).hexdigest()
        assert fetched(made(f"{site.url}/z.csv", checksum=f"{kind}:{sum_}"), tmp_path)


def test_a_wrong_checksum(tmp_path):
    with served(**{"z.csv": CSV}) as site:
        entry = made(f"{site.url}/z.csv", checksum="md5:0123")
        with pytest.raises(InputError) as caught:
            fetched(entry, tmp_path)
    assert f"has the md5 {hashlib.md5(CSV).hexdigest()} and should have 0123" in str(caught.value)
    assert left(tmp_path) == []


def test_the_checksum_comes_before_the_archive_is_opened(tmp_path, monkeypatch):
    monkeypatch.delattr(registry, "unpacked")
    with served(**{"z.csv": CSV}) as site, pytest.raises(InputError, match="should have 0123"):
        fetched(made(f"{site.url}/z.csv", checksum="md5:0123"), tmp_path)


def test_an_archive_that_is_here_is_not_asked_for_again(tmp_path):
    with served(**{"z.csv": CSV}) as site:
        entry = made(f"{site.url}/z.csv")
        fetched(entry, tmp_path)
        fetched(entry, tmp_path)
    assert len(site.asked) == 1


def test_equal_ends_of_urls_are_different_files(tmp_path):
    with served(**{"a/z.csv": CSV, "b/z.csv": CSV.replace(b"8", b"9")}) as site:
        fetched(made(f"{site.url}/a/z.csv"), tmp_path)
        done = fetched(made(f"{site.url}/b/z.csv"), tmp_path)
    assert 9 in pl.read_parquet(done.path)["item_id"]


def test_a_page_in_place_of_the_data(tmp_path):
    said = r"is not laid out as z is: .*columns"
    page = {"z.csv": b"<html>\n<p>moved</p>\n"}
    with served(**page) as site, pytest.raises(InputError, match=said) as caught:
        fetched(made(f"{site.url}/z.csv"), tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "z.parquet").exists()


@pytest.mark.parametrize(
    "came",
    [b"<html>\nlog in\n", gzip.compress(CSV)[:-9], b"a,b,c,d\n"],
    ids=["a page", "half a gzip", "another layout"],
)
def test_what_was_no_data_is_not_taken_again(tmp_path, came):
    with served(**{"z.csv": came}) as site:
        entry = made(f"{site.url}/z.csv")
        with pytest.raises(InputError, match="it was removed, and the same command fetches it"):
            fetched(entry, tmp_path)
        assert left(tmp_path) == []
        site.files["/z.csv"] = CSV
        assert fetched(entry, tmp_path).counts.interactions == 3


def test_what_has_the_right_checksum_is_kept(tmp_path):
    # Another layout than the registry's: fetching it again would bring the same.
    page = b"<html>\n"
    with served(**{"z.csv": page}) as site:
        entry = made(f"{site.url}/z.csv", checksum=f"md5:{hashlib.md5(page).hexdigest()}")
        for _ in range(2):
            with pytest.raises(InputError, match="is not laid out as z is"):
                fetched(entry, tmp_path)
    assert len(site.asked) == 1


def test_incomplete_rows_are_left_out_and_counted(tmp_path):
    (tmp_path / "z.csv").write_bytes(CSV + b",7,1,5\n3,,1,5\n3,7,1,\n3,7,,5\n")
    done = fetched(made("http://x.test/z.csv"), tmp_path, tmp_path / "z.csv")
    assert (done.incomplete, done.counts) == (3, Counts(3, 2, 4))  # a rating may be missing


def test_nothing_left(tmp_path):
    (tmp_path / "z.csv").write_bytes(b",7,1,5\n")
    with pytest.raises(InputError, match="nothing is left of its 1 rows"):
        fetched(made("http://x.test/z.csv"), tmp_path, tmp_path / "z.csv")
    assert left(tmp_path) == ["z.csv"]


def test_a_failure_leaves_the_old_file(tmp_path):
    (tmp_path / "z.parquet").write_bytes(b"old")
    (tmp_path / "z.csv").write_bytes(b"no\n")
    with pytest.raises(InputError):
        fetched(made("http://x.test/z.csv"), tmp_path, tmp_path / "z.csv")
    assert (tmp_path / "z.parquet").read_bytes() == b"old"


def test_a_second_command_at_the_same_time(tmp_path):
    with served(**{"z.csv": CSV}) as site:
        entry = made(f"{site.url}/z.csv")
        said = []

        def second(*at):
            def run():
                with pytest.raises(InputError, match="another negrec data fetch is at work"):
                    fetched(entry, tmp_path)
                said.append(True)

            thread = threading.Thread(target=run)
            thread.start()
            thread.join()

        fetch(entry, tmp_path, None, second)
    assert said


@pytest.mark.parametrize(
    ("code", "match"),
    [
        (errno.ENOSPC, "there is no room left in"),
        (errno.EDQUOT, "there is no room left in"),
        (errno.EROFS, r"cannot be used \(Read-only file system\): choose another folder"),
        (errno.EACCES, r"cannot be used \(Permission denied\): choose another folder"),
    ],
)
def test_what_the_file_system_refuses(tmp_path, monkeypatch, code, match):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(registry, "unpacked", refuse)
    with served(**{"z.csv": CSV}) as site, pytest.raises(InputError, match=match):
        fetched(made(f"{site.url}/z.csv"), tmp_path)
    assert [name for name in left(tmp_path) if not name.startswith(".downloads/")] == []
    assert len(left(tmp_path)) == 1  # the download is kept


def test_a_read_only_folder(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"cannot be used \(Permission denied\)"):
        fetched(made("http://x.test/z.csv"), tmp_path / "data")


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(InputError, match=r"cannot be used \(.*\): choose another folder"):
        fetched(made("http://x.test/z.csv"), tmp_path / "data")


# Of a process whose files may have so many bytes only, as on a disk with no more room.
FULL = """
import resource, sys
from pathlib import Path
from negrec.data.interactions import Counts
from negrec.data.registry import Entry, fetch
from negrec.data.sources.delimited import Delimited
from negrec.data.tables import Source
from negrec.errors import InputError
url, folder, *limits = sys.argv[1:]
reader = Delimited({"user_id": 0, "item_id": 1, "rating": 2, "timestamp": 3}, "number")
source = Source(url, "all rows", "free", "Z", Counts(1, 1, 1), member="z.csv", reader=reader)
for limit in map(int, limits):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        fetch(Entry("z", "z.parquet", True, source), Path(folder), None, lambda *at: None)
    except InputError as error:
        print(error)
"""


def test_a_full_disk(tmp_path):
    draw = Random(0)
    rows = [(draw.getrandbits(40), draw.getrandbits(40), 3, n) for n in range(20_000)]
    lines = "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in rows).encode()
    archive = published.zipped(**{"README": bytes(10), "z.csv": lines})
    assert 200_000 < len(archive) < 400_000 < len(lines) / 1.5
    with served(**{"z.zip": archive}) as site:
        # In the middle of the download, and of unpacking.
        command = [sys.executable, "-c", FULL, f"{site.url}/z.zip", str(tmp_path)]
        command += ["100000", "400000"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        said = done.stdout.splitlines()
        assert len(said) == 2
        assert all(f"there is no room left in {tmp_path}" in line for line in said)
        assert not (tmp_path / "z.parquet").exists()
        assert all(name.startswith(".downloads/") for name in left(tmp_path))
        entry = made(f"{site.url}/z.zip", member="z.csv")
        assert fetched(entry, tmp_path).counts.interactions == 20_000
    assert site.sent[1] == len(archive) - 100_000
    assert len(site.sent) == 2  # nothing came twice


def test_a_full_disk_while_the_table_is_written(tmp_path):
    # Few bytes of text, more of Parquet with its many columns' ends.
    (tmp_path / "z.csv").write_bytes(CSV)
    code = FULL.replace("None, lambda", f"Path({str(tmp_path / 'z.csv')!r}), lambda")
    command = [sys.executable, "-c", code, "http://x.test/z", str(tmp_path), "500"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"there is no room left in {tmp_path}" in done.stdout
    assert left(tmp_path) == ["z.csv"]
