import math

import pytest
import torch

from negrec.models.mf import MF
from negrec.models.sasrec import SASRec
from negrec.objectives.contrast import info_nce, refuse_without_history
from tests import toy


def plain_info_nce(one, two, temperature):
    """The mean over all views of -log of the share that the other view has, one by one."""
    views = [*one, *two]
    total = 0.0
    for a, view in enumerate(views):
        other = (a + len(one)) % len(views)
        weight = [math.exp(float(view @ z) / temperature) for z in views]
        total -= math.log(weight[other] / (sum(weight) - weight[a]))
    return total / len(views)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_mean_over_views_of_a_double_loop(temperature):
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 5, 3, generator=generator, dtype=torch.double)
    value = info_nce(one, two, temperature)
    assert value.item() == pytest.approx(plain_info_nce(one, two, temperature), rel=1e-12)


def test_hand_computed():
    # Three sequences whose two views are one unit vector each, at right angles to the others':
    # the other view scores 1 / tau, the 2 (B - 1) = 4 negatives score 0.
    # L = -log(e^2 / (e^2 + 4)) = log(1 + 4 e^-2) at tau = 1/2.
    views = torch.eye(3)
    assert info_nce(views, views, 0.5).item() == pytest.approx(math.log(1 + 4 * math.exp(-2)))


def test_limits():
    assert info_nce(torch.randn(1, 4), torch.randn(1, 4), 1.0).item() == 0  # no negatives
    alike = torch.ones(4, 3)
    assert info_nce(alike, alike, 0.3).item() == pytest.approx(math.log(7))  # 2 B - 1
    views = 20 * torch.eye(3)
    assert info_nce(views, views, 1.0).item() == 0  # they are told apart


def test_the_gradient_is_that_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(2, 3, 2, generator=generator, dtype=torch.double).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.7), (one, two))


def test_similarities_are_worked_out_in_full_precision_under_autocast():
    one, two = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(info_nce(one, two, 1.0), info_nce(one, two, 1.0).float())
        within = info_nce(one, two, 1.0)
    assert torch.equal(within, info_nce(one, two, 1.0))


def test_a_model_that_reads_no_history_is_refused():
    message = "objective this does not go with model MF.* use objective=ranking"
    with pytest.raises(ValueError, match=message):
        refuse_without_history("this", MF(toy.info(), dim=8))
    refuse_without_history("this", SASRec(toy.info(), dim=8))
