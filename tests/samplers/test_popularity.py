import math

import pytest
import torch

from negrec.samplers.popularity import Popularity
from tests import toy


def test_hand_computed():
    # counts 1, 4, 9 to the power 1/2: 1, 2, 3, so q = 1/6, 1/3, 1/2.
    sampler = Popularity(toy.info(3, counts=[1, 4, 9]), gamma=0.5, k=1)
    q = sampler.log_prob(torch.tensor([1, 2, 3])).exp()
    assert q.tolist() == pytest.approx([1 / 6, 1 / 3, 1 / 2])
    drawn = sampler.draw(30_000, torch.Generator().manual_seed(0))
    assert toy.chi_square_p(drawn - 1, q) > 1e-4


@pytest.mark.parametrize("gamma", [-1.0, 0.0, 1.0])
def test_items_that_never_occur_are_never_drawn(gamma):
    sampler = Popularity(toy.info(5, counts=[0, 3, 0, 1, 0]), gamma=gamma, k=1)
    drawn = sampler.draw(1_000, torch.Generator().manual_seed(0))
    assert set(drawn.flatten().tolist()) == {2, 4}
    assert sampler.log_prob(torch.tensor([1])).item() == -math.inf
    share = 3**gamma / (3**gamma + 1)
    assert sampler.log_prob(torch.tensor([2])).exp().item() == pytest.approx(share)


@pytest.mark.parametrize("gamma", [math.nan, math.inf])
def test_gamma_must_be_finite(gamma):
    with pytest.raises(ValueError, match="gamma must be finite"):
        Popularity(toy.info(), gamma=gamma, k=1)


def test_counts_of_nothing_are_refused():
    with pytest.raises(ValueError, match="every count is 0"):
        Popularity(toy.info(3, counts=[0, 0, 0]), gamma=1.0, k=1)
