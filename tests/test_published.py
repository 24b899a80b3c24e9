"""Every published setting trains: each experiment, and each cell of those that are sweeps."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from negrec import experiment, seeding
from negrec.commandline.configuration import conf_dir
from negrec.types import Step

EXPERIMENTS = sorted(path.stem for path in (conf_dir() / "experiment").glob("*.yaml"))
APPLE = ("apple_code", "apple_paper")
# Small data in place of the real: everything else is the experiment's.
MADE = ["dataset=synthetic", "dataset.users=60", "dataset.items=300", "tracking=none"]


def read(name: str) -> dict[str, Any]:
    text = (conf_dir() / "experiment" / f"{name}.yaml").read_text()
    found = yaml.safe_load(text)
    assert isinstance(found, dict)
    return found


def axes(name: str) -> dict[str, list[str]]:
    """What a sweep goes over, as Hydra's basic sweeper reads it."""
    params = read(name)["hydra"]["sweeper"]["params"]
    parser = OverridesParser.create()
    overrides = parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
    return {str(o.key_or_group): [*map(str, o.sweep_string_iterator())] for o in overrides}


def config(*words: str) -> Any:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return compose("train", [*words])


CELLS = [(name,) for name in EXPERIMENTS if name not in APPLE]
CELLS += [
    ("apple_code", f"sampler={sampler}", f"tuned=apple_code/{sampler}")
    for sampler in axes("apple_code")["sampler"]
]
CELLS += [
    ("apple_paper", f"sampler={sampler}", f"tuned=apple_paper/{dataset}/{sampler}")
    for sampler in axes("apple_paper")["sampler"]
    for dataset in axes("apple_paper")["dataset"]
]


@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def test_an_experiment_trains(cell: tuple[str, ...], tmp_path: Path):
    name, *words = cell
    paths = [f"paths.{key}_dir={tmp_path}" for key in ("cache", "data", "runs")]
    cfg = config(f"experiment={name}", *words, *MADE, *paths)
    if "validation_users" in cfg.split and cfg.split.validation_users:
        cfg.split.validation_users = 30
    parts = experiment.build(cfg)
    parts.objective.bind(parts.model)
    before = [parameter.clone() for parameter in parts.model.parameters()]
    optimizer = torch.optim.Adam(parts.model.parameters(), lr=1e-3)
    batch = next(iter(parts.trainer.loader.epoch(0)))
    generator = seeding.generator(0, "sampler", *batch.key)
    outcome = parts.objective(parts.model, batch, Step(0, 0, generator, batch.key))
    outcome.loss.backward()
    optimizer.step()
    assert 0 < outcome.loss.item() < 100
    after = parts.model.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", APPLE)
def test_a_sweep_goes_over_samplers_data_sets_and_twenty_seeds(name: str):
    found = axes(name)
    assert len(found["sampler"]) == 6  # of table 3, without the popularity ranker
    assert found["dataset"] == ["beauty", "ml-1m"]
    assert found["seed"] == [str(seed) for seed in range(20)]


@pytest.mark.parametrize("name", APPLE)
def test_every_cell_of_a_sweep_has_its_values(name: str):
    # The group is optional, so a slip in a file's name would go unseen.
    for sampler in axes(name)["sampler"]:
        for dataset in axes(name)["dataset"]:
            words = [f"experiment={name}", f"sampler={sampler}", f"dataset={dataset}"]
            with initialize_config_dir(str(conf_dir()), version_base="1.3"):
                cfg = compose("train", words, return_hydra_config=True)
            chosen = cfg.hydra.runtime.choices.tuned
            values = OmegaConf.load(conf_dir() / "tuned" / f"{chosen}.yaml")
            for key, value in _leaves(values):
                assert OmegaConf.select(cfg, key) == value, (words, key)


def _leaves(node: Any, prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key in node:
        if OmegaConf.is_dict(node[key]):
            found += _leaves(node[key], f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", node[key]))
    return found


def test_what_apples_driver_really_ran():
    cfg = config("experiment=apple_code")
    # In-batch and uniform candidates, the hardest 50 of 250; distinct users; every 25 epochs.
    parts = cfg.sampler.base.parts
    assert (parts.in_batch.k, parts.uniform.k, cfg.sampler.k) == (200, 50, 50)
    assert (cfg.split.count, cfg.split.target, cfg.evaluation.seen) == ("users", "all", "keep")
    assert cfg.trainer.evaluate_every == 25
    cfg = config("experiment=apple_code", "sampler=adaptive_in_batch")
    assert cfg.sampler.base._target_.endswith("InBatch")
    assert (cfg.sampler.base.k, cfg.sampler.k) == (200, 50)


def test_alpha_of_genni_is_that_of_the_data_set():
    assert config("experiment=genni").alpha == 2.5
    assert config("experiment=genni", "dataset=yelp").alpha == 4.4
    assert config("experiment=genni", "dataset=yelp", "alpha=1.0").alpha == 1.0


def test_a_first_comment_names_the_table():
    for name in set(EXPERIMENTS) - {"quick", "strong"}:
        text = (conf_dir() / "experiment" / f"{name}.yaml").read_text()
        header, first = text.splitlines()[:2]
        assert header == "# @package _global_"
        assert "table" in first
        assert "arXiv:" in first or "doi:" in first
        assert "nown deviations" in text
