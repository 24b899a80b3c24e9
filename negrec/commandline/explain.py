"""Errors of configuration and input, each as one line that says what, where and what to do."""

import difflib
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import yaml
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
)
from omegaconf import DictConfig
from omegaconf.errors import (
    ConfigAttributeError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from negrec.commandline import configuration
from negrec.commandline.typed import Typed
from negrec.errors import InputError

E = TypeVar("E", bound=BaseException)

# Hydra's modules that call a part: at once, or later where it is `_partial_`. A module without a
# constructor of its own refuses arguments in torch's.
_BUILDS = (
    "hydra._internal.instantiate",
    "hydra._internal.target_policy",
    "torch.nn.modules.module",
)
_SEE_ALL = "negrec train --cfg job lists them"


class NotComposedError(Exception):
    """Words that make no configuration.

    Attributes:
        words: the overrides.
        reason: Hydra's error.
    """

    def __init__(self, words: Sequence[str], reason: Exception) -> None:
        super().__init__(str(reason))
        self.words = tuple(words)
        self.reason = reason


@contextmanager
def explained() -> Iterator[None]:
    """Errors of a configuration as the lines that ``negrec train`` has for them.

    Raises:
        InputError: the line.
    """
    try:
        yield
    except InputError:
        raise
    except NotComposedError as error:
        line = before_a_job(error.reason, Typed((), error.words))
        if line is None:
            raise
        raise InputError(line) from error
    except Exception as error:
        line = inside_a_job(error) or before_a_job(error, Typed((), ()))
        if line is None:
            raise
        raise InputError(line) from error


def before_a_job(error: Exception, typed: Typed) -> str | None:
    """The line for what went wrong while a job was being put together; None for a bug."""
    match error:
        case InputError():
            return one_line(str(error))
        case MissingConfigException():
            return missing_option(error)
        case ConfigCompositionException():
            try:
                found = diagnosis(typed)
            except MissingConfigException as missing:
                found = missing_option(missing)
            except ConfigCompositionException as deeper:
                found = plain(deeper)
            return found or plain(error)
        case yaml.MarkedYAMLError():
            return broken_yaml(error)
        case OmegaConfBaseException():
            return unresolved(error)
        case HydraException():
            return plain(error)
    if (refused := _cause(error, OSError)) is not None:
        where = refused.filename or "the folder of runs"  # it could be opened, and took no more
        return (
            f"cannot write to {where}: {refused.strerror}; choose another folder with "
            "paths.runs_dir=FOLDER"
        )
    return plain(error) if isinstance(error, ValueError) else None


def inside_a_job(error: Exception) -> str | None:
    """The line for a part that refuses its settings; None for a bug."""
    if isinstance(error, InputError):
        return one_line(str(error))
    if isinstance(error, MissingMandatoryValue | InterpolationResolutionError):
        return unresolved(error)
    if (line := _out_of_memory(error)) is not None:
        return line
    cause = error
    while isinstance(cause, InstantiationException) and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    part, own_frames = _instantiation(error)
    # A sampler and a loss are built by the objective, and nobody types objective.sampler.
    where = f"{part.removeprefix('objective.')}: " if part else ""
    if str(cause).startswith(f"{part} "):  # "objective duorec does not go with ..."
        where = ""
    match cause:
        case InputError():
            return one_line(str(cause))
        case InstantiationException():  # Hydra's own refusal, without a cause
            return one_line(str(cause))
        case ImportError() if isinstance(error, InstantiationException):
            root = _cause(cause, ModuleNotFoundError) or _cause(cause, AttributeError)
            return one_line(f"{where}_target_ cannot be loaded: {root}") if root else None
        case ValueError() if part is not None:
            return one_line(f"{where}{cause}")
        case TypeError() if part is not None and not own_frames:
            return one_line(f"{where}{cause}")  # a key that the part's constructor does not know
    return None


def _out_of_memory(error: Exception) -> str | None:
    """The line for a lack of memory, which torch tells in its words for CPU and accelerators."""
    cause: BaseException | None = error
    while cause is not None:
        words = str(cause)
        if isinstance(cause, MemoryError) or (
            isinstance(cause, RuntimeError) and re.search("can't allocate|out of memory", words)
        ):
            asked = re.search(r"(?:allocate|allocating) ([\d.]+ \w+)", words)
            wanted = f" ({asked[1]} more were asked for)" if asked else ""
            return (
                f"out of memory{wanted}: make the model (model.dim, max_length), the negatives (k) "
                "or trainer.batch_size smaller, or run fewer jobs at once"
            )
        cause = cause.__cause__
    return None


def diagnosis(typed: Typed) -> str | None:
    """What is wrong with a command that does not compose: a sweep, an option, or a key.

    The parts that were chosen are read from the composed defaults, since an experiment file may
    choose them as well as the command line.
    """
    with configuration.opened(typed.flag("--config-path")) as loader:
        overrides = OverridesParser.create(loader).parse_overrides(list(typed.words))
        if not typed.multirun:
            for override in overrides:
                if override.is_sweep_override():
                    return several_values(override)
        groups = [o for o in overrides if loader.get_group_options(str(o.key_or_group))]
        values = [o for o in overrides if o not in groups and not (o.is_delete() or o.is_add())]
        for combination in _combinations(groups):
            cfg = configuration.composed([*configuration.search(typed), *combination])
            for override in values:
                key = str(override.key_or_group)
                if not override.is_hydra_override() and not configuration.has_key(cfg, key):
                    return unknown_key(override, cfg, loader)
    return None


def _combinations(groups: Sequence[Override]) -> Iterator[tuple[str, ...]]:
    """The choices of each job of a sweep; one tuple where nothing is swept."""
    choices = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [str(override.input_line)]
        for override in groups
    ]
    return itertools.product(*choices)


