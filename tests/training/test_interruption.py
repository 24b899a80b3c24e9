from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from negrec.training.interruption import TerminatedError, exit_code, terminable

# Libraries do so with what they may do without.
SWALLOWS = """
import signal

try:
    signal.raise_signal(signal.{name})
    whole = True
except BaseException:
    whole = False
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_waits_for_an_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    (tmp_path / "swallows.py").write_text(SWALLOWS.format(name=name))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "swallows", raising=False)
    with pytest.raises(KeyboardInterrupt) as raised:
        _import_and_wait()
    assert exit_code(raised.value) == code
    assert sys.modules.pop("swallows").whole


def _import_and_wait() -> None:
    with terminable():
        import swallows  # type: ignore[import-not-found]  # noqa: F401

        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            time.sleep(0.01)


def test_elsewhere_it_comes_at_once() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(TerminatedError), terminable():
        signal.raise_signal(signal.SIGTERM)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        with terminable():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
