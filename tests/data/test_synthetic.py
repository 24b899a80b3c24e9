import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from negrec.commandline.configuration import conf_dir
from negrec.data.splits.global_temporal import GlobalTemporal
from negrec.data.splits.leave_one_out import LeaveOneOut
from negrec.data.synthetic import generate
from negrec.data.truth import Truth
from tests import toy

SMALL = {
    **{"name": "small", "users": 4, "items": 12, "clusters": 5, "factors": 2},
    **{"zipf": 0.7, "taste": 0.8, "affinity": 1.5, "seed": 3},
}


@pytest.fixture(scope="module")
def default():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("train", ["dataset=synthetic"])
    return lambda **changes: instantiate(cfg.dataset, cache_dir="c", data_dir="d", **changes)


def test_the_default_set(default):
    default()
    begin = time.process_time()
    data = default()
    assert time.process_time() - begin < 1
    assert (data.n_users, data.n_items) == (2000, 1000)
    assert 36_000 < data.n_interactions < 44_000
    assert data.repeat_share == 0
    pairs = data.user * data.n_items + data.item
    assert len(np.unique(pairs)) == data.n_interactions
    assert np.diff(data.offsets).min() >= 5
    # In order of time within a user.
    within = np.diff(data.user) == 0
    assert (np.diff(data.timestamp)[within] > 0).all()


def test_its_seed_is_all(default):
    assert default().hash == default().hash != default(seed=1).hash
    state = torch.get_rng_state()
    default()
    assert torch.equal(torch.get_rng_state(), state)


def test_popularity_falls_like_zipf(default):
    # Without tastes and clusters an item's share falls as rank^-s, as long as few are used up.
    data = default(taste=0.0, affinity=0.0, users=20_000, zipf=0.5)
    counts = np.sort(np.bincount(data.item, minlength=1000))[::-1]
    middle = np.arange(20, 800)
    slope = np.polyfit(np.log(middle + 1), np.log(counts[middle]), 1)[0]
    assert slope == pytest.approx(-0.5, abs=0.05)


@pytest.mark.parametrize("split", [LeaveOneOut(), GlobalTemporal()])
def test_it_can_be_learnt_and_is_not_trivial(default, split):
    data = default()
    parts = split(data, 50, 0)
    assert len(parts.test) > 500
    truth = data.truth.for_catalogue(parts.catalogue)
    history = parts.test.histories()
    seen = torch.zeros(len(parts.test), parts.info.n_items, dtype=torch.bool)
    seen[history.row, history.values - 1] = True
    last = history.values[history.offsets[1:] - 1]

    def hit_rate(scores):
        scores = scores.masked_fill(seen, -torch.inf)
        best = scores.topk(10).indices + 1
        return (best == parts.test.target[:, None]).any(1).double().mean().item()

    oracle = hit_rate(truth.log_prob(parts.test.user, last, seen))
    popularity = hit_rate(parts.info.counts.double().expand(len(parts.test), -1))
    assert 0.25 < oracle < 0.40
    assert 0.04 < popularity < 0.11


def slow_prob(process, user, last, seen):
    """P as the formula says it, item by item."""
    weights = []
    for item in range(len(process.cluster)):
        log_weight = process.log_popularity[item] + process.taste[user] @ process.factors[item]
        if last is not None:
            log_weight += process.affinity[process.cluster[last], process.cluster[item]]
        weights.append(0.0 if item in seen else np.exp(log_weight))
    return np.array(weights) / sum(weights)


@pytest.mark.parametrize(("last", "seen"), [(None, []), (3, [3]), (7, [1, 3, 7])])
def test_log_prob_is_the_formula(last, seen):
    truth = generate(**SMALL).truth
    mask = torch.zeros(12, dtype=torch.bool)
    mask[seen] = True
    last_id = torch.tensor(0 if last is None else last + 1)
    got = truth.log_prob(torch.tensor(2), last_id, mask).exp()
    expected = slow_prob(truth.process, 2, last, seen)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-6)


