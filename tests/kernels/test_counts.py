"""Counts of higher and equal scores against comparisons written out."""

import pytest
import torch

from negrec.kernels import native
from negrec.kernels.counts import counts
from negrec.kernels.tiles import Pairs, Scratch


def whole(size, generator):
    """Whole numbers: their products are exact, and tie often."""
    return torch.randint(-2, 3, size, generator=generator).float()


@pytest.mark.parametrize("value", [-torch.inf, 0.0, 1.0])
@pytest.mark.parametrize(
    ("n", "n_items", "dim"),
    [(100, 64, 3), (1500, 131, 17), (1, 900, 70), (5, 1, 4), (70, 300_000, 2), (0, 9, 3)],
)
def test_against_comparisons(way, n, n_items, dim, value):
    if way == "tiles" and n_items > 1000:
        pytest.skip("thousands of tiles")
    generator = torch.Generator().manual_seed(0)
    hidden, matrix = whole((n, dim), generator), whole((n_items, dim), generator)
    own = torch.randint(0, n_items, (n,), generator=generator)
    row = torch.arange(n).repeat_interleave(3)
    column = torch.randint(0, n_items, (3 * n,), generator=generator)
    column[::9] = own[row[::9]]  # some of one's own, and some twice
    column[1::9] = column[2::9]
    found = counts(hidden, matrix, own, Pairs(row, column), value, Scratch())
    scores = hidden @ matrix.T
    scores[row, column] = value
    mine = scores.gather(1, own[:, None])
    assert torch.equal(found[0], (scores > mine).sum(1))
    assert torch.equal(found[1], (scores == mine).sum(1) - 1)


@pytest.mark.usefixtures("compiler")
def test_equal_vectors_tie_exactly():
    # Wherever they stand, and whatever is computed beside them.
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(203, 67, generator=generator)
    matrix[[0, 63, 64, 128, 202]] = torch.randn(67, generator=generator)
    hidden = torch.randn(1100, 67, generator=generator)
    own = torch.tensor([0, 63, 64, 128, 202]).repeat(220)
    none = own[:0]
    _, equal = counts(hidden, matrix, own, Pairs(none, none), 0.0, Scratch())
    assert equal.eq(4).all()


@pytest.mark.usefixtures("compiler")
def test_compiled_code_counts_what_pytorch_counts():
    generator = torch.Generator().manual_seed(2)
    hidden = torch.randn(2000, 64, generator=generator)
    matrix = torch.randn(3000, 64, generator=generator)
    own = torch.randint(0, 3000, (2000,), generator=generator)
    none = own[:0]
    fast = counts(hidden, matrix, own, Pairs(none, none), 0.0, Scratch())
    with native.plain():
        slow = counts(hidden, matrix, own, Pairs(none, none), 0.0, Scratch())
    # Two scores that differ by rounding alone may change places.
    assert (fast[0] - slow[0]).abs().max() <= 1
    assert (fast[0] == slow[0]).double().mean() > 0.99
