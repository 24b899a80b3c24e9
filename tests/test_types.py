import gc
import weakref
from itertools import pairwise

import pytest
import torch

from negrec.types import Batch, HeldOut, ItemSets, Jagged, Negatives, Queries, slices
from negrec.world import World
from tests import toy


def test_slices_gathers_rows():
    rows = slices(torch.arange(10, 20), torch.tensor([0, 3, 3, 8]), torch.tensor([2, 3, 6, 10]))
    assert rows.offsets.tolist() == [0, 2, 2, 5, 7]
    assert rows.values.tolist() == [10, 11, 13, 14, 15, 18, 19]
    assert rows.row.tolist() == [0, 0, 2, 2, 2, 3, 3]


def test_histories_keep_the_newest():
    held = HeldOut(
        user=torch.tensor([0, 1]),
        target=torch.tensor([9, 8]),
        items=torch.tensor([1, 2, 3, 4, 5]),
        start=torch.tensor([0, 3]),
        end=torch.tensor([3, 5]),
    )
    assert held.histories(newest=2).values.tolist() == [2, 3, 4, 5]
    assert held.select(torch.tensor([1])).histories().values.tolist() == [4, 5]


def test_batch_counts_positions_from_both_ends():
    # The window of a history of 6 with max_length 3 is its last 4 items: 3 inputs.
    batch = toy.batch([[1, 2, 3, 4, 5, 6], [7, 8]], max_length=3)
    assert batch.items.tolist() == [3, 4, 5, 7]
    assert batch.target.tolist() == [4, 5, 6, 8]
    assert batch.position.tolist() == [2, 3, 4, 0]
    assert batch.from_end.tolist() == [2, 1, 0, 0]
    assert batch.last.tolist() == [2, 3]


def test_padded_puts_zeros_behind():
    items, valid = toy.batch([[1, 2, 3], [4, 5]]).padded()
    assert items.tolist() == [[1, 2], [4, 0]]
    assert valid.tolist() == [[True, True], [True, False]]


def test_exclusion_by_policy():
    # Inputs 3, 4 | 7 with targets 4, 5 | 8; the first user's history also holds 1 and 2.
    queries = toy.queries(toy.batch([[1, 2, 3, 4, 5], [7, 8]], max_length=2))
    items = torch.arange(1, 10).repeat(3, 1)
    excluded = {
        policy: [set(row[~valid].tolist()) for row, valid in zip(items, allowed, strict=True)]
        for policy in ("none", "target", "window", "history")
        for allowed in [Negatives(items, exclude=policy).valid(queries)]
    }
    assert excluded["none"] == [set(), set(), set()]
    assert excluded["target"] == [{4}, {5}, {8}]
    assert excluded["window"] == [{3, 4, 5}, {3, 4, 5}, {7, 8}]
    assert excluded["history"] == [{1, 2, 3, 4, 5}, {1, 2, 3, 4, 5}, {7, 8}]


def test_a_window_holds_what_is_hidden_in_it():
    # Of [1, 2, 3] the 2 is hidden, of [4, 5] the 4: 0 is no item, and rules none out.
    batch = Batch(
        user=torch.arange(2),
        items=torch.tensor([1, 0, 3, 0, 5]),
        position=torch.tensor([0, 1, 2, 0, 1]),
        offsets=torch.tensor([0, 3, 5]),
        query=torch.tensor([1, 3]),
        target=torch.tensor([2, 4]),
    )
    queries = toy.queries(batch)
    query, item = queries.excluded.pairs("window")
    assert sorted(zip(query.tolist(), item.tolist(), strict=True)) == [
        *((0, 1), (0, 2), (0, 3)),
        *((1, 4), (1, 5)),
    ]
    every = torch.arange(1, 7)[None]
    expected = [[False, False, False, True, True, True], [True, True, True, False, False, True]]
    for exhaustive in (False, True):
        negatives = Negatives(every, exclude="window", exhaustive=exhaustive)
        assert negatives.valid(queries).tolist() == expected


