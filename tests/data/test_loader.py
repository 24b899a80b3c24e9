import pytest
import torch

from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from tests import toy

HISTORIES = toy.random_histories(23, 40, 12)


def loader(seed=0, osf=None):
    return Loader(Sequences(toy.jagged(HISTORIES), 6, NextItem()), 5, seed, osf)


def same(one, other):
    return all(
        torch.equal(getattr(one, name), getattr(other, name))
        for name in ("user", "items", "position", "offsets", "query", "target")
    )


def test_an_epoch_serves_every_window_once():
    batches = list(loader().epoch(0))
    assert [batch.n_sequences for batch in batches] == [5, 5, 5, 5, 3]
    assert sorted(torch.cat([batch.user for batch in batches]).tolist()) == list(range(23))
    for batch in batches:
        for b, user in enumerate(batch.user.tolist()):
            part = slice(batch.offsets[b], batch.offsets[b + 1])
            assert batch.items[part].tolist() == HISTORIES[user][-7:-1]
            assert batch.target[part].tolist() == HISTORIES[user][1:][-6:]
            assert batch.seen.values[
                batch.seen.offsets[b] : batch.seen.offsets[b + 1]
            ].tolist() == (sorted(HISTORIES[user]))


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(batches):
        return torch.cat([batch.user for batch in batches]).tolist()

    assert order(loader().epoch(3)) == order(loader().epoch(3))
    assert order(loader().epoch(3)) != order(loader().epoch(4))
    assert order(loader().epoch(3)) != order(loader(seed=1).epoch(3))


def test_an_epoch_can_be_entered_at_any_step():
    whole = list(loader().epoch(2))
    rest = list(loader().epoch(2, start=3))
    assert [batch.key for batch in rest] == [(2, 3), (2, 4)]
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_kept_batches_are_replayed_from_epoch_osf_on():
    # 5 batches an epoch and osf = 2: the first two epochs are those of a loader without osf, then
    # each step replays one of their 10 batches.
    plain, replaying = loader(), loader(osf=2)
    kept = {batch.key: batch for epoch in (0, 1) for batch in plain.epoch(epoch)}
    first = [batch for epoch in (0, 1) for batch in replaying.epoch(epoch)]
    assert [batch.key for batch in first] == [*kept]
    replayed = [batch for epoch in range(2, 102) for batch in replaying.epoch(epoch)]
    assert len(replayed) == 500
    assert all(same(batch, kept[batch.key]) for batch in [*first, *replayed])
    # Each of the 10 is drawn about 50 times of 500: uniformly, and with replacement.
    number = torch.tensor([5 * epoch + index for epoch, index in (b.key for b in replayed)])
    assert toy.chi_square_p(number, torch.full((10,), 0.1)) > 1e-4
    assert any(len({batch.key for batch in replaying.epoch(epoch)}) < 5 for epoch in range(2, 10))


def test_what_is_replayed_depends_on_seed_and_epoch_alone():
    def keys(made, epoch):
        return [batch.key for batch in made.epoch(epoch)]

    one = loader(osf=3)
    assert keys(one, 7) == keys(one, 7) == keys(loader(osf=3), 7)
    assert keys(one, 7) != keys(one, 8)
    assert keys(one, 7) != keys(loader(seed=1, osf=3), 7)


def test_a_replayed_epoch_can_be_entered_at_any_step():
    whole = list(loader(osf=2).epoch(4))
    rest = list(loader(osf=2).epoch(4, start=3))
    assert [batch.key for batch in rest] == [batch.key for batch in whole[3:]]
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))


def test_only_the_orders_of_epochs_that_are_replayed_are_kept():
    made = loader(osf=3)
    for epoch in range(3):
        list(made.epoch(epoch))
    assert not made._orders  # nothing is held before it is needed
    for epoch in range(3, 30):
        list(made.epoch(epoch))
    assert sorted(made._orders) == [0, 1, 2]
    assert all(order.shape == (23,) for order in made._orders.values())


def test_no_epoch_can_be_replayed_that_was_not_kept():
    with pytest.raises(ValueError, match="osf must be at least 1 or null, got 0"):
        loader(osf=0)
