from math import exp, log

import pytest
import torch

from negrec.losses.bpr import BPR
from negrec.types import Scores


def scores(valid):
    return Scores(torch.tensor([1.0]), torch.tensor([[2.0, -0.5]]), torch.tensor([valid]), 5)


def test_hand_computed():
    # -log sigma(x) = log(1 + e^-x), for the differences 1 - 2 = -1 and 1 + 0.5 = 1.5.
    expected = (log(1 + exp(1)) + log(1 + exp(-1.5))) / 2
    assert BPR().per_query(scores([True, True])).item() == pytest.approx(expected)


def test_the_mean_is_over_valid_negatives():
    assert BPR().per_query(scores([False, True])).item() == pytest.approx(log(1 + exp(-1.5)))
    assert BPR().per_query(scores([False, False])).item() == 0
