import io
import random
import resource
import socket
import subprocess
import sys

import pytest
import requests

from negrec.data import download as module
from negrec.data.download import download
from negrec.errors import InputError
from tests.data.server import served

CONTENT = random.Random(0).randbytes(1_000_000)


@pytest.fixture
def site():
    with served(**{"z.zip": CONTENT}) as found:
        yield found


def fetch(site, folder, name="z.zip", waits=None, shown=None):
    download(
        f"{site.url}/{name}",
        folder / "here.zip",
        (lambda *at: None) if shown is None else (lambda *at: shown.append(at)),
        (lambda s: None) if waits is None else waits.append,
    )
    return (folder / "here.zip").read_bytes()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_comes_whole_and_alone(site, tmp_path):
    shown = []
    assert fetch(site, tmp_path, shown=shown) == CONTENT
    assert names(tmp_path) == ["here.zip"]
    assert site.asked[0][1]["Accept-Encoding"] == "identity"  # as it lies there, .gz and all
    assert shown[0] == (0, 1_000_000)
    assert shown[-1] == (1_000_000, 1_000_000)
    assert shown == sorted(shown)


def test_a_cut_connection_goes_on_where_it_was(site, tmp_path):
    site.cuts = [400_000, 250_000]
    waits = []
    assert fetch(site, tmp_path, waits=waits) == CONTENT
    ranges = [headers.get("Range") for _, headers in site.asked]
    assert ranges == [None, "bytes=400000-", "bytes=650000-"]
    assert [h.get("If-Range") for _, h in site.asked] == [None, *[site.tag("/z.zip")] * 2]
    assert site.sent == [400_000, 250_000, 350_000]  # every byte once
    assert waits == [1.0, 1.0]


def test_what_came_before_a_silence_is_kept(site, tmp_path, monkeypatch):
    # Less than is asked for at a time, and the connection stays open.
    monkeypatch.setattr(module, "_TIMEOUT", 0.2)
    site.cuts, site.stalls = [100_000, 50_000], True
    waits = []
    assert fetch(site, tmp_path, waits=waits) == CONTENT
    assert site.sent == [100_000, 50_000, 850_000]  # every byte once
    assert waits == [1.0, 1.0]


def test_a_later_command_goes_on(site, tmp_path):
    site.cuts = [400_000, *[0] * 5]
    with pytest.raises(InputError, match=r"connection was cut .*400,000 bytes are kept"):
        fetch(site, tmp_path)
    assert names(tmp_path) == ["here.zip.part", "here.zip.part.version"]
    assert fetch(site, tmp_path) == CONTENT
    assert site.sent[-1] == 600_000


def test_tries_wait_longer_and_end(site, tmp_path):
    site.answers = [503, 429, 500, 502, 504]
    waits = []
    with pytest.raises(InputError, match="the server answers 504"):
        fetch(site, tmp_path, waits=waits)
    assert waits == [2.0, 4.0, 8.0, 16.0]
    assert len(site.asked) == 5


def test_another_version_starts_over(site, tmp_path):
    site.cuts = [400_000, *[0] * 5]
    with pytest.raises(InputError):
        fetch(site, tmp_path)
    site.files["/z.zip"] = CONTENT[::-1]
    assert fetch(site, tmp_path) == CONTENT[::-1]
    assert site.sent[-1] == 1_000_000


@pytest.mark.parametrize("missing", ["ranges", "versions"])
def test_a_server_that_cannot_go_on_starts_over(site, tmp_path, missing):
    setattr(site, missing, False)
    site.cuts = [400_000]
    assert fetch(site, tmp_path) == CONTENT
    assert site.sent == [400_000, 1_000_000]
    # Without a version there is no asking for the rest of the same one.
    assert ("Range" in site.asked[1][1]) == (missing == "ranges")


def test_a_part_that_is_whole_is_taken(site, tmp_path):
    # Killed between the last byte and the renaming.
    (tmp_path / "here.zip.part").write_bytes(CONTENT)
    (tmp_path / "here.zip.part.version").write_text(site.tag("/z.zip"))
    assert fetch(site, tmp_path) == CONTENT
    assert site.sent == []


def test_a_server_that_sends_another_part_is_not_believed(site, tmp_path):
    # It begins elsewhere than it was asked to: the parts would not fit.
    (tmp_path / "here.zip.part").write_bytes(CONTENT + b"more")
    (tmp_path / "here.zip.part.version").write_text(site.tag("/z.zip"))
    assert fetch(site, tmp_path) == CONTENT


def test_no_such_file(site, tmp_path):
    with pytest.raises(InputError, match=r"http://.*/none.zip: the server answers 404 .*from=FILE"):
        fetch(site, tmp_path, "none.zip")
    assert len(site.asked) == 1
    assert names(tmp_path) == []


def test_a_server_that_keeps_failing_is_quoted_honestly(site, tmp_path):
    site.cuts = [400_000, *[0] * 10]
    with pytest.raises(InputError, match=r"400,000 bytes are kept, and the same command goes on"):
        fetch(site, tmp_path)


