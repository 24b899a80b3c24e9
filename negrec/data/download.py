"""Downloads that go on where they were cut."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import requests
import urllib3

from negrec.errors import InputError

_CHUNK = 1 << 18
_TIMEOUT = 30  # seconds without an answer or a byte
_TRIES = 5  # in a row that bring no byte
_BUSY = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS)
_RANGES = (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)

# Called with the bytes that are here and those there are, None where the server does not say.
Show = Callable[[int, int | None], None]


class _CutError(Exception):
    """What another try may mend."""


def download(url: str, path: Path, show: Show, wait: Callable[[float], None] = time.sleep) -> None:
    """Brings a file; what came before a cut is kept beside it and not asked for again.

    The rest is asked for only of the same version of the file, by its ETag or its date. Proxies are
    those of the environment.

    Args:
        url: http or https, and so is everything that it redirects to; https stays https.
        path: where it lies when it is whole.
        show: told how far it is.
        wait: sleeps for so many seconds before another try.

    Raises:
        InputError: the server has no such file, or cannot be reached for long.
        OSError: it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    failures = 0
    with requests.Session() as session:
        while True:
            before = _size(part)
            try:
                _receive(session, url, part, show)
                break
            except _CutError as error:
                failures = 0 if _size(part) > before else failures + 1
                if failures == _TRIES:
                    then = "the same command tries again"
                    if _size(part) and _version(part):
                        then = f"{_size(part):,} bytes are kept, and the same command goes on there"
                    raise InputError(f"{url}: {error}; {then}") from error
            wait(2.0**failures)
    part.replace(path)
    _mark(part).unlink(missing_ok=True)


def _receive(session: requests.Session, url: str, part: Path, show: Show) -> None:
    """Asks for what is missing, once."""
    have, version = _size(part), _version(part)
    headers = {"Accept-Encoding": "identity"}  # the file as it lies there
    if have and version:
        headers |= {"Range": f"bytes={have}-", "If-Range": version}
    try:
        with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            if response.headers.get("Content-Range") == f"bytes */{have}":
                return  # nothing is missing
            _refuse_plain(url, response)
            start = _start(response, part)
            _refuse_errors(url, response)
            missing = response.raw.length_remaining
            total = None if missing is None else start + missing
            if start == 0:
                part.unlink(missing_ok=True)  # first: never old bytes beside a new version
                _mark(part).write_text(_version_of(response), encoding="utf-8")
            with part.open("ab" if start else "wb") as file:
                show(start, total)
                # As the bytes come: what waits for a whole chunk is lost where the server stalls.
                while chunk := response.raw.read1(_CHUNK, decode_content=False):
                    file.write(chunk)
                    start += len(chunk)
                    show(start, total)
    except requests.exceptions.SSLError as error:
        raise InputError(f"{url} cannot be trusted: {error}") from error
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _CutError(f"it cannot be reached ({_reason(error)})") from error
    except InputError:
        raise
    except (requests.RequestException, ValueError) as error:  # ValueError: redirects to no URL
        raise InputError(f"{url} cannot be fetched: {error}") from error
    except urllib3.exceptions.HTTPError as error:
        raise _CutError(f"the connection was cut ({_reason(error)})") from error


def _start(response: requests.Response, part: Path) -> int:
    """How many bytes the server leaves out, as we have them."""
    if response.status_code not in _RANGES:
        return 0
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if found is None or int(found[1]) != _size(part):
        part.unlink(missing_ok=True)
        raise _CutError("the server sent another part of it than was asked for")
    return int(found[1])


def _refuse_plain(url: str, response: requests.Response) -> None:
    """Refuses redirects from https to http, where anybody on the way may send what they like."""
    if not url.startswith("https:"):
        return
    plain = next((r.url for r in [*response.history, response] if r.url.startswith("http:")), None)
    if plain is not None:
        raise InputError(f"{url} cannot be trusted: it redirects to {plain}, without encryption")


def _refuse_errors(url: str, response: requests.Response) -> None:
    code = response.status_code
    if code in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    said = f"{code} {response.reason}"
    if code >= HTTPStatus.INTERNAL_SERVER_ERROR or code in _BUSY:
        raise _CutError(f"the server answers {said}")
    where = "" if response.url == url else f" (at {response.url})"
    raise InputError(
        f"{url}{where}: the server answers {said}; find where the file is now, download it and "
        "give it as from=FILE"
    )


def _version_of(response: requests.Response) -> str:
    """What tells one version of the file from another; nothing where the server does not say."""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):  # a weak one is the same for different bytes
        return tag
    return response.headers.get("Last-Modified", "")


def _version(part: Path) -> str:
    mark = _mark(part)
    return mark.read_text(encoding="utf-8") if mark.exists() else ""


def _mark(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _reason(error: Exception) -> str:
    """The innermost cause: the outer ones wrap it in the names of objects."""
    cause: BaseException = error
    while cause.__cause__ or cause.__context__:
        cause = cause.__cause__ or cause.__context__ or cause
    return str(cause).strip() or type(cause).__name__
