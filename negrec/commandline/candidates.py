"""What ``negrec choose`` may choose: named settings, composed with the rest of the command."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from negrec.commandline import configuration
from negrec.commandline.explain import NotComposedError
from negrec.commandline.typed import name, parsed
from negrec.errors import InputError

_FILE_NAME = "choose.yaml"


@dataclass(frozen=True)
class Candidate:
    """What may be chosen.

    Attributes:
        words: the overrides that make it.
        cfg: the configuration, with the longest training.
        choices: the option of each group.
    """

    words: tuple[str, ...]
    cfg: DictConfig
    choices: Mapping[str, str]


def read_candidates() -> dict[str, list[str]]:
    """All candidates of the shipped file and of the user's, which come last.

    Raises:
        InputError: a file holds something else.
    """
    found: dict[str, list[str]] = {}
    folders = [configuration.conf_dir(), *reversed(configuration.user_folders())]
    for path in [folder / _FILE_NAME for folder in folders]:
        if not path.exists():
            continue
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        if not isinstance(content, dict):
            raise InputError(f"{path} must hold a list of overrides for each name")
        for cell, words in content.items():
            found.pop(cell, None)
            if words is None:
                continue
            if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                raise InputError(f"{path}: {cell} must be a list such as [sampler=uniform, k=5]")
            if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", str(cell)):
                raise InputError(f"{path}: {cell!r} must consist of letters, digits, _, - and .")
            found[str(cell)] = words
    return found


def listed(
    known: Mapping[str, Sequence[str]], samplers: Sequence[str] | None, losses: Sequence[str] | None
) -> dict[str, list[str]]:
    """The candidates that were asked for.

    A sampler without a candidate of its own becomes one, with the softmax loss, which goes with any
    number of negatives. A loss that is not a candidate's own replaces its loss with all settings.

    Args:
        known: overrides of each candidate.
        samplers: that were named; None: all candidates.
        losses: likewise; None: each candidate's own.
    """
    found = {cell: list(words) for cell, words in known.items()}
    if samplers is not None:
        found = {}
        for sampler in samplers:
            of_it = {c: list(words) for c, words in known.items() if f"sampler={sampler}" in words}
            found |= of_it or {sampler: [f"sampler={sampler}", "loss=sampled_softmax"]}
    if losses is None:
        return found
    crossed = {}
    for cell, words in found.items():
        for loss in losses:
            others = [word for word in words if not re.match(r"loss[=.]", word)]
            own = f"loss={loss}" in words
            crossed[f"{cell}-{loss}"] = words if own else [*others, f"loss={loss}"]
    return crossed


def composed(listed: Mapping[str, Sequence[str]], rest: Sequence[str]) -> dict[str, Candidate]:
    """The candidates with the rest of the command: what is typed wins, where its key is known."""
    from hydra.core.global_hydra import GlobalHydra

    loader = GlobalHydra.instance().config_loader()
    typed = parsed(rest)
    groups = [o for o in typed if loader.get_group_options(str(o.key_or_group))]
    values = [o for o in typed if o not in groups]
    retyped = {name(override) for override in typed}
    found, used = {}, set()
    for cell, words in listed.items():
        own = [str(o.input_line) for o in parsed(words) if name(o) not in retyped]
        own += [str(override.input_line) for override in groups]
        cfg, _ = without_hydra(own)
        known = [str(o.input_line) for o in values if _known(o, cfg)]
        used.update(known)
        cfg, choices = without_hydra([*own, *known])
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
        found[cell] = Candidate((*own, *known), cfg, choices)
    for override in values:
        if str(override.input_line) not in used:  # refused as `train` refuses it
            without_hydra([*own, str(override.input_line)])
    return found


def _known(override: Override, cfg: DictConfig) -> bool:
    # What is added or deleted is Hydra's to judge.
    always = override.is_add() or override.is_delete()
    return always or configuration.has_key(cfg, str(override.key_or_group))


def without_hydra(words: Sequence[str]) -> tuple[DictConfig, dict[str, str]]:
    """A configuration without Hydra's part, and the option of each group."""
    try:
        cfg = configuration.composed(words)
    except Exception as error:
        raise NotComposedError(words, error) from error
    choices = {str(group): str(option) for group, option in cfg.hydra.runtime.choices.items()}
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices
