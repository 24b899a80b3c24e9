"""The house rules that a program can check."""

import inspect
import re
import shutil
import subprocess
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf

from negrec.commandline.configuration import conf_dir

ROOT = Path(__file__).parents[1]
ROOMS = ("samplers", "losses", "models", "objectives", "data/splits")
# What parts of a room share.
SHARED = ("__init__", "auxiliary", "base", "clusters", "contrast", "layers", "transformer")
TOP_LEVEL = {
    *("pyproject.toml", "conf", "negrec", "tests", "multirun", "Makefile", "README.md"),
    *("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "constraints.txt"),
}
PARTS = [
    (room, file.stem)
    for room in ROOMS
    for file in sorted((ROOT / "negrec" / room).glob("*.py"))
    if file.stem not in SHARED
]
OPTIONS = [
    (file.parent.relative_to(conf_dir()).as_posix(), file.stem)
    for file in sorted(conf_dir().glob("*/**/*.yaml"))
    if file.relative_to(conf_dir()).parts[0] not in ("hydra", "paths", "tuned")
]


@pytest.mark.parametrize(("room", "name"), PARTS)
def test_every_part_is_used_by_a_yaml(room: str, name: str):
    target = f"_target_: negrec.{room.replace('/', '.')}.{name}."
    assert any(target in file.read_text() for file in conf_dir().rglob("*.yaml"))


@pytest.mark.parametrize(("room", "name"), PARTS)
def test_every_part_has_a_test(room: str, name: str):
    assert (ROOT / "tests" / room / f"test_{name}.py").exists()


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_to_what_its_classes_take(group: str, option: str):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = [f"{group}={option}"]
        if option == "file":
            overrides += ["dataset.path=clicks.csv"]
        cfg = OmegaConf.to_container(compose("train", overrides), resolve=True)
    assert isinstance(cfg, dict)
    node = cfg if group == "experiment" else cfg[group.rpartition("/")[2]]
    targets = list(_targets(node))
    assert targets or node is None  # an option that leaves its part out
    for node in targets:
        known = {key: value for key, value in node.items() if not re.fullmatch("_.*_", key)}
        # The constructor is the schema: a key that it does not take raises TypeError here.
        inspect.signature(get_object(node["_target_"])).bind_partial(**known)


def _targets(node: object) -> Iterator[Mapping[str, object]]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from _targets(value)


@pytest.mark.parametrize(
    ("group", "option"),
    [pair for pair in OPTIONS if pair[0] not in ("dataset", "experiment")],
)
def test_every_option_is_instantiated(group: str, option: str):
    # Data sets need their files; experiments consist of these parts.
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", [f"{group}={option}"])
    node = cfg[group.rpartition("/")[2]]
    assert node is None or callable(instantiate(node))


def test_the_top_level_is_fixed():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git checkout here")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    names = {line.split("/")[0] for line in listed.stdout.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_warnings_are_errors():
    with pytest.raises(UserWarning, match="seen"):
        warnings.warn("seen", UserWarning, stacklevel=1)
