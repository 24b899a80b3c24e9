import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from negrec.embedding import Table, late_rows, look_up, whole
from negrec.errors import InputError
from negrec.kernels import native
from negrec.training.lazy_adam import LazyAdam

V, D = 55, 8
RARE = 50  # rows from here on are read in one step of 40


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def kernels(request):
    if request.param == "compiled":
        if not native.available():
            pytest.skip("no C++ compiler here")
        yield
    else:
        with native.plain():
            yield


class Net(nn.Module):
    """A table that is read by rows, and a matrix beside it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.table = Table(torch.randn(V, D))
        self.matrix = nn.Parameter(torch.randn(D, D) / 3)

    def loss(self, row, other):
        x, y = look_up(self.table, row) @ self.matrix, look_up(self.table, other)
        return F.softplus(-(x * y).sum(1)).mean()


def drawn(step):
    """Rows of a step, some of them twice; the rare ones seldom."""
    generator = torch.Generator().manual_seed(step)
    rows = torch.randint(RARE, (2, 12), generator=generator)
    if step % 40 == 0:
        rows[1, :5] = torch.arange(RARE, V)
    return rows


def train(make, steps=250, schedule=lambda step: 1e-2, net=None, start=0):
    """Trains, and returns the table as a reader sees it after each step."""
    net = net or Net()
    optimizer = make([net.table, net.matrix])
    seen = []
    for step in range(start, start + steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        optimizer.zero_grad(set_to_none=late_rows(net.table) is not None)
        if late_rows(net.table) is None and net.table.grad is None:
            net.table.grad = torch.zeros_like(net.table)
        net.loss(*drawn(step)).backward()
        optimizer.step()
        seen.append(whole(net.table).detach().clone())
    return net, optimizer, torch.stack(seen)


@pytest.mark.parametrize(
    ("betas", "apart"),
    [
        ((0.9, 0.999), 5e-6),
        ((0.9, 0.98), 5e-6),
        ((0.0, 0.999), 5e-6),
        ((0.98, 0.999), 5e-6),
        # Some rare rows have gradients of 1e-8, the size of epsilon: where v halves at every step,
        # what is not exact of it shows.
        ((0.5, 0.5), 1e-3),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "schedule",
    [lambda step: 1e-2, lambda step: 1e-2 * (1 + math.cos(step / 80)) / 2],
    ids=["constant", "cosine"],
)
def test_it_is_dense_adam(betas, apart, schedule):
    # Every row after every step, also of those that had no gradient for 39 steps.
    _, _, late = train(partial(LazyAdam, rows="lazy", betas=betas), schedule=schedule)
    _, _, dense = train(partial(torch.optim.Adam, betas=betas), schedule=schedule)
    assert (dense[-1] - dense[0]).abs().amax(1).min() > 0.04  # all of the rows have moved
    torch.testing.assert_close(late, dense, rtol=0, atol=apart)


def test_rows_without_a_gradient_go_on_moving():
    # What an optimiser that skips them would lose: most of the way of a single gradient.
    net, optimizer, seen = train(partial(LazyAdam, rows="lazy"), steps=39)
    first, after = seen[0, RARE], seen[38, RARE]
    started = Net().table[RARE]
    assert ((after - started).abs() > 4 * (first - started).abs()).all()
    stored = net.table.detach()[RARE].clone()
    torch.testing.assert_close(stored, first, rtol=0, atol=0)  # nothing of it is stored
    optimizer.settle()
    torch.testing.assert_close(net.table.detach()[RARE], after, rtol=0, atol=1e-6)


def test_by_hand():
    # One gradient g = 2 at step 1 of lr 0.1: m = 0.2, v = 0.004, w = 1 - 0.1 * 0.2 / 0.1 / 2 = 0.9.
    # Step 2, no gradient: m = .18, v = .003996; m / (1 - .9^2) = .947368,
    # v / (1 - .999^2) = 1.998999, w = .9 - 0.1 * .947368 / 1.413859 = .832994.
    table = Table(torch.ones(3, 1))
    optimizer = LazyAdam([table], lr=0.1, rows="lazy")
    (2 * look_up(table, torch.tensor([1]))).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert look_up(table, torch.tensor([1])).item() == pytest.approx(0.9)
    optimizer.step()
    read = look_up(table, torch.tensor([1, 0]))
    assert read[0].item() == pytest.approx(0.832994, abs=1e-6)
    assert read[1].item() == 1
    assert whole(table).squeeze(1).tolist() == pytest.approx([1, 0.832994, 1], abs=1e-6)


def test_repeated_rows_add_up():
    def moved(row):
        table = Table(torch.ones(2, 1))
        optimizer = LazyAdam([table], lr=0.1, rows="lazy", eps=1.0)  # the size of g shows
        look_up(table, torch.tensor(row)).sum().backward()
        optimizer.step()
        return whole(table)[0].item()

    # g = 1 and 3: w = 1 - 0.1 * g / (g + 1).
    assert moved([0]) == pytest.approx(1 - 0.1 / 2)
    assert moved([0, 0, 0]) == pytest.approx(1 - 0.1 * 3 / 4)


def test_reading_changes_nothing():
    _, _, once = train(partial(LazyAdam, rows="lazy"), steps=60)
    net = Net()
    optimizer = LazyAdam([net.table, net.matrix], rows="lazy")
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 1e-2
        optimizer.zero_grad()
        for _ in range(step % 3):
            whole(net.table), look_up(net.table, torch.arange(V))
        net.loss(*drawn(step)).backward()
        optimizer.step()
    assert torch.equal(whole(net.table), once[-1])


def test_settled_and_not_are_the_same_to_rounding():
    net, optimizer, seen = train(partial(LazyAdam, rows="lazy"), steps=70)
    optimizer.settle()
    torch.testing.assert_close(net.table.detach(), seen[-1], rtol=0, atol=1e-6)
    assert whole(net.table).data_ptr() == net.table.data_ptr()
    optimizer.settle()  # once more: nothing is left to do
    torch.testing.assert_close(net.table.detach(), seen[-1], rtol=0, atol=1e-6)


def test_epsilon_is_that_of_the_step():
    # Gradients of the size of epsilon: the root of 1 - beta2^t beside it counts, and is taken at
    # the right step, also after all rows have been settled in between.
    def run(make):
        net = Net()
        optimizer = make([net.table, net.matrix], lr=1e-2, eps=1e-2)
        started = net.table.detach().clone()
        for step in range(240):
            optimizer.zero_grad(set_to_none=late_rows(net.table) is not None)
            if late_rows(net.table) is None and net.table.grad is None:
                net.table.grad = torch.zeros_like(net.table)
            net.loss(*drawn(step)).backward()
            optimizer.step()
            if step % 60 == 59 and isinstance(optimizer, LazyAdam):
                optimizer.settle()
        return (whole(net.table).detach() - started)[RARE:]

    late, dense = run(partial(LazyAdam, rows="lazy")), run(torch.optim.Adam)
    assert (late - dense).norm() < 0.03 * dense.norm()


def test_dense_gradients_between_sparse_ones():
    # A step may read all rows with a gradient, as a full softmax does.
    def run(make):
        net = Net()
        optimizer = make([net.table, net.matrix], lr=1e-2)
        for step in range(60):
            optimizer.zero_grad(set_to_none=late_rows(net.table) is not None)
            if late_rows(net.table) is None and net.table.grad is None:
                net.table.grad = torch.zeros_like(net.table)
            loss = net.loss(*drawn(step))
            if step % 7 == 3:
                loss = loss + whole(net.table).square().mean()
            loss.backward()
            optimizer.step()
        return whole(net.table).detach()

    late, dense = run(partial(LazyAdam, rows="lazy")), run(torch.optim.Adam)
    torch.testing.assert_close(late, dense, rtol=0, atol=5e-6)


def test_a_state_goes_on_to_the_bit():
    whole_run = train(partial(LazyAdam, rows="lazy"), steps=90)[2]
    net, optimizer, seen = train(partial(LazyAdam, rows="lazy"), steps=50)
    state = {
        "state": {
            index: {name: value.clone() for name, value in of.items()}
            for index, of in optimizer.state_dict()["state"].items()
        },
        "param_groups": optimizer.state_dict()["param_groups"],
    }
    other = Net()
    with torch.no_grad():
        other.table.copy_(net.table)
        other.matrix.copy_(net.matrix)
    again = None

    def resumed(parameters):
        nonlocal again
        again = LazyAdam(parameters, rows="lazy")
        again.load_state_dict(state)
        return again

    _, _, rest = train(resumed, steps=40, net=other, start=50)
    assert torch.equal(seen, whole_run[:50])
    assert torch.equal(rest, whole_run[50:])


@pytest.mark.parametrize(("before", "after"), [("dense", "lazy"), ("lazy", "dense")])
def test_a_state_goes_on_the_other_way(before, after):
    _, _, expected = train(partial(LazyAdam, rows="dense"), steps=80)
    net, optimizer, _ = train(partial(LazyAdam, rows=before), steps=50)
    settle(optimizer)

    def resumed(parameters):
        again = LazyAdam(parameters, rows=after)
        again.load_state_dict(optimizer.state_dict())
        return again

    _, _, rest = train(resumed, steps=30, net=copy.deepcopy(net), start=50)
    torch.testing.assert_close(rest, expected[50:], rtol=0, atol=5e-6)


def settle(optimizer):
    optimizer.settle()
    optimizer.zero_grad(set_to_none=True)


def test_rows_that_have_missed_steps_are_not_taken_for_settled_ones():
    net, optimizer, _ = train(partial(LazyAdam, rows="lazy"), steps=5)
    dense = LazyAdam(copy.deepcopy(net).parameters(), rows="dense")
    with pytest.raises(InputError, match=r"moved by rows, and here they would not be: go on with"):
        dense.load_state_dict(optimizer.state_dict())


def test_weight_decay_acts_on_rows_with_a_gradient():
    table = Table(torch.full((2, 1), 4.0))
    optimizer = LazyAdam([table], lr=0.1, rows="lazy", weight_decay=0.5, eps=1.0)
    look_up(table, torch.tensor([0])).sum().backward()
    optimizer.step()
    # g = 1 + 0.5 * 4 = 3 for the first row: 4 - 0.1 * 3 / (3 + 1).
    assert whole(table).squeeze(1).tolist() == pytest.approx([4 - 0.075, 4])


def test_which_tables_are_moved_by_rows():
    large, small = Table(torch.zeros(1 << 17, 8)), Table(torch.zeros(8, 8))
    matrix = nn.Parameter(torch.zeros(1 << 17, 8))  # large, and not read by rows

    def late(**settings):
        for table in (large, small):
            table.late = None
        LazyAdam([large, small, matrix], **settings)
        return large.late is not None, small.late is not None

    assert late() == (True, False)
    assert late(rows="dense") == (False, False)
    assert late(rows="lazy") == (True, True)
    assert late(weight_decay=0.1) == (False, False)
    assert late(betas=(0.9, 0.5)) == (False, False)  # its momentum would outlive its square


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rows": "some"}, "rows must be auto, lazy or dense, got 'some'"),
        ({"rows": "lazy", "betas": (0.9, 0.5)}, r"beta1 < sqrt\(beta2\), got betas=\[0.9, 0.5\]"),
        ({"eps": 0.0}, "eps must be positive, got 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        LazyAdam([Table(torch.zeros(2, 2))], **settings)


def test_released_tables_are_read_as_they_are():
    net, optimizer, seen = train(partial(LazyAdam, rows="lazy"), steps=30)
    optimizer.release()
    assert late_rows(net.table) is None
    torch.testing.assert_close(net.table.detach(), seen[-1], rtol=0, atol=1e-6)


def test_settings_may_be_whole_numbers():
    native._library.cache_clear()  # the first call tells ctypes of the kinds of arguments
    settings = [{"eps": 1, "weight_decay": 2}, {"eps": 1.0, "weight_decay": 2.0}]
    one, other = (train(partial(LazyAdam, rows="lazy", **s), 10)[2] for s in settings)
    assert torch.equal(one, other)
