import pytest
import torch

from negrec.samplers.full import Full
from negrec.types import Negatives
from tests import toy

V = 30


@pytest.mark.parametrize("exclude", ["none", "target", "window", "history"])
def test_every_item_that_is_not_excluded_is_valid(exclude):
    queries = toy.queries(toy.batch(toy.random_histories(20, V, 10), max_length=6))
    negatives = Full(toy.info(V), exclude).sample(queries, toy.scorer(V), toy.step())
    assert negatives.exhaustive
    assert negatives.items.tolist() == [list(range(1, V + 1))]
    # The same by looking up each item, as for any other draw.
    looked_up = Negatives(negatives.items, exclude=exclude).valid(queries)
    assert torch.equal(negatives.valid(queries), looked_up)
