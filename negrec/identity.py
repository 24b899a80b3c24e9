"""What tells runs apart: an id, and their configuration without paths and verbosity."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Settings that change where, how fast or how loudly a run goes, not what comes out of it.
_NO_PART_OF_THE_RESULT = (
    "paths.",
    "tracking.",
    "dataset.source.",
    "trainer.progress",
    "trainer.checkpoint_minutes",
    "diagnostics.",
    "sweep.",
    "refit_of",
    "tuned.",  # where tuned values come from; the values themselves count
)


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """All values, interpolations replaced, without Hydra's part, which is complete in jobs only."""
    nodes = {str(key): cfg[key] for key in cfg if key != "hydra"}
    return {
        key: OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
        for key, node in nodes.items()
    }


def part_of_the_result(cfg: DictConfig) -> dict[str, object]:
    """The resolved configuration by dotted key, without what cannot change the result."""
    flat = _flat(resolved(cfg))
    return {
        key: value
        for key, value in flat.items()
        if not key.startswith(_NO_PART_OF_THE_RESULT)
        # A table of names to print; synthetic data have a number of items there.
        and not (key == "dataset.items" and not isinstance(value, int))
    }


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def digest(value: object) -> str:
    """A hash of 16 hexadecimal digits of anything that JSON can hold."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def new_id() -> str:
    """An id of eight characters that Hydra, YAML and a spreadsheet read as text.

    A letter comes first: 1988e985 is a number, too large for one at that, and 00123456 another.
    """
    return secrets.choice("abcdef") + secrets.token_hex(4)[1:]
