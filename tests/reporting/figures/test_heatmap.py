import math

import polars as pl
import pytest

from negrec.reporting.figures.heatmap import heatmap
from tests.reporting.figures.drawn import note, texts

METRIC = "valid/ndcg_10"
CELLS = pl.DataFrame(
    {
        "k": [16, 1, 16, 1],
        "t": [0.0, 0.0, 1.0, 1.0],
        METRIC: [0.160, 0.120, 0.171, 0.158],
        "n": 5,
        # Three tests: 0.02 * 3 = 0.06 is not significant, 0.016 * 3 = 0.048 is.
        "p": [0.02, 0.001, None, 0.016],
    }
)


def test_cells_stand_where_their_settings_are():
    figure = heatmap(CELLS, "k", "t", METRIC)
    axes, bar = figure.axes
    # Rows: t = 0, 1; columns: k = 1, 16.
    assert axes.images[0].get_array().tolist() == [[0.120, 0.160], [0.158, 0.171]]
    assert axes.images[0].origin == "lower"
    assert [each.get_text() for each in axes.get_xticklabels()] == ["1", "16"]
    assert [each.get_text() for each in axes.get_yticklabels()] == ["0", "1"]
    written = {each.get_text(): each.get_position() for each in axes.texts}
    assert written == {"16.0": (1, 0), "12.0": (0, 0), "17.1": (1, 1), "15.8": (0, 1)}
    assert bar.get_ylabel() == "NDCG@10 on validation (%)"


def frames(figure) -> dict[str, list[tuple[float, float]]]:
    """Middles of the frames by their line."""
    found: dict[str, list[tuple[float, float]]] = {}
    for patch in figure.axes[0].patches:
        middle = (patch.get_x() + patch.get_width() / 2, patch.get_y() + patch.get_height() / 2)
        found.setdefault(patch.get_linestyle(), []).append(tuple(round(m, 9) for m in middle))
    return found


def test_the_best_and_what_does_not_differ_from_it_by_bonferroni():
    figure = heatmap(CELLS, "k", "t", METRIC)
    assert frames(figure) == {"-": [(1, 1)], "--": [(1, 0)]}
    assert "n = 5 seeds per cell." in note(figure)
    assert "Bonferroni over 3 tests" in note(figure)


def test_without_tests_nothing_is_said_to_be_the_same():
    figure = heatmap(CELLS.with_columns(p=pl.lit(math.nan)), "k", "t", METRIC)
    assert frames(figure) == {"-": [(1, 1)]}
    assert "Nothing was tested." in note(figure)


def test_the_best_loss_is_the_lowest():
    figure = heatmap(CELLS.rename({METRIC: "train/loss"}), "k", "t", "train/loss")
    assert frames(figure)["-"] == [(0, 0)]


def test_cells_that_are_missing_stay_empty():
    cells = CELLS.with_columns(pl.col(METRIC).replace(0.120, None))
    figure = heatmap(cells, "k", "t", METRIC)
    assert len(figure.axes[0].texts) == 3
    assert "Not shown, no number: k = 1, t = 0.0." in note(figure)


def test_one_cell_and_settings_that_are_text():
    cell = CELLS.head(1).with_columns(t=pl.lit("history"), p=None)
    figure = heatmap(cell, "k", "t", METRIC)
    assert "history" in texts(figure)
    with pytest.raises(ValueError, match="two rows for the same k and t"):
        heatmap(pl.concat([cell, cell]), "k", "t", METRIC)
