"""Where configuration lies, and what its groups hold."""

import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

import negrec
from negrec import identity
from negrec.commandline.typed import Typed, quoted
from negrec.errors import InputError

CONFIG_NAME = "train"
VERSION_BASE = "1.3"
USER_FOLDERS = "NEGREC_CONF_DIR"

# They set other parts' values and own none.
_SETTINGS = ("experiment", "tuned", "hydra")


def conf_dir() -> Path:
    """The shipped configuration: inside the installed package, else the checkout's ``conf/``."""
    package = Path(negrec.__file__).resolve().parent
    installed = package / "conf"
    return installed if installed.is_dir() else package.parent / "conf"


def writable_dir() -> Path:
    """Where configuration of one's own is written: the user's first folder, else a checkout's.

    Raises:
        InputError: there is neither.
    """
    for folder in user_folders():
        return folder
    if conf_dir().is_relative_to(Path(negrec.__file__).resolve().parent):
        raise InputError(f"a folder for it is wanted: mkdir my_conf, then {USER_FOLDERS}=my_conf")
    return conf_dir()


def user_folders() -> list[Path]:
    """The folders of ``$NEGREC_CONF_DIR``, first one first."""
    names = os.environ.get(USER_FOLDERS, "").split(os.pathsep)
    return [Path(name).expanduser().absolute() for name in names if name]


class UserFolders(SearchPathPlugin):
    """Puts the user's folders before the shipped one, so that they add options and replace them."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in user_folders():
            search_path.prepend(USER_FOLDERS, f"file://{folder}", anchor="main")


def _job(*, _root_: DictConfig) -> str:
    """``${negrec.job:}``: what determines a job's result, in eight hexadecimal digits."""
    return identity.digest(identity.part_of_the_result(_root_))[:8]


# Loky replaces workers that have grown, which is nothing that a person must know.
warnings.filterwarnings("ignore", "A worker stopped while some jobs", UserWarning)

# When this module is imported, and not later: launchers import it in workers of their own.
OmegaConf.register_new_resolver("negrec.job", _job, replace=True)


def register() -> None:
    """Makes Hydra look into the user's folders.

    Raises:
        InputError: one of them does not exist.
    """
    for folder in user_folders():
        if not folder.is_dir():
            raise InputError(f"{USER_FOLDERS} names {folder}, which is no folder")
    Plugins.instance().register(UserFolders)


@contextmanager
def opened(folder: str | None = None) -> Iterator[ConfigLoader]:
    """Hydra outside of a run, to look at the configuration.

    Args:
        folder: another primary folder (``--config-path``) in place of the shipped one.
    """
    register()
    path = conf_dir() if folder is None else Path(folder).absolute()
    with initialize_config_dir(str(path), version_base=VERSION_BASE, job_name=CONFIG_NAME):
        yield GlobalHydra.instance().config_loader()


def search(typed: Typed) -> list[str]:
    """``--config-dir`` as an override, for looking at what Hydra will see."""
    folder = typed.flag("--config-dir")
    if folder is None or typed.value("hydra.searchpath") is not None:
        return []
    return [f"hydra.searchpath=[{quoted(f'file://{Path(folder).absolute()}')}]"]


def overridden(group: str, typed: Typed) -> bool:
    """Whether the command, or a file it names, chooses the option of a group."""
    with opened(typed.flag("--config-path")) as loader:
        defaults = loader.compute_defaults_list(
            CONFIG_NAME, [*search(typed), *typed.words], RunMode.MULTIRUN
        )
    return group in defaults.overrides.override_metadata


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration with Hydra's own part, inside ``opened``."""
    return compose(CONFIG_NAME, list(overrides), return_hydra_config=True)


def has_key(cfg: DictConfig, key: str) -> bool:
    """Whether a dotted key exists, without resolving any value."""
    node: object = OmegaConf.to_container(cfg, resolve=False)
    for part in key.split("."):
        if node is None:
            return False  # an option left out, such as sampler/false_negatives=none
        if not isinstance(node, dict):
            return True  # a list or an interpolation: not ours to judge
        if part not in node:
            return False
        node = node[part]
    return True


def keys(cfg: DictConfig) -> list[str]:
    """All dotted keys of the job, groups and Hydra's own left out."""
    container = OmegaConf.to_container(cfg, resolve=False)
    return [key for key in _flat(container) if not key.startswith("hydra.")]


def _flat(node: object, prefix: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield f"{prefix}{name}"
            yield from _flat(value, f"{prefix}{name}.")


@dataclass(frozen=True)
class Option:
    """One option of a group, as its file says it: ``group=name``."""

    group: str
    name: str
    keys: frozenset[str]


def owners(key: str, cfg: DictConfig) -> list[Option]:
    """The options that define a key, over all folders that the configuration was composed from."""
    found: dict[tuple[str, str], Option] = {}
    for source in cfg.hydra.runtime.config_sources:
        if source.schema == "file":
            for option in _options(Path(source.path)):
                found.setdefault((option.group, option.name), option)  # the first folder wins
    return [option for _, option in sorted(found.items()) if key in option.keys]


def _options(folder: Path) -> Iterator[Option]:
    for file in sorted(folder.glob("*/**/*.yaml")):
        group = file.relative_to(folder).parent.as_posix()
        if group.split("/")[0] in _SETTINGS:
            continue
        text = file.read_text(encoding="utf-8")
        header = re.search(r"^#\s*@package\s+(\S+)", text, re.MULTILINE)
        package = header[1] if header else "_group_"
        package = package.replace("_group_", group.replace("/", "."))
        content = yaml.safe_load(text)
        if isinstance(content, Mapping):
            prefix = "" if package == "_global_" else f"{package}."
            names = frozenset(key for key in _flat(dict(content), prefix))
            yield Option(group, file.stem, names)
