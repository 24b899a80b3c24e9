import torch

from negrec.data.targets import NextItem
from tests import toy


def test_each_item_asks_for_the_one_after_it():
    inputs, query, target = NextItem()(toy.jagged([[1, 2, 3], [4, 5]]), torch.Generator())
    assert inputs.values.tolist() == [1, 2, 4]
    assert inputs.offsets.tolist() == [0, 2, 3]
    assert query.tolist() == [0, 1, 2]
    assert target.tolist() == [2, 3, 5]
