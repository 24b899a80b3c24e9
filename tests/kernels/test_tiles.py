import copy
from itertools import pairwise

import pytest
import torch

from negrec.kernels.tiles import (
    Pairs,
    Scratch,
    chunk_rows,
    chunks,
    exponentials,
    stretches,
    tile_rows,
)
from tests import toy


def test_what_is_held_at_once_does_not_grow_with_the_catalogue():
    for n_items in (1, 12_101, 24_576, 24_577, 1_000_000, 50_000_000):
        columns = stretches(n_items)
        assert columns[0].start == 0
        assert columns[-1].stop == n_items
        assert all(a.stop == b.start for a, b in pairwise(columns))
        widest = max(part.stop - part.start for part in columns)
        assert tile_rows(n_items) * widest <= 128 * 12_288
    assert len(stretches(24_576)) == 1  # what fits is one tile
    assert tile_rows(12_101) == chunk_rows(12_101) == 129
    assert tile_rows(1_000_000) == 128


def test_pairs_in_any_order_are_cut_by_rows_and_by_columns():
    pairs = Pairs.of(torch.tensor([4, 0, 2, 4]), torch.tensor([9, 8, 7, 6]))
    assert pairs.row.tolist() == [0, 2, 4, 4]
    assert pairs.column.tolist() == [8, 7, 9, 6]
    first, last = pairs.by_rows(list(chunks(5, 3)))
    assert (first.row.tolist(), first.column.tolist()) == ([0, 2], [8, 7])
    assert (last.row.tolist(), last.column.tolist()) == ([1, 1], [9, 6])
    inside = pairs.within(slice(7, 9))
    assert (inside.row.tolist(), inside.column.tolist()) == ([0, 2], [1, 0])
    some = pairs.at(torch.tensor([1, 4]), 5)
    assert (some.row.tolist(), some.column.tolist()) == ([1, 1], [9, 6])


@pytest.mark.parametrize("parts", [[], [slice(0, 3)]])
def test_no_pairs(parts):
    none = torch.zeros(0, dtype=torch.int64)
    assert [len(part.row) for part in Pairs(none, none).by_rows(parts)] == [0] * len(parts)


def test_a_scratch_is_kept_and_not_copied():
    scratch = Scratch()
    first = scratch.take(4, 5, torch.zeros(1))
    assert scratch.take(2, 3, torch.zeros(1)).data_ptr() == first.data_ptr()
    assert copy.deepcopy(scratch).take(1, 1, torch.zeros(1)).data_ptr() != first.data_ptr()


def test_exponentials_are_softmax_up_to_a_row_factor():
    hidden = 30 * torch.randn(7, 4, generator=torch.Generator().manual_seed(0))  # scores beyond 88
    matrix = toy.scorer(100).matrix.detach()
    out = torch.zeros(7, 100, dtype=torch.bool)
    out[torch.arange(7), (hidden @ matrix.T).argmax(1)] = True  # the leaders are ruled out
    weight, top = exponentials(hidden, matrix, Pairs(*out.nonzero(as_tuple=True)), Scratch())
    assert torch.equal(weight, exponentials(hidden, matrix, out, Scratch())[0])
    assert torch.equal(top, (hidden @ matrix.T).masked_fill(out, -torch.inf).amax(1))
    assert weight.shape == (7, 128)
    assert weight[:, 100:].eq(0).all()
    probability = weight / weight.sum(1, keepdim=True)
    score = hidden.double() @ matrix.double().T
    expected = score.masked_fill(out, -torch.inf).softmax(1).float()
    torch.testing.assert_close(probability[:, :100], expected, atol=1e-6, rtol=1e-3)