def test_excluded_pairs_say_the_same_as_the_look_up():
    queries = toy.queries(toy.batch(toy.random_histories(30, 40, 12), max_length=5))
    items = torch.arange(1, 41).expand(len(queries.target), -1)
    for policy in ("none", "target", "window", "history"):
        by_look_up = ~Negatives(items, exclude=policy).valid(queries)
        by_pairs = torch.zeros_like(by_look_up)
        query, item = queries.excluded.pairs(policy)
        by_pairs[query, item - 1] = True
        assert torch.equal(by_look_up, by_pairs)
        assert len(query) == by_pairs.sum()  # each pair once


def test_candidates_of_a_row_or_of_all():
    items = torch.tensor([[1, 2], [3, 4]])
    per_sequence = Negatives(items, row=torch.tensor([0, 1, 1]))
    assert per_sequence.of().tolist() == [[1, 2], [3, 4], [3, 4]]
    assert per_sequence.select(torch.tensor([2])).of().tolist() == [[3, 4]]
    assert Negatives(items[:1]).select(torch.tensor([0, 1])).of().tolist() == [[1, 2]]


@pytest.mark.parametrize("exclude", ["none", "target", "window", "history"])
def test_selected_queries_are_judged_like_all(exclude):
    queries = toy.queries(toy.batch(toy.random_histories(12, 20, 8), max_length=5))
    n = len(queries.target)
    generator = torch.Generator().manual_seed(0)
    index = torch.arange(1, n, 3)
    for rows, row in ((1, None), (12, queries.sequence), (n, None)):
        items = torch.randint(1, 21, (rows, 6), generator=generator)
        present = torch.rand(rows, 6, generator=generator) < 0.8
        negatives = Negatives(items, row, exclude=exclude, present=present)
        part = negatives.select(index).valid(queries.select(index))
        assert torch.equal(part, negatives.valid(queries)[index])
        assert not part.all()


def test_an_item_above_all_others_is_in_no_set():
    # Keys are sequence * stride + item with a stride of 5: 8 would be the 3 of sequence 1.
    queries = toy.queries(Batch.of([[1, 2], [3, 4]]))
    negatives = Negatives(torch.tensor([[8, 1], [8, 3]]), exclude="window")
    assert negatives.valid(queries).tolist() == [[True, False], [True, False]]


def test_sets_are_built_once(monkeypatch):
    built = []
    build = ItemSets.of
    monkeypatch.setattr(ItemSets, "of", lambda *pairs: built.append(1) or build(*pairs))
    queries = toy.queries(toy.batch(toy.random_histories(12, 20, 8)))
    negatives = Negatives(torch.ones(1, 3, dtype=torch.int64), exclude="history")
    for some in (queries, queries.detach(), queries.select(slice(0, 5))):
        negatives.valid(some)
    assert built == [1]


def test_what_is_built_of_a_batch_moves_with_it():
    batch = toy.batch([[1, 2, 3], [4, 5]])
    assert batch.built == frozenset()
    rows, sets, times = batch.rows, batch.history, batch.times
    assert batch.built == {"rows", "history", "times"}
    there = batch.to("cpu")
    assert there.built == batch.built
    assert torch.equal(there.rows.token, rows.token)
    assert torch.equal(there.history.keys, sets.keys)
    elsewhere = batch.to("meta")  # nothing can be built there: its numbers are not to be had
    assert elsewhere.rows.token.is_meta
    assert elsewhere.history.keys.is_meta
    assert elsewhere.times.slot.is_meta
    assert not elsewhere.times.sizes.is_meta  # PyTorch wants them on the CPU
    assert torch.equal(elsewhere.times.sizes, times.sizes)


def test_mined_candidates_are_selected_with_their_queries():
    mined = torch.eye(3, dtype=torch.bool)
    negatives = Negatives(torch.ones(3, 3, dtype=torch.int64), label=mined.float(), mined=mined)
    part = negatives.select(torch.tensor([2]))
    assert part.mined.tolist() == [[False, False, True]]
    assert part.label.tolist() == [[0, 0, 1]]


