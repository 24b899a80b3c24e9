import pytest
import torch

from negrec.serving.dense import from_padded
from tests.serving.models import ENCODERS, HISTORIES, USERS, L, batch, build, info, padded


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("width", [L, 4])
def test_a_model_says_the_same_of_a_table_as_of_packed_histories(name: str, width: int):
    model = build(name, info())
    histories = [history for history in HISTORIES if len(history) <= width]
    users = USERS[: len(histories)]
    with torch.no_grad():
        packed = model.represent(batch(histories, users))
        dense = model.represent(from_padded(padded(histories, width), torch.tensor(users)))
    assert packed.abs().amax() > 0.1
    torch.testing.assert_close(dense, packed, atol=1e-5, rtol=1e-5)


def test_places_in_a_table():
    # Two histories, 5 6 and 7, in a table three wide: tokens 0 1 . | 3 . .
    table = from_padded(torch.tensor([[5, 6, 0], [7, 0, 0]]))
    assert table.user.tolist() == [-1, -1]
    assert table.last.tolist() == [1, 3]
    assert table.sequence.tolist() == [0, 0, 0, 1, 1, 1]
    assert table.before.tolist() == [0, 1, 2, 0, 1, 2]
    told = [0, 1, 3]
    assert table.items[told].tolist() == [5, 6, 7]
    assert table.from_end[told].tolist() == [1, 0, 0]
    assert table.from_end.min() == 0
    # Column after column, and back.
    assert table.times.token.tolist() == [0, 3, 1, 4, 2, 5]
    assert table.times.token[table.times.slot].tolist() == [0, 1, 2, 3, 4, 5]


def test_who_sees_whom():
    # The newest of 5 6 sees both, 5 sees itself, and nobody sees the padding.
    table = from_padded(torch.tensor([[5, 6, 0], [7, 0, 0]]))
    (causal,), (whole,) = table.rows.blocks, table.whole_rows.blocks
    assert causal.shape == whole.shape == (2, 3)
    assert causal.mask[0, 0, :2].tolist() == [[True, False, False], [True, True, False]]
    assert causal.mask[1, 0, 0].tolist() == [True, False, False]
    assert whole.mask[0, 0, :2].tolist() == [[True, True, False], [True, True, False]]


def test_a_hidden_item_stands_right_behind_each_history():
    asking = from_padded(torch.tensor([[5, 6, 0], [7, 0, 0], [1, 2, 3]])).with_hidden_end()
    assert asking.last.tolist() == [2, 5, 11]
    assert asking.items[asking.last].tolist() == [0, 0, 0]
    assert asking.items[asking.last - 1].tolist() == [6, 7, 3]
    assert asking.items.view(3, 4).eq(0).sum(1).tolist() == [1, 1, 1]
