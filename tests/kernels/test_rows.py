from dataclasses import fields

import pytest
import torch

from negrec.kernels import native, rows

V, D, STEPS = 40, 7, 12
CONSTANTS = rows.Constants(
    number=STEPS, rate=0.05, root=0.3, beta1=0.9, beta2=0.99, epsilon=1e-3, weight_decay=0.1
)


@pytest.fixture(autouse=True)
def compiler():
    if not native.available():
        pytest.skip("no C++ compiler here")


def made():
    draw = torch.Generator().manual_seed(0)
    return rows.Rows(
        torch.randn(V, D, generator=draw),
        torch.randn(V, D, generator=draw),
        torch.rand(V, D, generator=draw),
        torch.randint(STEPS, (V,), generator=draw, dtype=torch.int32),
        torch.rand(STEPS + 1, generator=draw, dtype=torch.double),
        1e-2 * torch.rand(STEPS + 1, generator=draw, dtype=torch.double),
    )


def both(act):
    """The tables that compiled code and PyTorch leave behind, and what they return."""
    compiled, plain = made(), made()
    first = act(compiled)
    with native.plain():
        second = act(plain)
    for field in fields(rows.Rows):
        torch.testing.assert_close(getattr(compiled, field.name), getattr(plain, field.name))
    return compiled, first, second


@pytest.mark.parametrize("row", [torch.tensor([5, 0, 5, V - 1]), torch.empty(0).long(), None])
def test_read(row):
    _, compiled, plain = both(lambda table: rows.read(table, row))
    torch.testing.assert_close(compiled, plain)
    assert len(compiled) == (V if row is None else len(row))


def test_read_by_hand():
    table = rows.Rows(
        torch.tensor([[2.0]]),
        torch.tensor([[0.6]]),
        torch.tensor([[0.04]]),
        torch.tensor([1], dtype=torch.int32),
        torch.tensor([9.0, 0.5]).double(),
        torch.tensor([9.0, 0.1]).double(),
    )
    # 2 - 0.5 * 0.6 / (0.2 + 0.1)
    assert rows.read(table).item() == pytest.approx(1.0)


@pytest.mark.parametrize("row", [V, -1])
def test_a_row_outside_is_refused(row):
    with pytest.raises(IndexError, match="outside of 0"):
        rows.read(made(), torch.tensor([1, row]))


def test_settle():
    decays = [beta ** torch.arange(STEPS, -1, -1).double() for beta in (0.9, 0.99)]
    table, _, _ = both(lambda table: rows.settle(table, *decays))
    assert not table.last.any()
    torch.testing.assert_close(table.value, rows.read(made()))


def test_update():
    draw = torch.Generator().manual_seed(1)
    row = torch.randint(V // 2, (60,), generator=draw)  # most of them several times
    gradient = torch.randn(60, D, generator=draw)
    table, _, _ = both(lambda table: rows.update(table, row, gradient, CONSTANTS))
    before = made()
    untouched = torch.ones(V, dtype=torch.bool).index_fill(0, row, False)
    assert torch.equal(table.value[untouched], before.value[untouched])
    assert (table.value[row] != before.value[row]).all()
    assert (table.last[row] == STEPS).all()


def test_the_number_of_threads_changes_nothing():
    draw = torch.Generator().manual_seed(1)
    row = torch.randint(V, (20_000,), generator=draw)
    gradient = torch.randn(20_000, D, generator=draw)

    def run(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        table = made()
        rows.update(table, row, gradient, CONSTANTS)
        read = rows.read(table, row)
        torch.set_num_threads(before)
        return table.value, read

    for one, other in zip(run(1), run(3), strict=True):
        assert torch.equal(one, other)