def test_what_cannot_be_gone_on_with_is_not_promised(site, tmp_path):
    # Nothing tells whether the rest would belong to what came.
    site.versions, site.cuts = False, [400_000] * 6
    with pytest.raises(
        InputError, match=r"the connection was cut .*; the same command tries again"
    ):
        fetch(site, tmp_path)


@pytest.mark.parametrize("code", [204, 302, 304])
def test_an_answer_without_a_file_is_none(site, tmp_path, code):
    site.answers = [code]
    with pytest.raises(InputError, match=rf"the server answers {code} "):
        fetch(site, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("code", [206, 416])
def test_a_part_that_nobody_asked_for_is_not_believed(site, tmp_path, code):
    site.answers = [code]
    assert fetch(site, tmp_path) == CONTENT
    assert len(site.asked) == 2


@pytest.mark.parametrize("length", ["abc", "-5"])
def test_a_length_that_is_none_is_not_heard(site, tmp_path, length):
    site.headers = {"Content-Length": length}
    shown = []
    assert fetch(site, tmp_path, shown=shown) == CONTENT
    assert shown[0] == (0, None)


def test_a_redirect_to_no_address(site, tmp_path):
    site.moved["/old.zip"] = "http://[::bad/"
    with pytest.raises(InputError, match="cannot be fetched: Invalid IPv6 URL"):
        fetch(site, tmp_path, "old.zip")


@pytest.mark.parametrize("on_the_way", [True, False])
def test_a_redirect_from_https_to_http_is_refused(monkeypatch, tmp_path, on_the_way):
    urls = ["https://a.test/z", "http://b.test/z", *(["https://a.test/y"] if on_the_way else [])]
    answers = []
    for url in urls:
        answer = requests.Response()
        answer.url, answer.status_code, answer.raw = url, 200, io.BytesIO()
        answers.append(answer)
    *before, last = answers
    last.history = before
    monkeypatch.setattr(requests.Session, "get", lambda *_, **__: last)
    with pytest.raises(InputError, match=r"a\.test/z .*redirects to http://b\.test/z, without"):
        download("https://a.test/z", tmp_path / "z", lambda *at: None)
    assert names(tmp_path) == []


def test_a_redirect_is_followed(site, tmp_path):
    site.moved["/old.zip"] = "/z.zip"
    assert fetch(site, tmp_path, "old.zip") == CONTENT


@pytest.mark.parametrize("scheme", ["file:///etc/passwd", "ftp://127.0.0.1/z.zip"])
def test_a_redirect_to_another_scheme_is_refused(site, tmp_path, scheme):
    site.moved["/old.zip"] = scheme
    with pytest.raises(InputError, match="cannot be fetched"):
        fetch(site, tmp_path, "old.zip")
    assert names(tmp_path) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/z.zip"])
def test_other_schemes_are_refused(tmp_path, url):
    with pytest.raises(InputError, match="cannot be fetched"):
        download(url, tmp_path / "x", lambda *at: None, lambda s: None)


def test_redirects_in_a_circle_end(site, tmp_path):
    site.moved["/old.zip"] = "/old.zip"
    with pytest.raises(InputError, match="redirects"):
        fetch(site, tmp_path, "old.zip")


def test_nobody_there(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    waits = []
    with pytest.raises(InputError, match=r"cannot be reached \(.*Connection refused"):
        download(f"http://127.0.0.1:{port}/z", tmp_path / "z", lambda *at: None, waits.append)
    assert len(waits) == 4


def test_the_proxy_of_the_environment_is_asked(site, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    # A proxy gets the whole URL as the path.
    site.files["http://elsewhere.test/z.zip"] = b"by proxy"
    download("http://elsewhere.test/z.zip", tmp_path / "z", lambda *at: None)
    assert (tmp_path / "z").read_bytes() == b"by proxy"


def test_a_full_disk_keeps_what_came(site, tmp_path):
    code = (
        "import sys, resource; from pathlib import Path\n"
        "from negrec.data.download import download\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))\n"
        "try: download(sys.argv[1], Path(sys.argv[2]), lambda *at: None)\n"
        "except OSError as error: sys.exit(error.errno)\n"
    )
    command = [sys.executable, "-c", code, f"{site.url}/z.zip", str(tmp_path / "here.zip")]
    assert subprocess.run(command, check=False).returncode == 27  # EFBIG
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 300_000
    kept = (tmp_path / "here.zip.part").stat().st_size
    assert 0 < kept <= 300_000
    assert fetch(site, tmp_path) == CONTENT
    assert site.sent[-1] == 1_000_000 - kept


def test_the_version_is_a_strong_one():
    # Equal weak tags do not mean equal bytes.
    answer = requests.Response()
    answer.headers.update({"ETag": 'W/"1"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"})
    assert module._version_of(answer) == "Mon, 01 Jan 2024 00:00:00 GMT"
    answer.headers["ETag"] = '"1"'
    assert module._version_of(answer) == '"1"'
