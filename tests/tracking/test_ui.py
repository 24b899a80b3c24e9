import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import negrec
from negrec.errors import InputError
from negrec.tracking.ui import free_port, main
from tests.tracking.stores import Store, until


def test_a_missing_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"mlflow\.db: no runs here"):
        main([])
    assert not list(tmp_path.iterdir())


def test_a_server_has_pages_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--uri", "http://ann:sesame@host:5000"]) == 0
    assert capsys.readouterr().out.endswith(" http://host:5000\n")


def test_a_taken_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) > port


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_of_no_use(host: str) -> None:
    with pytest.raises(InputError, match=f"--host {host}"):
        free_port(host, 5000)


def listening(port: int) -> list[str]:
    """The local addresses (hexadecimal) that listen at a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    fields = [line.split() for line in lines]
    ends = [line[1].split(":") for line in fields if line[3] == "0A"]
    return [address for address, end in ends if int(end, 16) == port]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_serves_this_machine_only_and_leaves_nothing(
    store: Store, request: pytest.FixtureRequest, number: signal.Signals, code: int
) -> None:
    root = str(Path(negrec.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "negrec", "ui", "--port", "5600"],
        cwd=store.path.parent,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
        # A shell's background job, where tests may run, ignores Ctrl-C and passes that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    request.addfinalizer(process.terminate)  # SIGKILL would leave its server behind
    assert process.stdout is not None
    with process.stdout as out:
        assert out.readline().startswith("opening http://127.0.0.1:")
        address = out.readline().split()[3]
        port = int(address.rpartition(":")[2])
        with urllib.request.urlopen(address, timeout=10) as page:
            assert b"MLflow" in page.read()
        assert listening(port) == ["0100007F"]  # 127.0.0.1
        process.send_signal(number)
        assert process.wait(20) == code
    until(lambda: not listening(port), 5)
