import copy

import pytest
import torch

from negrec.embedding import Late, Table, late_rows, look_up, whole
from tests import toy


class Doubled(Late):
    """By now every number is twice what is stored."""

    def __init__(self, table):
        self.table = table

    def rows(self, row):
        return 2 * self.table.detach()[row]

    def whole(self):
        return 2 * self.table.detach()


@pytest.fixture
def table():
    return Table(torch.arange(6.0).view(3, 2))


def test_rows_are_read_as_they_are(table):
    assert look_up(table, torch.tensor([[2], [0]])).tolist() == [[[4, 5]], [[0, 1]]]
    assert whole(table) is table
    assert late_rows(table) is None
    assert late_rows(torch.zeros(2)) is None


def test_late_rows_are_read_as_they_would_be(table):
    table.late = Doubled(table)
    assert look_up(table, torch.tensor([[2], [0]])).tolist() == [[[8, 10]], [[0, 2]]]
    assert whole(table).tolist() == [[0, 2], [4, 6], [8, 10]]


def test_gradients_of_late_rows(table):
    table.late = Doubled(table)
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    (look_up(table, torch.tensor([1, 1, 2])) * weight).sum().backward()
    assert table.grad.is_sparse
    assert table.grad.to_dense().tolist() == [[0, 0], [4, 6], [5, 6]]
    table.grad = None
    (whole(table) * weight).sum().backward()
    assert table.grad.tolist() == weight.tolist()


def test_a_copy_is_nobodys(table):
    table.late = Doubled(table)
    twin = copy.deepcopy(table)
    assert isinstance(twin, Table)
    assert late_rows(twin) is None


def test_gradients_go_into_the_buffer_that_is_there():
    scorer = toy.scorer()
    hidden = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    items = torch.tensor([2, 2, 7])
    scorer.weight.grad = torch.zeros_like(scorer.weight)
    scorer.target(hidden, items).sum().backward()
    expected = torch.zeros(20, 4).index_add_(0, items - 1, hidden)
    torch.testing.assert_close(scorer.weight.grad, expected)
    assert not scorer.weight.grad.is_sparse  # the buffer stays what it is
