import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from negrec.packing import next_fit, pack
from tests import toy

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=30)


def test_two_short_sequences_share_a_row():
    rows = pack(torch.tensor([0, 2, 3]))
    (block,) = rows.blocks
    # The longer one first; the row is no wider than the longest sequence, so there are two rows.
    assert block.shape == (2, 2)
    assert rows.slot.tolist() == [0, 1, 2]
    rows = pack(torch.tensor([0, 3, 4, 5]))
    (block,) = rows.blocks
    assert block.shape == (2, 3)  # 3 | 1 1
    expected = [[[1, 0, 0], [1, 1, 0], [1, 1, 1]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]]
    assert block.mask[:, 0].int().tolist() == expected


@given(lengths)
@settings(deadline=None, max_examples=50)
def test_tokens_see_the_past_of_their_own_sequence_alone(sizes):
    offsets = torch.tensor([0, *sizes]).cumsum(0)
    rows = pack(offsets)
    n_tokens = int(offsets[-1])
    assert torch.equal(rows.token[rows.slot], torch.arange(n_tokens))
    assert len(set(rows.slot.tolist())) == n_tokens
    sequence = toy.jagged([[0] * n for n in sizes]).row
    for block in rows.blocks:
        n_rows, width = block.shape
        token = rows.token[block.start : block.stop].view(n_rows, width)
        filled = torch.isin(torch.arange(block.start, block.stop), rows.slot).view(n_rows, width)
        both = filled[:, :, None] & filled[:, None, :]
        of = sequence[token]
        allowed = (of[:, :, None] == of[:, None, :]) & (token[:, :, None] >= token[:, None, :])
        assert torch.equal(block.mask[:, 0] & both, allowed & both)
        assert not (block.mask[:, 0] & filled[:, :, None] & ~filled[:, None, :]).any()
        assert block.mask.any(-1).all()  # a row of attention weights that sums to nothing is NaN


@given(lengths)
@settings(deadline=None, max_examples=50)
def test_next_fit_never_overfills(sizes):
    size = torch.tensor(sizes)
    row, column = next_fit(size, 40)
    loop_row, used, expected = 0, 0, []
    for n in sizes:  # the definition, as a loop
        if used + n > 40:
            loop_row, used = loop_row + 1, 0
        expected.append((loop_row, used))
        used += n
    assert list(zip(row.tolist(), column.tolist(), strict=True)) == expected
