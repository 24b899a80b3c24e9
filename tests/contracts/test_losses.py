"""What every loss of conf/loss must obey."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf

from negrec import scoring
from negrec.contracts.base import DoesNotApplyError
from negrec.contracts.losses import CONTRACTS
from negrec.losses.base import ScoreLoss
from negrec.types import Negatives
from tests import toy

CONF = Path(__file__).parents[2] / "conf"


def config(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [f"loss={name}"]).loss


def maker(option):
    """What makes a configured loss: ``name`` or ``name+log_q=...``."""
    name, _, change = option.partition("+")
    cfg = OmegaConf.to_container(config(name), resolve=True)
    key, _, value = change.partition("=")
    if key:
        cfg[key] = value
    return lambda: instantiate(cfg)


NAMES = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))
CORRECTED = [
    "bce+log_q=standard",
    "sampled_softmax+log_q=standard",
    "sampled_softmax+log_q=refined",
]
OPTIONS = [*NAMES, *CORRECTED]


@pytest.mark.parametrize("contract", CONTRACTS, ids=str)
@pytest.mark.parametrize("option", OPTIONS)
def test_contract(option, contract):
    try:
        contract.check(maker(option))
    except DoesNotApplyError as reason:
        pytest.skip(str(reason))


def test_every_correction_is_looked_at():
    corrected = {name for name in NAMES if "log_q" in config(name)}
    assert corrected == {option.partition("+")[0] for option in CORRECTED}


SCORED = [option for option in OPTIONS if isinstance(maker(option)(), ScoreLoss)]


@pytest.mark.parametrize("option", SCORED)
@pytest.mark.parametrize("exhaustive", [False, True])
def test_chunks_give_the_same_losses_and_gradients(option, exhaustive, monkeypatch):
    loss = maker(option)()
    if exhaustive and loss.needs_density:
        pytest.skip("the whole catalogue has no density")
    queries = toy.queries(toy.batch(toy.random_histories(9, 20, 8)))
    items = torch.arange(1, 21)[None]
    negatives = Negatives(items, exclude="window", exhaustive=exhaustive)
    if not exhaustive:
        n = len(queries.target)
        generator = torch.Generator().manual_seed(3)
        items = torch.randint(1, 21, (n, 5), generator=generator)
        log_q = -torch.rand(n, 5, generator=generator) - 1
        negatives = Negatives(items, None, log_q, log_q[:, 0], exclude="window")

    def judged():
        scorer = toy.scorer()
        hidden = queries.hidden.clone().requires_grad_()
        judgement = loss(replace(queries, hidden=hidden), negatives, scorer)
        judgement.mean().backward()
        return judgement, hidden.grad, scorer.weight.grad

    at_once, *gradients = judged()
    monkeypatch.setattr(scoring, "_SCORES", 7 * negatives.k)
    in_chunks, *others = judged()
    assert at_once.scores is not None
    assert in_chunks.scores is None
    torch.testing.assert_close(in_chunks.loss, at_once.loss)
    assert torch.equal(in_chunks.judged, at_once.judged)
    for one, other in zip(others, gradients, strict=True):
        torch.testing.assert_close(one, other)