def test_the_draws_follow_the_stated_distribution():
    # All users alike (no tastes): 20,000 draws of the first item, and of the second after each
    # first one, against P.
    data = generate(**{**SMALL, "users": 20_000, "taste": 0.0})
    first = data.item[data.offsets[:-1]]
    second = data.item[data.offsets[:-1] + 1]
    truth = data.truth
    nobody = torch.zeros(12, dtype=torch.bool)
    zero = torch.tensor(0)
    expected = truth.log_prob(zero, zero, nobody).exp()
    assert toy.chi_square_p(torch.from_numpy(first), expected.double()) > 1e-3
    for item in range(12):
        seen = nobody.clone()
        seen[item] = True
        after = torch.from_numpy(second[first == item])
        expected = truth.log_prob(zero, torch.tensor(item + 1), seen).exp()
        assert toy.chi_square_p(after, expected.double()) > 1e-3 / 12
    # The third knows the last item and what was seen, not how it came to that.
    third = data.item[data.offsets[:-1] + 2]
    a, b = 0, int(np.bincount(second[first == 0]).argmax())
    chosen = (first == a) & (second == b)
    seen = nobody.clone()
    seen[[a, b]] = True
    expected = truth.log_prob(zero, torch.tensor(b + 1), seen).exp()
    assert toy.chi_square_p(torch.from_numpy(third[chosen]), expected.double()) > 1e-3


def test_tastes_are_followed():
    # Sum over all first items of log P under the own taste beats that under another's.
    data = generate(**{**SMALL, "users": 3000, "taste": 2.0})
    first = torch.from_numpy(data.item[data.offsets[:-1]])
    users = torch.arange(3000)
    last, nobody = torch.zeros(3000, dtype=torch.long), torch.zeros(3000, 12, dtype=torch.bool)
    own = data.truth.log_prob(users, last, nobody).gather(1, first[:, None]).mean()
    others = data.truth.log_prob(users.roll(1), last, nobody).gather(1, first[:, None]).mean()
    entropy = data.truth.log_prob(users, last, nobody)
    assert own > others + 0.5
    assert own.item() == pytest.approx((entropy.exp() * entropy).sum(1).mean().item(), abs=0.05)


def test_as_a_model_it_scores_log_p_up_to_a_constant():
    truth = generate(**SMALL).truth
    batch = replace(toy.batch([[4, 2, 9], [1, 12]]), user=torch.tensor([3, 1]))
    scores = truth.represent(batch) @ truth.scorer.matrix.T
    assert torch.equal(truth.matrix, truth.scorer.matrix)
    # Inputs are all but the last item: 4, 2 and 1.
    nobody = torch.zeros(2, 12, dtype=torch.bool)
    expected = truth.log_prob(torch.tensor([3, 1]), torch.tensor([2, 1]), nobody)
    torch.testing.assert_close(scores.log_softmax(1), expected)


def test_other_catalogue_ids():
    truth = generate(**SMALL).truth
    catalogue = np.array([7, 2, 11])
    part = truth.for_catalogue(catalogue)
    assert isinstance(part, Truth)
    user = torch.tensor(1)
    whole = truth.log_prob(user, torch.tensor(3), torch.zeros(12, dtype=torch.bool))
    # Catalogue id 2 is the process's item 2, whose id among all is 3.
    got = part.log_prob(user, torch.tensor(2), torch.zeros(3, dtype=torch.bool))
    torch.testing.assert_close(got, whole[catalogue].log_softmax(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"users": 0}, "dataset.users must be at least 1, got 0"),
        ({"items": 1}, "dataset.items must be at least 2, got 1"),
        ({"clusters": 13}, "dataset.clusters must be at most dataset.items=12, got 13"),
        ({"zipf": -1.0}, "must not be negative"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        generate(**{**SMALL, **settings})


def test_a_tiny_set_is_possible():
    data = generate(**{**SMALL, "users": 1, "items": 2, "clusters": 1})
    assert data.item.shape == (1,)
