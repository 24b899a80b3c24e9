"""C++ for the CPU, compiled at the first use; who has no compiler loses speed, nothing else.

All ``*.cpp`` of this folder make one shared library with a plain C interface. It is built with
the machine's own instructions, and kept in the user's cache under a hash of all that it depends
on. Neither Python's nor PyTorch's headers are read: the build takes seconds, and needs a C++
compiler only (``$CXX``, g++, clang++ or c++).
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Literal, get_args

import torch
from filelock import FileLock
from torch import Tensor

log = logging.getLogger(__name__)

Choice = Literal["auto", "torch"]

_FLAGS = ("-std=c++17", "-O3", "-march=native", "-fPIC", "-fno-math-errno", "-fno-trapping-math")
_SECONDS = 300  # that a compiler may take on a busy machine

# As threads: a choice of the whole process.
_chosen: Choice = "auto"
_plain = False  # inside `plain`


def choose(choice: Choice) -> None:
    """Chooses for this process: "auto" takes compiled code where it can, "torch" never does.

    ``NEGREC_KERNELS=torch`` in the environment overrules it.

    Raises:
        ValueError: another choice.
    """
    global _chosen
    if choice not in get_args(Choice):
        raise ValueError(f"kernels must be auto or torch, got {choice!r}")
    _chosen = choice


@contextmanager
def plain() -> Iterator[None]:
    """PyTorch alone in this block: the reference that compiled code is compared with."""
    global _plain
    before, _plain = _plain, True
    try:
        yield
    finally:
        _plain = before


def serves(*tensors: Tensor) -> bool:
    """Whether compiled code is there and can read these: float32, on the CPU, contiguous.

    What PyTorch traces, for an export or a compilation of its own, stays PyTorch.
    """
    return (
        all(
            t.dtype == torch.float32 and t.device.type == "cpu" and t.is_contiguous()
            for t in tensors
        )
        and not torch.compiler.is_compiling()
        and available()
    )


def available() -> bool:
    """Whether compiled code is chosen and there; the first call compiles it where need be."""
    return asked() and _library() is not None


def asked() -> bool:
    """Whether anything but PyTorch is to be used."""
    return _chosen == "auto" and not _plain and os.environ.get("NEGREC_KERNELS") != "torch"


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Calls a function of the library, which follows the number of threads as its last argument.

    Args:
        name: of the function.
        arguments: tensors (contiguous, on the CPU; None is a null pointer) become pointers, numbers
            what the function takes.
    """
    library = _library()
    assert library is not None
    getattr(library, name)(*[_passed(x) for x in arguments], torch.get_num_threads())


def _passed(x: Tensor | int | float | None) -> int | float | None:
    if not isinstance(x, Tensor):
        return x
    assert x.device.type == "cpu"
    assert x.is_contiguous()
    return x.data_ptr()


@cache
def _library() -> ctypes.CDLL | None:
    """The library, or None where it cannot be built; said once."""
    compiler = _compiler()
    if compiler is None:
        log.info("no C++ compiler is found (g++ or clang++): PyTorch computes all, more slowly")
        return None
    try:
        return _typed(ctypes.CDLL(str(_built(compiler))))
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        reason = next((line for line in output.splitlines() if "error" in line), output)
        log.warning("the C++ kernels cannot be built (%s): PyTorch computes all", reason.strip())
        return None


def _typed(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tells ctypes what each function takes, as its source says it.

    From an argument alone it cannot be told: a whole number may stand for a double.
    """
    for source in _sources():
        for name, taken in _FUNCTION.findall(source.read_text(encoding="utf-8")):
            getattr(library, name).argtypes = [
                ctypes.c_void_p if "*" in x else _NUMBERS[x.split()[0]] for x in taken.split(",")
            ]
    return library


_FUNCTION = re.compile(r"^NEGREC void (\w+)\(([^)]*)\)", re.MULTILINE)
_NUMBERS = {"int64_t": ctypes.c_int64, "double": ctypes.c_double}


def _sources() -> list[Path]:
    return sorted(Path(__file__).parent.glob("*.cpp"))


def _compiler() -> str | None:
    names = [os.environ.get("CXX"), "g++", "clang++", "c++"]
    return next((path for name in names if name and (path := shutil.which(name))), None)


def _built(compiler: str) -> Path:
    """The path of the library, which is compiled where the cache has none.

    Raises:
        OSError: nothing can be written or run.
        subprocess.SubprocessError: the compiler refuses.
    """
    sources = _sources()
    headers = sorted(Path(__file__).parent.glob("*.hpp"))
    read = (path.read_bytes() for path in (*headers, *sources))
    digest = hashlib.sha256()
    for part in (*read, _about(compiler).encode()):
        digest.update(hashlib.sha256(part).digest())
    folder = _folder()
    built = folder / f"kernels-{digest.hexdigest()[:16]}.so"
    if built.exists():
        return built
    with FileLock(folder / "kernels.lock"):  # jobs that start together build it once
        if not built.exists():
            log.info("compiling the C++ kernels, once, with %s", compiler)
            _compile(compiler, sources, built)
    return built


def _folder() -> Path:
    """Where libraries are kept: the user's cache, or else a folder for this process alone."""
    home = os.environ.get("NEGREC_CACHE_DIR")
    try:
        if home is None:
            cached = os.environ.get("XDG_CACHE_HOME")
            home = str((Path(cached) if cached else Path.home() / ".cache") / "negrec")
        folder = Path(home) / "kernels"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # read-only, or a user without a home
        return Path(tempfile.mkdtemp(prefix="negrec-kernels-"))


def _about(compiler: str) -> str:
    """All that a library depends on besides its sources."""
    version = _run([compiler, "--version"])
    cpuinfo = Path("/proc/cpuinfo")
    features = ""  # -march=native reads them, and a cache may be shared by several machines
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        wanted = ("flags", "Features", "model name")
        features = "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
    threads = [path.name for path in _openmp()]
    return repr((version, features, platform.machine(), sys.platform, _FLAGS, threads))


def _openmp() -> list[Path]:
    """PyTorch's own OpenMP: a second one in the process would fight it for the cores."""
    return sorted(Path(torch.__file__).parent.glob("lib/libgomp*.so*"))


def _compile(compiler: str, sources: list[Path], built: Path) -> None:
    openmp = _openmp()
    threads = ["-fopenmp"] if openmp else []  # without, one thread does the work
    with tempfile.TemporaryDirectory(dir=built.parent) as scratch:
        unit = Path(scratch) / "all.cpp"
        unit.write_text("".join(f'#include "{source}"\n' for source in sources), encoding="utf-8")
        compiled, linked = unit.with_suffix(".o"), unit.with_suffix(".so")
        _run([compiler, *_FLAGS, *threads, "-c", str(unit), "-o", str(compiled)])
        found = [str(path) for path in openmp[:1]]
        _run([compiler, "-shared", str(compiled), *found, "-o", str(linked)])
        linked.replace(built)


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS)
    return done.stdout
