from math import log

import pytest
import torch

from negrec.losses.bce import BCE
from negrec.losses.gbce import GBCE
from negrec.types import Scores


def zeros(k=2, valid=None, label=None):
    valid = [True] * k if valid is None else valid
    label = None if label is None else torch.tensor([label])
    return Scores(torch.zeros(1), torch.zeros(1, k), torch.tensor([valid]), 5, label=label)


def random_scores():
    generator = torch.Generator().manual_seed(0)
    valid = torch.rand(6, 4, generator=generator) < 0.6
    label = torch.randint(2, (6, 4), generator=generator)
    positive = torch.randn(6, generator=generator)
    return Scores(positive, torch.randn(6, 4, generator=generator), valid, 50, label=label)


def test_hand_computed():
    # V = 5, K = 2: alpha = 1/2, and with t = 0.8, beta = 1 - 0.8 * 0.5 = 0.6.
    # sigma(0) = 1/2 everywhere: L = (0.6 ln 2 + 2 ln 2) / 3.
    assert GBCE(t=0.8).per_query(zeros()).item() == pytest.approx(2.6 * log(2) / 3)


def test_k_counts_the_valid_negatives():
    # K = 1: alpha = 1/4, beta = 1 - 0.8 * 0.75 = 0.4: L = (0.4 ln 2 + ln 2) / 2.
    loss = GBCE(t=0.8).per_query(zeros(valid=[True, False]))
    assert loss.item() == pytest.approx(1.4 * log(2) / 2)


def test_t_zero_is_bce():
    made = random_scores()
    torch.testing.assert_close(GBCE(t=0).per_query(made), BCE().per_query(made))


def test_with_all_negatives_t_does_not_matter():
    # K = V - 1: alpha = 1, beta = 1.
    assert GBCE(t=1).per_query(zeros(k=4)).item() == pytest.approx(log(2))


@pytest.mark.parametrize(("t", "k"), [(0.3, 1), (1.0, 2), (0.75, 3)])
def test_beta_is_that_of_the_paper(t, k):
    # Section 5.3: beta = alpha (t (1 - 1/alpha) + 1/alpha); V - 1 = 4, and every sigma is 1/2.
    alpha = k / 4
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    loss = GBCE(t).per_query(zeros(k))
    assert loss.item() == pytest.approx((beta + k) * log(2) / (k + 1))


def test_a_catalogue_of_one_item_has_nothing_to_discount():
    alone = Scores(torch.zeros(1), torch.zeros(1, 1), torch.tensor([[True]]), 1)
    assert GBCE().per_query(alone).item() == pytest.approx(log(2))


@pytest.mark.parametrize("t", [-0.1, 1.1])
def test_bad_t_is_refused(t):
    with pytest.raises(ValueError, match=rf"t must be in \[0, 1\], got {t}"):
        GBCE(t)
