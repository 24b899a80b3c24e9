import math

import numpy as np
import polars as pl
import pytest

from negrec.reporting.figures.forest import forest
from negrec.reporting.figures.style import NothingToDraw
from tests.reporting.figures.drawn import bars, note, texts

DIFFERENCES = pl.DataFrame(
    {
        "cell": ["uniform", "dns", "uniform", "dns"],
        "split": ["valid", "valid", "test", "test"],
        "difference": [-0.004, -0.001, -0.003, 0.0005],
        "low": [-0.005, -0.002, -0.005, -0.001],
        "high": [-0.003, 0.001, -0.001, 0.002],
        "n": 5,
        "p": [0.01, 0.05, 0.049, 0.6],
    }
)


def test_differences_and_their_intervals():
    figure = forest(DIFFERENCES, "ndcg_10", "genni", title="Beauty")
    valid, test = figure.axes
    assert [each.get_title(loc="left") for each in (valid, test)] == [
        "Validation: the choice",
        "Test: the report",
    ]
    # Nearest to the best on validation first: dns in row 0 of both panels.
    assert [each.get_text() for each in valid.get_yticklabels()] == ["dns", "uniform"]
    at = {c.get_label(): tuple(c.lines[0].get_xydata()[0]) for c in valid.containers}
    assert at == {"uniform": (-0.004, 1), "dns": (-0.001, 0)}
    at = {c.get_label(): tuple(c.lines[0].get_xydata()[0]) for c in test.containers}
    assert at == {"uniform": (-0.003, 1), "dns": (0.0005, 0)}
    (across,) = bars(valid.containers[0])
    assert across[0] == pytest.approx(np.array([(-0.005, 1), (-0.003, 1)]))
    assert valid.get_ylim()[0] > valid.get_ylim()[1]  # row 0 at the top
    assert valid.xaxis.get_major_formatter()(-0.004, 0) == "-0.4"
    assert "Δ NDCG@10 (percentage points)" in texts(figure)
    assert note(figure).startswith(
        "n = 5 seeds per difference; 95% intervals. Δ: cell minus genni."
    )


def test_hollow_is_within_noise():
    figure = forest(DIFFERENCES, "ndcg_10", "genni")
    hollow = {
        (axes.get_title(loc="left")[:4], container.get_label())
        for axes in figure.axes
        for container in axes.containers
        if container.lines[0].get_markerfacecolor() == "white"
    }
    assert hollow == {("Vali", "dns"), ("Test", "dns")}


def test_one_seed_has_neither_interval_nor_test():
    one = DIFFERENCES.with_columns(n=1, p=None, low=math.nan, high=None)
    figure = forest(one, "ndcg_10", "genni")
    for axes in figure.axes:
        for container in axes.containers:
            assert not container.has_xerr
            assert container.lines[0].get_markerfacecolor() == "white"
    assert note(figure).startswith("n = 1 seed per difference: no intervals.")


def test_one_split_is_one_panel_and_others_are_unknown():
    assert len(forest(DIFFERENCES.head(2), "balance_10", "genni").axes) == 1
    with pytest.raises(ValueError, match=r"split must be valid or test, got \['train'\]"):
        forest(DIFFERENCES.with_columns(split=pl.lit("train")), "ndcg_10", "genni")
    with pytest.raises(NothingToDraw):
        forest(DIFFERENCES.with_columns(difference=math.nan), "ndcg_10", "genni")
