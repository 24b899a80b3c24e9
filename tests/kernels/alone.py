"""Tests that want a process of their own: Triton decides at its import who runs its kernels."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


def passes(file: str, interpret: bool, cache: Path) -> None:
    """Runs a file of tests in a process of its own, which must pass.

    Args:
        file: beside this one; its name keeps it out of the suite.
        interpret: Triton's interpreter runs the kernels, on the CPU, in place of its compiler.
        cache: where Triton keeps what it compiles.
    """
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed: pip install negrec[dev] brings it on Linux")
    env = {**os.environ, "TRITON_CACHE_DIR": str(cache), "OMP_NUM_THREADS": "1"}
    env.pop("NEGREC_KERNELS", None)
    env.pop("TRITON_INTERPRET", None)
    if interpret:
        env["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [str(Path(__file__).with_name(file))]
    here = Path(__file__).parents[2]
    run = subprocess.run(command, cwd=here, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
