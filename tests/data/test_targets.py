from dataclasses import replace

import pytest
import torch

from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.targets import EveryItem, MaskedItem, NextItem
from negrec.types import HIDDEN, Jagged, Queries
from tests import toy


def test_each_item_asks_for_the_one_after_it():
    inputs, query, target = NextItem()(toy.jagged([[1, 2, 3], [4, 5]]), torch.Generator())
    assert inputs.values.tolist() == [1, 2, 4]
    assert inputs.offsets.tolist() == [0, 2, 3]
    assert query.tolist() == [0, 1, 2]
    assert target.tolist() == [2, 3, 5]


def test_masked_items_are_hidden_and_asked_for():
    window = toy.jagged([[1, 2, 3, 4, 5, 6, 7], [8, 9], [3, 3, 3]])
    inputs, query, target = MaskedItem(0.4)(window, torch.Generator().manual_seed(0))
    assert inputs.offsets.tolist() == window.offsets.tolist()
    assert query.tolist() == sorted(set(query.tolist()))
    assert (inputs.values[query] == HIDDEN).all()
    assert (inputs.values == HIDDEN).sum() == len(query)
    restored = inputs.values.clone()
    restored[query] = target
    assert restored.tolist() == window.values.tolist()


@pytest.mark.parametrize(
    ("probability", "n", "hidden"),
    [(0.2, 2, 1), (0.2, 7, 1), (0.2, 8, 2), (0.6, 2, 1), (0.6, 51, 31), (1.0, 5, 5), (0.01, 51, 1)],
)
def test_how_many_items_are_hidden(probability, n, hidden):
    # round(0.2 * 7 = 1.4) = 1, round(1.6) = 2, round(1.2) = 1, round(30.6) = 31; never none.
    window = toy.jagged([[*range(1, n + 1)]] * 3)
    draw = MaskedItem(probability, last=0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        _, query, _ = draw(window, generator)
        assert torch.bincount(window.row[query]).tolist() == [hidden] * 3


def test_each_choice_of_hidden_items_is_as_likely():
    # 2 of 5: ten pairs of places.
    n, window = 20_000, toy.jagged([[1, 2, 3, 4, 5]])
    window = Jagged(window.values.repeat(n), torch.arange(n + 1) * 5)
    _, query, target = MaskedItem(0.4, last=0)(window, torch.Generator().manual_seed(1))
    pair = (target - 1).view(n, 2) @ torch.tensor([5, 1])
    expected = torch.tensor([0.1 if i < j else 0.0 for i in range(5) for j in range(5)])
    assert toy.chi_square_p(pair, expected) > 1e-3
    # What one window hides says nothing of the next one's.
    first = query.view(n, 2)[:, 0] % 5
    joint = first[:-1] * 5 + first[1:]
    chance = torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0])  # the smaller place of a pair
    assert toy.chi_square_p(joint[::2], torch.outer(chance, chance).flatten()) > 1e-3


def test_a_share_of_the_windows_hides_its_last_item_alone():
    n = 20_000
    window = Jagged(torch.arange(1, 9).repeat(n), torch.arange(n + 1) * 8)
    inputs, query, _ = MaskedItem(0.5, last=0.3)(window, torch.Generator().manual_seed(2))
    sizes = torch.bincount(window.row[query], minlength=n)
    assert sizes.unique().tolist() == [1, 4]
    alone = sizes == 1
    # A margin of four standard errors: sqrt(0.3 * 0.7 / 20000) = 0.0032.
    assert alone.float().mean().item() == pytest.approx(0.3, abs=0.013)
    assert (inputs.values.view(n, 8)[alone, 7] == HIDDEN).all()
    _, query, _ = MaskedItem(0.5, last=1.0)(window, torch.Generator())
    assert query.tolist() == (window.offsets[1:] - 1).tolist()


@pytest.mark.parametrize("targets", [NextItem(), MaskedItem(0.3, last=0.25), MaskedItem(1.0, 0.0)])
def test_the_chance_of_an_item_is_how_often_it_is_a_target(targets):
    window = toy.jagged([[1, 2], [3, 4, 5, 6, 7], [*range(8, 20)]])
    generator = torch.Generator().manual_seed(3)
    draws = 4000
    counts = torch.zeros(20)
    for _ in range(draws):
        counts += torch.bincount(targets(window, generator)[2], minlength=20)
    expected = torch.zeros(20, dtype=torch.double)
    expected[window.values] = targets.chance(window)
    # Four and a half standard errors of a share: 4.5 * sqrt(0.25 / 4000) = 0.036.
    torch.testing.assert_close(counts / draws, expected.float(), atol=0.036, rtol=0)