def several_values(override: Override) -> str:
    """Values for a sweep in a command for one run."""
    line, key = override.input_line, override.get_key_element()
    return f"{line} names several values: add -m to run them all, or write a list as {key}=[...]"


def unknown_key(override: Override, cfg: DictConfig, loader: ConfigLoader) -> str:
    """Whose setting a key is that the chosen parts do not have, or which keys are near it."""
    key = str(override.key_or_group)
    found = configuration.owners(key, cfg)
    if found:
        group = found[0].group
        names = [option.name for option in found if option.group == group]
        chosen = cfg.hydra.runtime.choices.get(group)
        options = f"{group}={' or '.join(names)}"
        return (
            f"{key} is a setting of {options}, and this is {group}={chosen}: "
            f"leave out {override.input_line}, or add {group}={names[0]}"
        )
    known = [*configuration.keys(cfg), *loader.list_groups("")]
    near = _near(key, known)
    hint = f"did you mean {near}?" if near else "check its spelling"
    return f"there is no key {key}: {hint} ({_SEE_ALL})"


def missing_option(error: MissingConfigException) -> str:
    """A group's option, or a file, that does not exist."""
    if not error.missing_cfg_file:
        return plain(error)
    group, _, option = error.missing_cfg_file.rpartition("/")
    options = sorted(error.options or ())
    if not group:
        return f"there is no configuration file {option}.yaml"
    source = re.match(r"In '([^']+)'", str(error))
    where = f"{source[1]}.yaml: " if source and source[1] != configuration.CONFIG_NAME else ""
    near = _near(option, options)
    hint = f", did you mean {near}?" if near else ""
    there = f"{group} can be {', '.join(options)}" if options else f"there is no group {group}"
    return f"{where}there is no {group}={option}{hint} ({there})"


def _near(word: str, known: Sequence[str]) -> str:
    # `epochs` for trainer.max_epochs: a word of the last part is what people remember.
    last = word.rpartition(".")[2]
    near = [key for key in known if key.rpartition(".")[2] == last]
    near += difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    near += [key for key in known if last in key.rpartition(".")[2].split("_")]
    return " or ".join(list(dict.fromkeys(near))[:3])


def broken_yaml(error: yaml.MarkedYAMLError) -> str:
    """A file that is no YAML, or has a key twice."""
    mark = error.problem_mark
    where = f"{mark.name}, line {mark.line + 1}" if mark is not None else "a configuration file"
    return one_line(f"{where}: {error.problem}")


def unresolved(error: OmegaConfBaseException) -> str:
    """A value that is missing, or refers to one that does not exist."""
    key = error.full_key
    match error:
        case MissingMandatoryValue():
            return f"{key} has no value: add {key}=..."
        case ConfigAttributeError():
            return one_line(f"{key}: {error.msg}")
    return one_line(f"{key or 'configuration'}: {str(error).splitlines()[0]}")


def plain(error: Exception) -> str:
    """Hydra's or OmegaConf's own words, on one line."""
    cause = error.__cause__
    if isinstance(cause, yaml.MarkedYAMLError):
        return broken_yaml(cause)
    words = str(error).strip()
    if isinstance(cause, OmegaConfBaseException):
        words = f"{words} {str(cause).splitlines()[0]}"
    return one_line(words) or type(error).__name__


def one_line(text: str) -> str:
    """The text without line breaks, so that one error is one line."""
    return " ".join(text.split())


def _instantiation(error: BaseException) -> tuple[str | None, bool]:
    """What Hydra was building when an error rose.

    Returns:
        The part's key, None where nothing was being built; and whether the part's own code was
        running by then.
    """
    part: str | None = None
    own = False
    for frame in _frames(error):
        module = frame.tb_frame.f_globals.get("__name__", "")
        if not module.startswith(_BUILDS):
            own = True
            continue
        here = frame.tb_frame.f_locals
        key = here.get("full_key") or getattr(here.get("self"), "_hydra_full_key", "")
        part, own = str(key) or part or "", False
    return part, own


def _frames(error: BaseException) -> Iterator[TracebackType]:
    """The traceback from its first frame to the one that raised the first error of the chain."""
    frame = error.__traceback__
    while frame is not None:
        yield frame
        frame = frame.tb_next
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        yield from _frames(error.__cause__)


def _cause(error: BaseException | None, kind: type[E]) -> E | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error
