from math import exp, log

import pytest
import torch

from negrec.losses.bpr import BPR
from negrec.losses.bpr_max import BPRMax
from negrec.types import Scores


def sigma(x):
    return 1 / (1 + exp(-x))


def scores(positive=1.0, negative=(2.0, -0.5), valid=(True, True)):
    return Scores(torch.tensor([positive]), torch.tensor([negative]), torch.tensor([valid]), 5)


def test_hand_computed():
    # Softmax weights of 2 and -0.5: the first is e^2 / (e^2 + e^-0.5).
    first = exp(2) / (exp(2) + exp(-0.5))
    ranking = -log(first * sigma(1 - 2) + (1 - first) * sigma(1 + 0.5))
    regularization = first * 2**2 + (1 - first) * 0.5**2
    loss = BPRMax(regularization=0.3).per_query(scores())
    assert loss.item() == pytest.approx(ranking + 0.3 * regularization)


def test_with_one_negative_and_no_regularization_it_is_bpr():
    one = scores(valid=(True, False))
    assert BPRMax(0.0).per_query(one).item() == pytest.approx(BPR().per_query(one).item())


def test_no_valid_negative_gives_nothing():
    assert BPRMax().per_query(scores(valid=(False, False))).item() == 0


def test_far_off_scores_do_not_underflow():
    # sigma(-200) is 0 in float32; its logarithm is -200.
    loss = BPRMax(0.0).per_query(scores(positive=-100.0, negative=(100.0, -200.0)))
    assert loss.item() == pytest.approx(200)


def test_a_higher_regular_negative_is_worse():
    # (Not so for every negative: one that is pushed up draws weight from worse ones.)
    made = scores(negative=(2.0, 1.9))
    made.negative.requires_grad_()
    BPRMax().per_query(made).sum().backward()
    assert (made.negative.grad > 0).all()


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="regularization must be at least 0, got -1"):
        BPRMax(-1.0)
