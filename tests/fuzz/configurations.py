"""Random configurations, made of the options on disk and of what their classes take."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

from hydra import compose, initialize_config_dir
from hydra.utils import get_object
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from negrec.commandline.configuration import VERSION_BASE, conf_dir

# What a person chooses, and how often nothing is said of it.
_GROUPS = {
    "model": 1,
    "sampler": 1,
    "loss": 1,
    "split": 1,
    "sampler/false_negatives": 4,
    "objective": 12,
    "targets": 30,
    "diagnostics": 4,
    "experiment": 30,
}
# Sizes that are small from the start; an option may need others.
_SMALL = {
    "trainer.max_epochs": 2,
    "trainer.batch_size": 16,
    "trainer.threads": 1,
    "trainer.progress": False,
    "trainer.device": "cpu",
}
_SMALL_INT, _LARGE_INT = 4, 8


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


@cache
def composed(choices: tuple[str, ...]) -> DictConfig:
    """The configuration of some options, by name; it is copied before it is changed."""
    with initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE, job_name="train"):
        return compose("train", list(choices))


@st.composite
def choices(draw: st.DrawFn) -> tuple[str, ...]:
    """An option of every group, or nothing for some; the loss may choose the sampler."""
    words = ["dataset=file", "dataset.path=clicks.csv", "tracking=none"]
    for group, silent in _GROUPS.items():
        said = draw(st.integers(0, silent)) == 0
        if said:
            words.append(f"{group}={draw(st.sampled_from(options(group)))}")
    return tuple(words)


@st.composite
def settings(draw: st.DrawFn, cfg: DictConfig) -> dict[str, object]:
    """Small sizes for all parts, and for some keys another value that their class takes."""
    container = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(container, dict)
    chosen: dict[str, object] = {}
    taken = dict(_taken(container, ""))
    for key, value in _flat(container, ""):
        room = key.split(".")[0]
        if room in ("dataset", "paths", "tracking", "evaluation", "trainer", "seed", "tuned"):
            continue
        if isinstance(value, int) and not isinstance(value, bool) and value > _SMALL_INT:
            # The vectors of a model are split among its heads.
            chosen[key] = _LARGE_INT if room == "model" else draw(st.integers(1, _SMALL_INT))
    chosen |= _SMALL
    # Where nothing is held out for validation, nothing decides which epoch is kept.
    chosen["trainer.metric"] = draw(st.sampled_from(["ndcg_10", "ndcg_10", "mrr", None]))
    chosen["max_length"] = draw(st.integers(1, 8))
    chosen["window"] = draw(st.sampled_from(["last", "all"]))
    for key in draw(st.lists(st.sampled_from(sorted(taken)), max_size=3, unique=True)):
        chosen[key] = draw(st.sampled_from(taken[key]))
    return chosen


def _taken(node: object, prefix: str) -> Iterator[tuple[str, list[object]]]:
    """The keys of all parts, with values that their constructors' hints allow."""
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        yield from _taken(value, f"{prefix}{key}.")
    room = prefix.split(".")[0]
    if "_target_" not in node or room in ("dataset", "tracking"):
        return
    part = get_object(str(node["_target_"]))
    hints = get_type_hints(part.__init__ if isinstance(part, type) else part)
    for key, value in node.items():
        interpolated = isinstance(value, str) and value.startswith("${")
        values = _values(hints.get(key), value)
        if len(values) > 1 and not interpolated and f"{prefix}{key}" not in _SMALL:
            yield f"{prefix}{key}", values


def _values(hint: object, value: object) -> list[object]:
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if hint is bool:
        return [False, True]
    if hint is int:
        return [1, 2, 4]
    if hint is float:
        return [value, value / 2, 0.0, 1.0] if isinstance(value, float) else [0.5, 1.0]
    if get_origin(hint) in (Union, UnionType):
        return [one for kind in get_args(hint) for one in _values(kind, value)]
    return [None] if hint is type(None) else []


def _flat(node: object, prefix: str) -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _flat(value, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), node
