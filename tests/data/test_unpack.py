import gzip
import io
import stat
import struct
import tarfile
import zipfile

import pytest

from negrec.data.unpack import limit_of, unpacked
from negrec.errors import InputError

ROWS = b"1::2::3::4\n" * 1000


def zipped(path, entries, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def tarred(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def member(name, content=b"", kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(content), kind, target
    return info, content


def refused(archive, folder, match):
    out = folder / "out"
    out.mkdir()
    with pytest.raises(InputError, match=match) as caught:
        unpacked(archive, "ratings.dat", out)
    assert "\n" not in str(caught.value)
    # Nothing anywhere but the archive, and what was unpacked of it under our own name.
    assert {path.name for path in folder.iterdir()} == {"out", archive.name}
    assert {path.name for path in out.iterdir()} <= {"unpacked"}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_the_one_file_that_is_needed(tmp_path, kind):
    path = tmp_path / "download"  # known by what it holds
    if kind == "zip":
        zipped(path, {"ml-1m/": b"", "ml-1m/README": b"x", "ml-1m/ratings.dat": ROWS})
    else:
        found = member("ml-1m/README", b"x"), member("ml-1m/ratings.dat", ROWS)
        tarred(path, *found, mode="w" if kind == "tar" else "w:gz")
    (tmp_path / "out").mkdir()
    file = unpacked(path, "ratings.dat", tmp_path / "out")
    assert file.read_bytes() == ROWS
    assert list((tmp_path / "out").iterdir()) == [file]


def test_gzip_and_a_plain_file(tmp_path):
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(ROWS))
    assert unpacked(tmp_path / "a.json.gz", "", tmp_path).read_bytes() == ROWS
    (tmp_path / "plain.csv").write_bytes(ROWS)
    assert unpacked(tmp_path / "plain.csv", "ratings.dat", tmp_path) == tmp_path / "plain.csv"


@pytest.mark.parametrize(
    "name", ["../ratings.dat", "/etc/ratings.dat", "a/../../b", "..\\ratings.dat", "C:\\b"]
)
@pytest.mark.parametrize("needed", ["ratings.dat", "ml/ratings.dat"])
def test_an_entry_that_leaves_its_folder(tmp_path, name, needed):
    path = zipped(tmp_path / "z.zip", {needed: ROWS, name: b"x"})
    refused(path, tmp_path, "would leave the folder")


def test_an_entry_of_a_tar_that_leaves_its_folder(tmp_path):
    path = tarred(tmp_path / "t.tgz", member("ratings.dat", ROWS), member("../evil", b"x"))
    refused(path, tmp_path, "'../evil' would leave the folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO])
def test_a_link_or_device_in_a_zip(tmp_path, kind):
    info = zipfile.ZipInfo("ratings.dat")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    refused(tmp_path / "z.zip", tmp_path, "'ratings.dat' is a link or a device")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_a_link_or_device_in_a_tar(tmp_path, kind):
    path = tarred(tmp_path / "t.tar", member("ratings.dat", kind=kind, target="/etc/passwd"))
    refused(path, tmp_path, "is a link or a device")


def test_a_zip_bomb_by_its_declared_size(tmp_path):
    path = zipped(tmp_path / "z.zip", {"ratings.dat": bytes(64 << 20)})
    assert path.stat().st_size < 1 << 17  # a thousandth
    refused(path, tmp_path, r"unpack to more than 16,777,216")
    assert not (tmp_path / "out" / "unpacked").exists()


def test_a_gzip_bomb_by_its_bytes(tmp_path):
    (tmp_path / "z.gz").write_bytes(gzip.compress(b"1" * (64 << 20)))
    refused(tmp_path / "z.gz", tmp_path, "unpack to more than")
    assert (tmp_path / "out" / "unpacked").stat().st_size <= 16 << 20


def test_a_tar_bomb_beside_the_file_that_is_needed(tmp_path):
    zeros = bytes(9 << 20)  # two of them are above the limit, each alone is not
    entries = [member("a", zeros), member("b", zeros), member("ratings.dat", ROWS)]
    refused(tarred(tmp_path / "t.tgz", *entries), tmp_path, "unpack to more than 16,777,216")
    assert not (tmp_path / "out" / "unpacked").exists()


def test_a_header_that_lies_about_the_size(tmp_path):
    path = zipped(tmp_path / "z.zip", {"ratings.dat": bytes(64 << 20)})
    raw = bytearray(path.read_bytes())
    size = struct.pack("<I", 64 << 20)
    assert raw.count(size) == 2  # in the entry's own header and in the directory
    path.write_bytes(raw.replace(size, struct.pack("<I", 1000)))
    # No more than what it says is unpacked, and that has another checksum.
    refused(path, tmp_path, "damaged: Bad CRC-32")
    assert (tmp_path / "out" / "unpacked").stat().st_size <= 1000


def test_the_limit_follows_the_archive(tmp_path):
    path = tmp_path / "z"
    path.write_bytes(bytes(10))
    assert limit_of(path) == 1 << 24
    path.write_bytes(bytes(1 << 20))
    assert limit_of(path) == 100 << 20


def test_damaged_archives(tmp_path):
    whole = zipped(tmp_path / "whole.zip", {"ratings.dat": ROWS}).read_bytes()
    at = whole.index(b"ratings.dat") + 20
    flipped = whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]
    short = gzip.compress(ROWS)[:-10]
    for i, (content, said) in enumerate([(flipped, "is damaged"), (short, "is damaged")]):
        folder = tmp_path / str(i)
        folder.mkdir()
        (folder / "z").write_bytes(content)
        refused(folder / "z", folder, said)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"README": b"x"}, r"has no files named ratings.dat; it holds README"),
        ({"a/ratings.dat": b"x", "b/ratings.dat": b"y"}, r"has 2 files named ratings.dat"),
    ],
)
def test_other_than_one_file_of_the_name(tmp_path, entries, said):
    refused(zipped(tmp_path / "z.zip", entries), tmp_path, said)
