"""Constructor arguments are the configuration's schema: values are held to their types."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from negrec.errors import InputError

_NAMES = {int: "a whole number", float: "a number", bool: "true or false"}


def check(cfg: DictConfig) -> None:
    """Refuses values that are not what their part's constructor says it takes.

    Numbers and truth values only: everything else a part judges for itself.

    Raises:
        InputError: naming the key, what it must be, and what it is.
    """
    for key, node in cfg.items():
        if key != "hydra" and OmegaConf.is_config(node):  # Hydra's own has values for jobs only
            _check(OmegaConf.to_container(node, resolve=True), f"{key!s}.")


def _check(node: object, prefix: str) -> None:
    if not isinstance(node, Mapping):
        return
    if "_target_" in node:
        _check_part(node, prefix)
    for key, value in node.items():
        _check(value, f"{prefix}{key}.")


def _check_part(node: Mapping[str, Any], prefix: str) -> None:
    try:
        part = get_object(str(node["_target_"]))
        maker = part.__init__ if isinstance(part, type) else part  # type: ignore[misc]
        hints = get_type_hints(maker)
    except Exception:  # the part cannot be loaded, or its hints are for a type checker only
        return
    for key, value in node.items():
        wanted = _wanted(hints.get(key))
        if wanted and not any(_fits(value, kind) for kind in wanted):
            kinds = [kind for kind in _NAMES if kind in wanted]
            names = " or ".join([*(_NAMES[kind] for kind in kinds), *_words(wanted)])
            where = f"{prefix}{key}".removeprefix("objective.")
            raise InputError(f"{where} must be {names}, got {value}")


def _wanted(hint: object) -> list[object]:
    """The kinds that a hint allows; none where one of them is not ours to judge."""
    union = get_origin(hint) in (Union, types.UnionType)
    found: list[object] = list(get_args(hint)) if union else [hint]
    known = all(kind in (*_NAMES, type(None)) or get_origin(kind) is Literal for kind in found)
    return found if known and any(kind in _NAMES for kind in found) else []


def _fits(value: object, kind: object) -> bool:
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is type(None):
        return value is None
    if kind is bool:
        return isinstance(value, bool)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, int) and not isinstance(value, bool)


def _words(wanted: list[object]) -> list[str]:
    literals = [arg for kind in wanted if get_origin(kind) is Literal for arg in get_args(kind)]
    return [*map(str, literals), *(["null"] if type(None) in wanted else [])]
