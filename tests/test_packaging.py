"""The wheel, in an environment of its own, with parts that a user brings."""

import json
import os
import site
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from omegaconf import OmegaConf

ROOT = Path(__file__).parents[1]

SAMPLER = '''
"""A sampler that negrec knows nothing of."""

from torch import Tensor

from negrec.samplers.uniform import Uniform


class Every(Uniform):
    """Uniform over every n-th item."""

    def __init__(self, info, k: int, n: int) -> None:
        super().__init__(info, k)
        self.n = n

    def draw(self, rows, generator) -> Tensor:
        return (super().draw(rows, generator) - 1) // self.n * self.n + 1

    def log_prob(self, items: Tensor) -> None:
        return None
'''

SAMPLER_YAML = """
# @package _global_
n: 2
k: 1
sampler:
  _target_: mypackage.samplers.Every
  _partial_: true
  k: ${k}
  n: ${n}
"""

LOSS_YAML = """
_target_: negrec.losses.bce.BCE
negatives: mean
"""


@dataclass
class Installed:
    """A fresh environment with the wheel in it, and a folder to work in."""

    python: Path
    folder: Path

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        user = self.folder / "user"
        kept = ("PATH", "HOME", "LANG")
        env = {key: os.environ[key] for key in kept if key in os.environ} | {
            "PYTHONPATH": str(user / "src"),
            "NEGREC_CONF_DIR": str(user / "conf"),
            "NEGREC_CACHE_DIR": str(self.folder / "cache"),
        }
        return subprocess.run(
            [str(self.python.parent / "negrec"), *arguments],
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("elsewhere")
    run = [sys.executable, "-m"]
    wheels = folder / "wheels"
    _quietly([*run, "build", "--wheel", "--no-isolation", "--outdir", str(wheels), str(ROOT)])
    _quietly([*run, "venv", "--without-pip", str(folder / "venv")])
    python = folder / "venv/bin/python"
    (wheel,) = wheels.glob("*.whl")
    _quietly([*run, "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)])
    # What negrec needs is borrowed from here: torch need not be downloaded for a test.
    (packages,) = (folder / "venv/lib").glob("python*/site-packages")
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()))
    for file, text in {
        "src/mypackage/__init__.py": "",
        "src/mypackage/samplers.py": SAMPLER,
        "conf/sampler/every.yaml": SAMPLER_YAML,
        "conf/loss/bce.yaml": LOSS_YAML,
    }.items():
        path = folder / "user" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Installed(python, folder)


def _quietly(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_is_what_runs(installed: Installed):
    code = "import negrec.commandline.configuration as c; print(c.negrec.__file__, c.conf_dir())"
    done = subprocess.run(
        [str(installed.python), "-c", code],
        cwd=installed.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    module, conf = map(Path, done.stdout.split())
    assert module.is_relative_to(installed.folder / "venv")
    assert conf == module.parent / "conf"


@pytest.mark.slow
def test_a_sampler_from_a_users_package_trains(installed: Installed):
    short = ["trainer.max_epochs=2", "tracking=none"]
    done = installed("train", "sampler=every", "n=3", *short)
    assert done.returncode == 0, done.stdout + done.stderr
    (record,) = installed.folder.glob("multirun/*/*_synthetic-sasrec-every-bce-s0_*/run.json")
    assert json.loads(record.read_text())["status"] == "FINISHED"
    cfg = OmegaConf.load(record.with_name("config.yaml"))
    assert cfg.sampler._target_ == "mypackage.samplers.Every"
    assert cfg.sampler.n == 3
    assert cfg.loss.negatives == "mean", "the user's bce.yaml stands before the shipped one"
    assert json.loads(record.with_name("results.json").read_text())["metrics"]["test/hr_10"] > 0


@pytest.mark.slow
def test_a_users_short_name_is_known_too(installed: Installed):
    done = installed("train", "n=3")
    assert done.returncode == 2
    assert "n is a setting of sampler=every, and this is sampler=uniform" in done.stderr


@pytest.mark.slow
def test_a_sweep_is_reported_by_what_the_wheel_brings(installed: Installed):
    small = ["dataset.users=200", "dataset.items=100", "trainer.max_epochs=2", "tracking=none"]
    words = ["sampler=uniform,genni", "seed=0,1", "hydra/launcher=joblib", "sweep.name=mine"]
    done = installed("train", "-m", *small, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 finished" in done.stdout
    done = installed("report")
    assert done.returncode == 0, done.stdout + done.stderr
    page = (installed.folder / "multirun/mine/report/report.html").read_text()
    assert "<svg" in page
    assert "synthetic leave_one_out" in page
    # The published values come along.
    code = "from negrec.reporting import reported; print(len(reported.rows()))"
    done = subprocess.run(
        [str(installed.python), "-c", code], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) > 800
