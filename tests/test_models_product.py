"""Every model with a handful of samplers, losses and objectives: all of them go together."""

from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from negrec import seeding
from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.types import Step

CONF = Path(__file__).parents[1] / "conf"
NAMES = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
WAYS = {
    "uniform, bce": ("sampler=uniform", "k=1", "loss=bce"),
    "uniform, gbce": ("sampler=uniform", "k=8", "loss=gbce"),
    "in_batch, bpr_max": ("sampler=in_batch", "loss=bpr_max"),
    "genni, bce": ("sampler=genni", "loss=bce"),
    "full, softmax": ("sampler=full", "loss=softmax"),
    "mixed, refined": ("sampler=mixed", "loss=sampled_softmax", "loss.log_q=refined"),
    "reverse, teacher": (
        *("sampler=uniform", "k=8", "sampler/false_negatives=reverse"),
        *("objective=ranking_with_teacher", "mining_start=0", "false_negatives.m=0"),
    ),
}


@cache
def config(*words):
    small = ("dataset.users=40", "dataset.items=300", "max_length=10")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [*words, *small])
    for key, value in {"dim": 8, "blocks": 1}.items():
        if OmegaConf.select(cfg, f"model.{key}") is not None:
            cfg.model[key] = value
    return cfg


@cache
def split():
    cfg = config()
    interactions = instantiate(cfg.dataset, cache_dir=None, data_dir=None)
    return instantiate(cfg.split)(interactions, max_length=cfg.max_length, seed=cfg.seed)


def steps(*words):
    """Two training steps as an experiment would make them: model, outcomes."""
    cfg = config(*words)
    sequences = Sequences(split().train, cfg.max_length, instantiate(cfg.targets), cfg.window)
    info = sequences.facts(split().info)
    torch.manual_seed(0)
    model = instantiate(cfg.model)(info)
    objective = instantiate(cfg.objective)(info, sequences)
    objective.bind(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loader, outcomes = Loader(sequences, 20, seed=0), []
    # The same sequences again: what they were given before is a false negative now.
    for epoch in (0, 1):
        batch = next(loader.epoch(0))
        step = Step(epoch, 0, seeding.generator(0, "sampler", epoch), batch.key)
        optimizer.zero_grad()
        outcome = objective(model, batch, step)
        outcome.loss.backward()
        optimizer.step()
        objective.observe(model, outcome.feedback)
        outcomes.append(outcome)
    return model, outcomes


def trained(name):
    cfg = config(f"model={name}")
    return any(True for _ in instantiate(cfg.model)(split().info).parameters())


TRAINED = [name for name in NAMES if trained(name)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", TRAINED)
def test_a_model_trains_in_every_way(name, way):
    model, outcomes = steps(f"model={name}", *WAYS[way])
    for outcome in outcomes:
        assert outcome.loss.isfinite()
        feedback = outcome.feedback
        assert feedback.loss.isfinite().all()
        assert outcome.skipped < len(feedback.loss)
        candidates = feedback.negatives.items
        assert candidates.min() >= 1
        assert candidates.max() <= split().info.n_items
    for parameter in model.parameters():
        assert parameter.isfinite().all()
    assert not torch.equal(outcomes[0].loss, outcomes[1].loss)
