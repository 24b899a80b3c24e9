"""Matrix factorisation."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from hydra import compose, initialize_config_dir

from negrec.commandline.configuration import conf_dir
from negrec.data.loader import Loader
from negrec.data.sequences import Sequences
from negrec.data.targets import EveryItem
from negrec.losses.bpr import BPR
from negrec.models.mf import MF
from negrec.objectives.ranking import Ranking
from negrec.samplers.uniform import Uniform
from negrec.scoring import ItemScorer
from tests import toy

BIASED = partial(ItemScorer, bias=True)


def build(info=None, **settings):
    torch.manual_seed(0)
    model = MF(info or toy.info(9), **{"dim": 3, "init_std": 1.0, "scorer": BIASED, **settings})
    with torch.no_grad():
        model.scorer.bias.normal_()
    return model


def test_the_score_is_the_product_plus_the_bias():
    model = build()
    queries = model(toy.batch([[1, 2, 3], [4, 5]]))
    scores = model.scorer.every(queries.hidden)
    user, item, bias = model.users.table.weight, model.scorer.weight, model.scorer.bias
    for n, u in enumerate([0, 0, 1]):
        for i in range(9):
            expected = (user[u] @ item[i] + bias[i, 0]).item()
            assert scores[n, i].item() == pytest.approx(expected, abs=1e-6)


def test_the_history_does_not_matter_and_the_user_does():
    model = build()
    one, other = toy.batch([[1, 2, 3], [4, 5]]), toy.batch([[7, 8, 9], [6, 1]])
    assert torch.equal(model.represent(one), model.represent(other))
    assert not torch.equal(*model.represent(one))


def test_unknown_users_are_ranked_for_by_bias():
    # User 1 has no training window; -1 is nobody.
    info = replace(toy.info(9), trained_users=torch.arange(50) != 1)
    model = build(info)
    batch = replace(toy.batch([[1, 2], [3, 4], [5, 6]]), user=torch.tensor([0, 1, -1]))
    scores = model.scorer.every(model.represent(batch))
    assert torch.equal(scores[1:], model.scorer.bias.T.expand(2, -1))
    assert not torch.equal(scores[0], scores[1])


def test_number_of_parameters():
    # 50 users and 9 items of 3 numbers, 9 biases.
    assert sum(p.numel() for p in build().parameters()) == 50 * 3 + 9 * 3 + 9
    assert sum(p.numel() for p in MF(toy.info(9), dim=3).parameters()) == 50 * 3 + 9 * 3


def test_the_gradient_of_bpr_is_that_of_the_paper():
    # Rendle et al., section 4.3.1, with x = p_u . (e_i - e_j) + b_i - b_j and s = sigma(-x):
    # of -ln sigma(x) by p_u -s (e_i - e_j), by e_i -s p_u, by e_j s p_u, by b_i -s, by b_j s.
    info, train = toy.info(3), toy.jagged([[2]])
    model = build(info)
    sequences = Sequences(train, 8, EveryItem(), "all")
    batch = Loader(sequences, 1, seed=0).batch(torch.arange(1), (0, 0))
    objective = Ranking(info, sequences, partial(Uniform, k=1, exclude="history"), BPR())
    outcome = objective(model, batch, toy.step())
    outcome.loss.backward()
    j = int(outcome.feedback.negatives.items) - 1
    p, e, b = model.users.table.weight[0], model.scorer.weight, model.scorer.bias[:, 0]
    s = torch.sigmoid(-(p @ (e[1] - e[j]) + b[1] - b[j])).detach()
    expected = torch.zeros(3, 3)
    expected[1], expected[j] = -s * p, s * p
    torch.testing.assert_close(model.scorer.weight.grad, expected)
    torch.testing.assert_close(model.users.table.weight.grad[0], -s * (e[1] - e[j]))
    assert not model.users.table.weight.grad[1:].any()
    biases = torch.zeros(3)
    biases[1], biases[j] = -s, s
    torch.testing.assert_close(model.scorer.bias.grad[:, 0], biases)


def test_two_tastes_are_told_apart():
    # Users 0..9 take items 1..6, users 10..19 items 7..12, each all but one of them.
    group = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
    left = [group[u // 10][u % 6] for u in range(20)]
    train = toy.jagged([[i for i in group[u // 10] if i != left[u]] for u in range(20)])
    info = replace(toy.info(12), n_users=20)
    sequences = Sequences(train, 4, EveryItem(), "all")
    torch.manual_seed(0)
    model = MF(sequences.facts(info), dim=4, scorer=BIASED)
    objective = Ranking(info, sequences, partial(Uniform, k=1, exclude="history"), BPR())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    loader = Loader(sequences, 40, seed=0)
    for epoch in range(60):
        for batch in loader.epoch(epoch):
            optimizer.zero_grad()
            objective(model, batch, toy.step(epoch, epoch)).loss.backward()
            optimizer.step()
    everybody = replace(toy.batch([[1, 2]] * 20), user=torch.arange(20))
    scores = model.scorer.every(model.represent(everybody)).detach()
    scores[train.row, train.values - 1] = -torch.inf
    assert (scores.argmax(1) + 1).tolist() == left


def test_a_negative_size_is_refused():
    with pytest.raises(ValueError, match="dim must be at least 1, got 0"):
        MF(toy.info(9), dim=0)


def test_what_the_yaml_implies_and_the_command_line_takes_back():
    def composed(*overrides):
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return compose("train", ["model=mf", *overrides])

    implied = composed()
    assert implied.targets._target_ == "negrec.data.targets.EveryItem"
    assert (implied.window, implied.scorer.bias, implied.model.scorer.bias) == ("all", True, True)
    taken_back = composed("targets=next_item", "window=last", "scorer.bias=false")
    assert taken_back.targets._target_ == "negrec.data.targets.NextItem"
    assert (taken_back.window, taken_back.scorer.bias) == ("last", False)
