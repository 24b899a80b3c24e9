"""Predicted probabilities beside precision, by hand and against the paper's corollaries."""

from math import inf, log

import numpy as np
import pytest
import torch

from negrec.evaluation.calibration import calibration, probability_sums, theorem_5_1
from negrec.scoring import FixedScorer
from tests import toy


def logit(p):
    return log(p / (1 - p))


def test_by_hand():
    scores = torch.tensor([[logit(0.8), logit(0.4)], [logit(0.6), -inf]])
    # Targets at ranks 2 and 1 of two lists. The second list has one item: its other place
    # predicts nothing.
    table = calibration(scores, [2, 1], [0, 0])
    assert table.columns == ["k", "probability", "precision"]
    assert table["k"].to_list() == [1, 2]
    assert table["probability"].to_list() == pytest.approx([(0.8 + 0.6) / 2, (1.2 + 0.6) / 4])
    assert table["precision"].to_list() == pytest.approx([1 / 2, 2 / 4])


def test_targets_of_one_list_count_together():
    # One list, three targets at ranks 1, 2 and 9: precision 1, 1 and 2/3.
    table = calibration(torch.zeros(1, 3), [1, 2, 9], [0, 0, 0])
    assert table["precision"].to_list() == pytest.approx([1, 1, 2 / 3])


def test_no_lists():
    table = calibration(torch.zeros(0, 2), [], [])
    assert table["precision"].is_nan().all()


@pytest.mark.parametrize("width", [1, 2, 3])
def test_sums(width, monkeypatch):
    toy.cut_tiles(monkeypatch, width)
    hidden = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    scorer = FixedScorer(torch.tensor([[logit(0.9), 3.0], [logit(0.2), 5.0], [0.0, 7.0]]))
    # Zero scores: 3 halves; otherwise 0.9 + 0.2 + 0.5.
    assert probability_sums(hidden, scorer).tolist() == pytest.approx([1.5, 1.6])
    assert probability_sums(hidden[:0], scorer).tolist() == []


def test_the_theorem_is_the_minimum_of_the_expected_loss():
    # Equation 16: -(P log sigma^beta + alpha (1 - P) log(1 - sigma)), searched on a grid.
    prior, alpha, beta = 0.03, 0.1, 0.4
    grid = np.linspace(1e-6, 1 - 1e-6, 1_000_001)
    loss = -(prior * beta * np.log(grid) + alpha * (1 - prior) * np.log(1 - grid))
    best = grid[loss.argmin()]
    assert theorem_5_1(np.array([prior]), alpha, beta)[0] == pytest.approx(best, abs=2e-6)


def test_corollaries():
    prior = np.array([0.0, 0.001, 0.2, 1.0])
    np.testing.assert_allclose(theorem_5_1(prior, 0.3, beta=0.3), prior)  # 5.1.1
    n_items = 1000  # 5.1.3: one negative, BCE
    expected = (prior * n_items - prior) / (prior * n_items - 2 * prior + 1)
    np.testing.assert_allclose(theorem_5_1(prior, 1 / (n_items - 1)), expected)


@pytest.mark.parametrize(("alpha", "beta"), [(0, 1), (1.1, 1), (0.5, 0), (0.5, 2)])
def test_impossible_rates(alpha, beta):
    with pytest.raises(ValueError, match="must be in"):
        theorem_5_1(np.array([0.5]), alpha, beta)
