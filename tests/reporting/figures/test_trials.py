import numpy as np
import polars as pl
import pytest

from negrec.reporting.figures.trials import trials
from tests.reporting.figures.drawn import legend, note

LR, METRIC = "trainer.optimizer.lr", "valid/ndcg_10"
RUNS = pl.DataFrame(
    {
        "sampler": ["genni", "genni", "uniform", "genni", "uniform"],
        LR: [1e-4, 1e-3, 1e-2, 1e-1, 3e-3],
        METRIC: [0.01, 0.04, 0.02, None, 0.03],
        "train/loss": [0.5, 0.2, 0.9, 0.8, 0.7],
    }
)


def test_every_trial_is_a_point_and_the_best_a_large_one():
    figure = trials(RUNS, LR, METRIC, title="ML-10M")
    genni, best_genni, uniform, best_uniform = figure.axes[0].lines
    assert genni.get_xydata() == pytest.approx(np.array([(1e-4, 0.01), (1e-3, 0.04)]))
    assert uniform.get_xydata() == pytest.approx(np.array([(1e-2, 0.02), (3e-3, 0.03)]))
    assert best_genni.get_xydata() == pytest.approx(np.array([(1e-3, 0.04)]))
    assert best_uniform.get_xydata() == pytest.approx(np.array([(3e-3, 0.03)]))
    assert best_genni.get_markersize() > genni.get_markersize()
    assert genni.get_marker() != uniform.get_marker()
    assert legend(figure) == ["genni (n = 2)", "uniform (n = 2)"]
    assert note(figure) == (
        "n = 4 trials; large: the best of each. Not shown, no number: genni (1 of 3)."
    )


def test_the_best_loss_is_the_lowest():
    _, best_genni, _, best_uniform = trials(RUNS, LR, "train/loss").axes[0].lines
    assert best_genni.get_ydata() == [0.2]
    assert best_uniform.get_ydata() == [0.7]


@pytest.mark.parametrize(("highest", "scale"), [(1e-2, "linear"), (1.1e-2, "log")])
def test_the_axis_is_logarithmic_from_two_decades_on(highest: float, scale: str):
    runs = pl.DataFrame({"sampler": "a", LR: [1e-4, highest], METRIC: [0.1, 0.2]})
    assert trials(runs, LR, METRIC).axes[0].get_xscale() == scale


def test_different_numbers_of_trials_are_said():
    said = note(trials(RUNS.head(3), LR, METRIC))
    assert "They were tuned with different numbers of trials." in said


def test_text_stands_in_columns():
    runs = pl.DataFrame(
        {"sampler": "a", "loss": ["bce", "gbce", "bce", "bce"], METRIC: [0.1, 0.2, 0.3, 0.4]}
    )
    (axes,) = trials(runs, "loss", METRIC).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["bce", "gbce"]
    x = axes.lines[0].get_xdata()
    assert np.round(x).tolist() == [0, 1, 0, 0]
    assert len(set(x)) == 4  # no two points of a column at one place
