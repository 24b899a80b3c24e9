import math

import pytest
import torch

from negrec.samplers.uniform import Uniform
from tests import toy


def test_every_item_is_as_likely_as_every_other():
    drawn = Uniform(toy.info(50), k=5).draw(4_000, torch.Generator().manual_seed(0))
    assert drawn.shape == (4_000, 5)
    assert toy.chi_square_p(drawn - 1, torch.full((50,), 1 / 50)) > 1e-4


def test_log_prob():
    assert Uniform(toy.info(20), k=1).log_prob(torch.tensor([3])).item() == pytest.approx(
        -math.log(20)
    )


def test_k_must_fit_the_catalogue():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        Uniform(toy.info(20), k=0)
    with pytest.raises(ValueError, match="k=21, and there are 20 items"):
        Uniform(toy.info(20), k=21)


def test_unknown_words_are_refused():
    with pytest.raises(ValueError, match=r"exclude must be one of .*, got 'seen'"):
        Uniform(toy.info(), k=1, exclude="seen")
    with pytest.raises(ValueError, match=r"share must be one of .*, got 'user'"):
        Uniform(toy.info(), k=1, share="user")
