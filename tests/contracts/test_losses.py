"""What every loss of conf/loss must obey."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from negrec.losses.base import ScoreLoss
from negrec.types import Scores

CONF = Path(__file__).parents[2] / "conf"


def build(name):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return instantiate(compose("train", [f"loss={name}"]).loss)


NAMES = sorted(
    path.stem for path in (CONF / "loss").glob("*.yaml") if isinstance(build(path.stem), ScoreLoss)
)


def scores(dtype=torch.float32, valid=None):
    generator = torch.Generator().manual_seed(0)
    positive = torch.randn(6, generator=generator, dtype=dtype)
    negative = torch.randn(6, 4, generator=generator, dtype=dtype)
    if valid is None:
        valid = torch.rand(6, 4, generator=generator) < 0.6
    return Scores(positive.requires_grad_(), negative.requires_grad_(), valid, n_items=50)


@pytest.mark.parametrize("name", NAMES)
def test_candidates_ruled_out_change_nothing(name):
    made = scores()
    moved = torch.where(made.valid, made.negative.detach(), 1e4).requires_grad_()
    losses = [build(name).per_query(s) for s in (made, replace(made, negative=moved))]
    assert torch.equal(*losses)
    losses[1].sum().backward()
    assert moved.grad[~made.valid].eq(0).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_valid_candidate_gives_a_finite_value_and_gradient(name):
    made = scores(valid=torch.zeros(6, 4, dtype=torch.bool))
    loss = build(name).per_query(made)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert made.positive.grad.isfinite().all()
    assert made.negative.grad.eq(0).all()


@pytest.mark.parametrize("name", NAMES)
def test_extreme_scores_stay_finite(name):
    made = scores()
    extreme = replace(
        made,
        positive=(1e4 * made.positive.detach()).requires_grad_(),
        negative=(1e4 * made.negative.detach()).requires_grad_(),
    )
    loss = build(name).per_query(extreme)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert extreme.positive.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    made = scores(torch.float64)
    loss = build(name)

    def value(positive, negative):
        return loss.per_query(replace(made, positive=positive, negative=negative))

    assert torch.autograd.gradcheck(value, (made.positive, made.negative))


@pytest.mark.parametrize("name", NAMES)
def test_a_higher_target_is_better_and_a_higher_negative_worse(name):
    made = scores(valid=torch.ones(6, 4, dtype=torch.bool))
    build(name).per_query(made).sum().backward()
    assert (made.positive.grad < 0).all()
    assert (made.negative.grad >= 0).all()
