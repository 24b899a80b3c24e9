from dataclasses import replace
from math import exp, log

import pytest
import torch

from negrec.losses.bce import BCE
from negrec.types import Scores


def softplus(x):
    return log(1 + exp(x))


def scores(valid=(True, True), label=None):
    return Scores(
        positive=torch.tensor([1.0]),
        negative=torch.tensor([[2.0, -0.5]]),
        valid=torch.tensor([valid]),
        n_items=5,
        label=label,
    )


def test_hand_computed_sum():
    expected = (softplus(-1) + softplus(2) + softplus(-0.5)) / 3
    assert BCE().per_query(scores()).item() == pytest.approx(expected)


def test_hand_computed_mean():
    expected = (softplus(-1) + (softplus(2) + softplus(-0.5)) / 2) / 2
    assert BCE("mean").per_query(scores()).item() == pytest.approx(expected)


@pytest.mark.parametrize("negatives", ["sum", "mean"])
def test_only_valid_candidates_count(negatives):
    expected = (softplus(-1) + softplus(2)) / 2
    loss = BCE(negatives).per_query(scores(valid=(True, False)))
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize("negatives", ["sum", "mean"])
def test_without_valid_candidates_the_positive_stands_alone(negatives):
    loss = BCE(negatives).per_query(scores(valid=(False, False)))
    assert loss.item() == pytest.approx(softplus(-1))


def test_a_labelled_candidate_is_a_positive():
    expected = (softplus(-1) + softplus(-2) + softplus(-0.5)) / 3
    loss = BCE().per_query(scores(label=torch.tensor([[1, 0]])))
    assert loss.item() == pytest.approx(expected)


def test_unknown_weighting_is_refused():
    with pytest.raises(ValueError, match="negatives must be sum or mean, got 'max'"):
        BCE("max")


def test_hand_computed_noise_contrastive():
    # s - log(K q) with K = 2 draws: 1 - log(2 * 0.5) = 1; 2 - log(0.4); -0.5 - log(0.2).
    made = replace(
        scores(),
        log_q=torch.tensor([[0.2, 0.1]]).log(),
        target_log_q=torch.tensor([0.5]).log(),
    )
    expected = (softplus(-1) + softplus(2 - log(0.4)) + softplus(-0.5 - log(0.2))) / 3
    assert BCE(log_q="standard").per_query(made).item() == pytest.approx(expected)


def test_unknown_correction_is_refused():
    with pytest.raises(ValueError, match="log_q must be none or standard, got 'refined'"):
        BCE(log_q="refined")
