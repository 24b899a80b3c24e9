"""The best values that a sweep found for each data set and sampler, as configuration files."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from negrec.errors import InputError
from negrec.sweeping import jobs

_PLAIN = (str, int, float, bool, type(None))
Setting = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tuned:
    """What a sweep found for one data set and sampler.

    Attributes:
        dataset: option of the group.
        sampler: option of the group.
        values: of the tuned keys, by dotted key.
        metric: the validation metric that decided.
        value: its mean over the seeds of the best setting.
        trials: settings that were tried.
        runs: of all of them.
    """

    dataset: str
    sampler: str
    values: Mapping[str, object]
    metric: str
    value: float
    trials: int
    runs: int

    def write(self, root: Path, sweep: str) -> Path:
        """Writes ``tuned/<dataset>/<sampler>.yaml`` into a folder of configuration."""
        for name in (self.dataset, self.sampler):  # as a run's folder says them
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise InputError(f"{name!r} is no name of an option: nothing is written to tuned/")
        for key, value in self.values.items():
            # What is written is configuration from now on: plain values only.
            parts = value if isinstance(value, list) else [value]
            if any(not isinstance(p, _PLAIN) or "${" in str(p) for p in parts):
                raise InputError(f"{key}={value!r} is no plain value: nothing is written to tuned/")
        path = root / "tuned" / self.dataset / f"{self.sampler}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        nested: dict[str, Any] = {}
        about = {"tuned.trials": self.trials, "tuned.sweep": sweep}
        for key, value in {**self.values, **about}.items():
            node = nested
            *parents, last = key.split(".")
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        head = (
            "# @package _global_\n"
            f"# The best of {self.trials} settings ({self.runs} runs) by validation {self.metric}, "
            f"{self.value:.4f}, of sweep {sweep}.\n"
        )
        temporary = path.with_suffix(".tmp")
        temporary.write_text(head + yaml.safe_dump(nested, sort_keys=False), encoding="utf-8")
        temporary.replace(path)
        return path


def best(folders: Sequence[Path], keys: Sequence[str]) -> list[Tuned]:
    """The best setting of each data set and sampler, by the mean over seeds on validation.

    A setting that some seeds failed with is no candidate: its mean is over the lucky ones.

    Args:
        folders: of the jobs.
        keys: the keys that were varied, dotted.
    """
    values: defaultdict[tuple[str, str], dict[Setting, list[float]]] = defaultdict(dict)
    meant: dict[Setting, Mapping[str, object]] = {}
    metric = ""
    for path in folders:
        past = jobs.look(path)
        if past.status != "FINISHED" or past.value is None or math.isnan(past.value):
            continue
        run = json.loads((path / "run.json").read_bytes())
        found = {key: run["config"][key] for key in keys if key in run["config"]}
        setting = tuple((key, repr(value)) for key, value in sorted(found.items()))
        meant[setting] = found
        metric = run["config"]["trainer.metric"]
        pair = (run["choices"]["dataset"], run["choices"]["sampler"])
        values[pair].setdefault(setting, []).append(past.value)
    tuned = []
    for (dataset, sampler), tried in sorted(values.items()):
        seeds = max(map(len, tried.values()))
        whole = {setting: fmean(of) for setting, of in tried.items() if len(of) == seeds}
        winner = max(whole, key=whole.__getitem__)
        runs = sum(map(len, tried.values()))
        values_of, value = meant[winner], whole[winner]
        tuned.append(Tuned(dataset, sampler, values_of, metric, value, len(tried), runs))
    return tuned
