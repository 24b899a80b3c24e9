import polars as pl
import pytest

from negrec.reporting.figures.diagnostics import diagnostics
from negrec.reporting.figures.style import NothingToDraw
from tests.reporting.figures.drawn import legend, note

HISTORY = pl.DataFrame(
    [
        {
            "cell": cell,
            "seed": seed,
            "epoch": epoch,
            "valid/hr_10": 0.1,
            "diag/hardness": 0.5 + 0.1 * seed,
            "diag/distinct": 0.1 * epoch,
            "diag/effective_sample_size": 0.4 if cell == "uniform" else None,
            "diag/false_negative_lift": float("nan") if cell == "genni" else 1.0,
            "diag/false_negative_lift_low": 0.5,
            "diag/false_negative_lift_high": 1.5,
            "diag/mined": None,
            "diag/seconds": 0.3,
        }
        for cell in ("uniform", "genni")
        for seed in range(2)
        for epoch in range(1, 4)
    ]
)


def test_a_panel_for_every_diagnostic_that_has_values():
    figure = diagnostics(HISTORY, title="Beauty")
    titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes]
    assert titles == [
        "Hardness (rank percentile)",
        "Distinct negatives (% of the catalogue)",
        "Effective sample size (share of k)",
        "False negatives (× uniform)",
    ]
    hardness, distinct, size, lift = figure.axes
    # Seeds 0.5 and 0.6.
    assert [line.get_ydata().tolist() for line in hardness.lines] == [pytest.approx([0.55] * 3)] * 2
    assert distinct.lines[0].get_xydata()[:, 1] == pytest.approx([0.1, 0.2, 0.3])
    assert distinct.lines[0].get_xdata().tolist() == [1, 2, 3]
    assert distinct.yaxis.get_major_formatter()(0.1, 0) == "10"
    assert [line.get_label() for line in size.lines] == ["uniform"]
    assert [line.get_label() for line in lift.lines] == ["uniform"]
    assert legend(figure) == ["uniform", "genni"]
    assert note(figure) == (
        "n = 2 seeds per cell; 95% intervals. A cell without a line in a panel has no such value."
    )


def test_one_metric_is_one_panel():
    figure = diagnostics(HISTORY.select("cell", "seed", "epoch", "diag/hardness"))
    assert len(figure.axes) == 1
    assert figure.axes[0].get_xlabel() == "Epoch"


def test_runs_without_diagnostics():
    with pytest.raises(NothingToDraw, match="no diag/ metric"):
        diagnostics(HISTORY.select("cell", "seed", "epoch", "valid/hr_10", "diag/mined"))
