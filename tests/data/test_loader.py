import torch

from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.targets import NextItem
from tests import toy

HISTORIES = toy.random_histories(23, 40, 12)


def loader(seed=0):
    return Loader(Sequences(toy.jagged(HISTORIES), 6, NextItem()), batch_size=5, seed=seed)


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