def test_columns_may_have_policies_of_their_own():
    queries = toy.queries(toy.batch([[1, 2, 3]]))  # targets 2 and 3, window 1, 2, 3
    items = torch.tensor([[1, 2, 1, 2]])
    negatives = Negatives(items, exclude=(("target", 2), ("window", 1), ("none", 1)))
    assert negatives.valid(queries).tolist() == [
        [True, False, False, True],
        [True, True, False, True],
    ]


def test_empty_slots_are_never_valid():
    queries = toy.queries(toy.batch([[1, 2, 3]]))
    present = torch.tensor([[True, False]])
    negatives = Negatives(torch.tensor([[7, 8]]), present=present)
    assert negatives.valid(queries).tolist() == [[True, False], [True, False]]


def test_jagged_rows_of_every_length():
    rows = Jagged(torch.tensor([5, 6]), torch.tensor([0, 0, 2, 2]))
    assert rows.lengths.tolist() == [0, 2, 0]
    assert len(rows) == 3


def test_a_batch_of_plain_lists_is_the_loader_s():
    histories = [[1, 2, 3], [4, 5]]
    plain, loaded = Batch.of(histories), toy.batch(histories)
    for name in ("user", "items", "position", "offsets", "query", "target"):
        assert torch.equal(getattr(plain, name), getattr(loaded, name))
    with pytest.raises(ValueError, match="at least two items"):
        Batch.of([[1]])


def test_a_step_s_tensors_go_when_nobody_holds_them():
    gc.collect()
    gc.disable()
    try:
        queries = toy.queries(toy.batch(toy.random_histories(5, 40, 12)))
        for policy in ("target", "window", "history"):
            Negatives(torch.ones(1, 3, dtype=torch.int64), exclude=policy).valid(queries)
        gone = weakref.ref(queries)
        del queries
        assert gone() is None  # without the garbage collector: there is no circle of references
    finally:
        gc.enable()


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_parts_of_a_batch_make_it_up(ranks):
    whole = toy.batch(toy.random_histories(23, 20, 9))
    parts = [whole.part(World(rank, ranks)) for rank in range(ranks)]
    for name in ("user", "items", "position", "target"):
        assert torch.equal(torch.cat([getattr(p, name) for p in parts]), getattr(whole, name))
    assert torch.equal(torch.cat([p.seen.values for p in parts]), whole.seen.values)
    for part in parts:
        assert part.whole is whole
        assert part.seen.lengths.tolist() == [
            len(set(row)) for row in _rows(Jagged(part.seen.values, part.seen.offsets))
        ]
        states = torch.arange(len(whole.items))[:, None].double()
        own = Queries.of(part, part.own(states, "token"))
        # Whatever a row is of, the part's own are those that its own tensors speak of.
        assert torch.equal(own.target, part.own(whole.target, "query"))
        assert torch.equal(own.hidden, part.own(Queries.of(whole, states).hidden, "query"))
        assert torch.equal(own.user, part.own(own.whole.user, "query"))
        assert torch.equal(own.position, part.own(own.whole.position, "query"))
        assert torch.equal(part.user, part.own(whole.user, "sequence"))
        assert part.own(whole.user, "batch") is whole.user
        assert part.to("cpu").shard.bounds == part.shard.bounds


def _rows(jagged):
    return [jagged.values[a:b].tolist() for a, b in pairwise(jagged.offsets.tolist())]


def test_parts_have_about_as_many_tokens():
    # Inputs of 1, 1, 1, 1, 8 and 8 items, 20 in all: of two parts one has 12 and one 8.
    histories = [[1, 2]] * 4 + [list(range(1, 10))] * 2
    whole = toy.batch(histories, max_length=9)
    assert [len(whole.part(World(rank, 2)).items) for rank in range(2)] == [12, 8]
    # Of six each has a sequence; of seven all have all.
    assert [whole.part(World(rank, 6)).n_sequences for rank in range(6)] == [1] * 6
    assert whole.part(World(3, 7)) is whole
    # However the tokens lie, nobody is left without a sequence.
    for lengths in ([9, 2, 2], [2, 2, 9]):
        batch = toy.batch([list(range(1, n + 1)) for n in lengths], max_length=9)
        assert [batch.part(World(rank, 3)).n_sequences for rank in range(3)] == [1] * 3