def test_the_chance_of_a_masked_item_by_hand():
    # Of 5 items 0.4 * 5 = 2 are hidden, in 9 of 10 windows: 0.9 * 2 / 5 = 0.36, the last 0.46;
    # of 2 items max(1, round(0.8)) = 1: 0.45 and 0.55.
    chance = MaskedItem(0.4, 0.1).chance(toy.jagged([[5, 4, 3, 2, 1], [1, 2]]))
    assert chance.tolist() == pytest.approx([0.36] * 4 + [0.46] + [0.45, 0.55])
    # All but the first item of a window are asked for.
    assert NextItem().chance(toy.jagged([[5, 4, 3], [1, 2]])).tolist() == [0, 1, 1, 0, 1]


def test_masks_are_those_of_the_batch_key():
    source = Sequences(toy.jagged([[*range(1, 13)]] * 4), 12, MaskedItem())
    batches = [Loader(source, 4, seed=0).batch(torch.arange(4), key) for key in [(0, 0), (1, 0)]]
    again = Loader(source, 4, seed=0).batch(torch.arange(4), (0, 0))
    assert torch.equal(batches[0].items, again.items)
    assert not torch.equal(batches[0].items, batches[1].items)
    # Position 0 is the oldest item, hidden or not.
    assert batches[0].position.tolist() == [*range(12)] * 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probability": 0.0}, r"probability must be in \(0, 1\], got 0.0"),
        ({"probability": 1.5}, r"probability must be in \(0, 1\], got 1.5"),
        ({"last": -0.1}, r"last must be in \[0, 1\], got -0.1"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MaskedItem(**settings)


def test_every_item_is_the_target_of_its_own_token():
    window = toy.jagged([[1, 2, 3], [4]])
    inputs, query, target = EveryItem()(window, torch.Generator())
    assert inputs.values.tolist() == [1, 2, 3, 4]
    assert inputs.offsets.tolist() == [0, 3, 4]
    assert query.tolist() == [0, 1, 2, 3]
    assert target.tolist() == [1, 2, 3, 4]
    assert EveryItem().chance(window).tolist() == [1, 1, 1, 1]


def test_every_interaction_is_a_target_once_of_short_and_long_histories():
    # Of 5, 1 and 0 interactions, in windows of 2: from the end [4, 5], [2, 3], [1]; then [6].
    sequences = Sequences(toy.jagged([[1, 2, 3, 4, 5], [6], []]), 2, EveryItem(), "all")
    info = sequences.facts(replace(toy.info(7), n_users=3))
    assert info.target_counts.tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert info.trained_users.tolist() == [True, True, False]
    batch = Loader(sequences, 4, seed=0).batch(torch.arange(4), (0, 0))
    assert batch.target.tolist() == [4, 5, 2, 3, 1, 6]
    assert batch.position.tolist() == [3, 4, 1, 2, 0, 0]
    # Numbers of the tokens, for samplers that remember: 0..4 and 5, each once.
    user = batch.user[batch.sequence]
    assert (info.token_base[user] + batch.position).tolist() == [3, 4, 1, 2, 0, 5]
    assert info.n_tokens == 6


@pytest.mark.parametrize(
    ("exclude", "excluded"),
    [
        # User 0 has 1..5; the windows are [4, 5], [2, 3], [1], and [6] is user 1's.
        ("target", [{4}, {5}, {2}, {3}, {1}, {6}]),
        ("window", [{4, 5}, {4, 5}, {2, 3}, {2, 3}, {1}, {6}]),
        ("history", [{1, 2, 3, 4, 5}] * 5 + [{6}]),
    ],
)
def test_what_every_item_rules_out(exclude, excluded):
    sequences = Sequences(toy.jagged([[1, 2, 3, 4, 5], [6]]), 2, EveryItem(), "all")
    batch = Loader(sequences, 4, seed=0).batch(torch.arange(4), (0, 0))
    queries = Queries.of(batch, torch.zeros(6, 1))
    every = torch.arange(1, 8).expand(6, -1)
    hit = queries.excluded.contains(every, torch.arange(6)[:, None], exclude)
    assert [set((row.nonzero().flatten() + 1).tolist()) for row in hit] == excluded
