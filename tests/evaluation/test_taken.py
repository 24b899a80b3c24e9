import pytest
import torch

from negrec.evaluation.taken import Taken
from tests import toy

V = 30


def test_hand_computed():
    # User 0 takes 1, 2, 1, 3; user 1 takes 2, something outside the catalogue, 2.
    taken = Taken(toy.jagged([[1, 2, 1, 3], [2, 0, 2]]), n_items=5)
    user = torch.tensor([0, 0, 0, 0, 1, 1])
    item = torch.tensor([1, 2, 3, 5, 2, 1])
    assert taken.last_position(user, item).tolist() == [2, 1, 3, -1, 2, -1]
    # From position 0 on user 0 takes {1, 2, 3}, from 2 on {1, 3}, from 3 on {3}, from 4 on nothing.
    at = torch.tensor([0, 2, 3, 4])
    assert taken.count(torch.zeros(4, dtype=torch.int64), at).tolist() == [3, 2, 1, 0]
    assert taken.count(torch.ones(2, dtype=torch.int64), torch.tensor([0, 2])).tolist() == [1, 1]


@pytest.mark.parametrize("policy", ["none", "target", "window", "history"])
def test_the_chance_of_a_uniform_draw_is_that_of_counting(policy):
    generator = torch.Generator().manual_seed(1)
    # With repeats: an item may be in the history and be taken later again.
    whole = [
        torch.randint(1, V + 1, (int(n),), generator=generator).tolist()
        for n in torch.randint(4, 15, (20,), generator=generator)
    ]
    train = [history[:-2] for history in whole]
    batch = toy.batch(train, max_length=4)
    queries = toy.queries(batch).select(torch.arange(1, len(batch.target), 2))
    taken = Taken(toy.jagged(whole), V)
    found = taken.chance(queries, queries.position + 1, policy)
    for n, (user, position, target) in enumerate(
        zip(queries.user.tolist(), queries.position.tolist(), queries.target.tolist(), strict=True)
    ):
        out = {
            "none": set(),
            "target": {target},
            "window": set(train[user][-5:]),
            "history": set(train[user]),
        }[policy]
        later = set(whole[user][position + 1 :])
        assert found[n].item() == pytest.approx(len(later - out) / (V - len(out)))
