import ctypes
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from negrec.kernels import native


@pytest.fixture
def nothing_built(tmp_path, monkeypatch):
    """A cache of its own, and no library looked up yet."""
    monkeypatch.setenv("NEGREC_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("NEGREC_KERNELS", raising=False)
    native._library.cache_clear()
    yield tmp_path / "kernels"
    native._library.cache_clear()


@pytest.mark.usefixtures("compiler", "nothing_built")
def test_it_can_be_switched_off(monkeypatch):
    assert native.serves(torch.zeros(1))
    with native.plain():
        native.choose("auto")  # as a trainer does
        assert not native.serves(torch.zeros(1))
    native.choose("torch")
    assert not native.serves(torch.zeros(1))
    native.choose("auto")
    monkeypatch.setenv("NEGREC_KERNELS", "torch")
    assert not native.serves(torch.zeros(1))


@pytest.mark.usefixtures("compiler", "nothing_built")
def test_what_it_serves():
    assert native.serves(torch.zeros(2, 3), torch.zeros(0))
    assert not native.serves(torch.zeros(2, 3).T)
    assert not native.serves(torch.zeros(2, dtype=torch.float64))
    assert not native.serves(torch.zeros(2, device="meta"))


def test_an_unknown_choice_is_refused():
    with pytest.raises(ValueError, match="auto or torch, got 'fast'"):
        native.choose("fast")


@pytest.mark.usefixtures("compiler")
def test_it_is_built_once(nothing_built, caplog):
    with caplog.at_level(logging.INFO, logger="negrec"):
        assert native.available()
        native._library.cache_clear()
        assert native.available()
    assert [record.message for record in caplog.records if "compiling" in record.message] == [
        f"compiling the C++ kernels, once, with {native._compiler()}"
    ]
    assert len(list(nothing_built.glob("kernels-*.so"))) == 1


def test_without_a_compiler_pytorch_does_it(nothing_built, monkeypatch, caplog):
    monkeypatch.setattr(native, "_compiler", lambda: None)
    with caplog.at_level(logging.INFO, logger="negrec"):
        assert not native.available()
    assert "no C++ compiler is found" in caplog.text


@pytest.mark.usefixtures("nothing_built")
def test_a_compiler_that_fails_is_one_line(tmp_path, monkeypatch, caplog):
    broken = tmp_path / "c++"
    broken.write_text("#!/bin/sh\necho 'fatal error: no such header' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(native, "_compiler", lambda: str(broken))
    assert not native.available()
    (line,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert line == (
        "the C++ kernels cannot be built (fatal error: no such header): PyTorch computes all"
    )


@pytest.mark.usefixtures("compiler")
def test_a_cache_that_cannot_be_written_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setenv("NEGREC_CACHE_DIR", str(tmp_path / "file" / "below"))
    (tmp_path / "file").write_text("in the way")
    folder = native._folder()
    assert folder.is_dir()
    assert tmp_path not in folder.parents


def test_a_user_without_a_home(monkeypatch):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    for name in ("NEGREC_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    folder = native._folder()
    assert folder.name.startswith("negrec-kernels-")
    folder.rmdir()


@pytest.mark.usefixtures("compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_one_openmp_is_in_the_process():
    # Two of them would each keep threads spinning on the same cores.
    code = (
        "import torch; from negrec.kernels import native; assert native.available();"
        "print({line.split()[-1] for line in open('/proc/self/maps') if 'gomp' in line})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "NEGREC_KERNELS": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(eval(done.stdout)) == 1


@pytest.mark.usefixtures("compiler", "nothing_built")
def test_what_is_traced_stays_pytorch():
    served = []

    class Asks(torch.nn.Module):
        def forward(self, x):
            served.append(native.serves(x))
            return x + 1

    torch.export.export(Asks(), (torch.zeros(2),))
    assert served
    assert not any(served)


@pytest.mark.usefixtures("compiler")
def test_every_function_says_what_it_takes():
    library = native._library()
    folder = Path(native.__file__).parent
    written = sum(
        line.startswith("NEGREC ")
        for f in folder.glob("*.cpp")
        for line in f.read_text().split("\n")
    )
    functions = {name: x for name, x in vars(library).items() if not name.startswith("_")}
    found = [name for name, x in functions.items() if x.argtypes]
    assert len(found) == written > 10
    # Two numbers, of which the first may be a whole one as well, and the number of threads.
    assert library.rows_update.argtypes[-3:] == [ctypes.c_double, ctypes.c_double, ctypes.c_int64]
    with pytest.raises(ctypes.ArgumentError):
        native.call("own_scores", None, 1.5, None, 8, None, None)
    with pytest.raises(TypeError, match="at least 7 arguments"):
        native.call("own_scores", None)
