import numpy as np
import polars as pl
import pytest

from negrec.reporting.figures.curves import over_epochs, over_seconds
from negrec.reporting.figures.style import NothingToDraw
from negrec.reporting.significance import describe
from tests.reporting.figures.drawn import bars, legend, line, note, texts

METRIC = "valid/ndcg_10"


def history(curves: dict[str, list[list[float | None]]]) -> pl.DataFrame:
    """A curve per cell and seed; epoch e of seed s ends after 10 e + s seconds."""
    return pl.DataFrame(
        [
            {"cell": cell, "seed": s, "epoch": e, "seconds": 10.0 * e + s, METRIC: value}
            for cell, seeds in curves.items()
            for s, values in enumerate(seeds)
            for e, value in enumerate(values, start=1)
        ],
        schema_overrides={METRIC: pl.Float64},
    )


TWO = {"a": [[0.01, 0.03, 0.02], [0.02, 0.05, 0.06]], "b": [[0.02, 0.02, 0.03]] * 2}


def test_the_line_is_the_mean_and_the_band_its_interval():
    figure = over_epochs(history(TWO), METRIC, title="Beauty")
    (axes,) = figure.axes
    # (0.01 + 0.02) / 2, (0.03 + 0.05) / 2, (0.02 + 0.06) / 2
    expected = np.array([(1, 0.015), (2, 0.04), (3, 0.04)])
    assert line(figure, "a").get_xydata() == pytest.approx(expected)
    (band,) = (each for each in axes.collections[:1])
    at_three = [y for x, y in band.get_paths()[0].vertices if x == 3]
    of = describe([0.02, 0.06])
    assert (min(at_three), max(at_three)) == pytest.approx((of.low, of.high))
    shown = texts(figure).split("\n")
    assert {"a", "b", "Beauty", "Epoch", "NDCG@10 (%)"} <= set(shown)
    assert note(figure) == "Lines: validation, mean. n = 2 seeds per cell; 95% intervals."


def test_test_is_marked_at_the_chosen_epoch_and_nowhere_else():
    chosen = pl.DataFrame({"cell": "a", "seed": [0, 1], "epoch": [2, 3], "value": [0.02, 0.04]})
    figure = over_epochs(history(TWO), METRIC, chosen)
    (axes,) = figure.axes
    (mark,) = axes.containers
    assert mark.lines[0].get_xydata() == pytest.approx(np.array([(2.5, 0.03)]))
    of = describe([0.02, 0.04])
    (up,) = bars(mark)
    assert up[0] == pytest.approx(np.array([(2.5, of.low), (2.5, of.high)]))
    # The marker is the cell's own, and hollow where the line's is filled.
    assert mark.lines[0].get_marker() == line(figure, "a").get_marker()
    assert mark.lines[0].get_markerfacecolor() == "white"
    assert "test, only at the epoch chosen on validation" in note(figure)


def test_seconds_are_those_of_the_history():
    # Epoch 2 ended after 20 s and 21 s, epoch 3 after 30 s and 31 s.
    chosen = pl.DataFrame(
        {"cell": "a", "seed": [0, 1], "epoch": [2, 3], "seconds": 999.0, "value": [0.02, 0.04]}
    )
    figure = over_seconds(history(TWO), METRIC, chosen)
    assert line(figure, "a").get_xdata() == pytest.approx([10.5, 20.5, 30.5])
    (mark,) = figure.axes[0].containers
    assert mark.lines[0].get_xydata() == pytest.approx(np.array([(25.5, 0.03)]))
    # Means of 10, 20/2, 30/3 and 11, 21/2, 31/3.
    assert "a\n10.3 s/epoch" in texts(figure)
    assert figure.axes[0].get_xlabel() == "Training time (s)"


def test_the_mean_ends_where_a_seed_stops_and_the_others_go_on_alone():
    figure = over_epochs(history({"a": [[0.01, 0.03], [0.02, 0.05, 0.06, 0.07]]}), METRIC)
    mean, tail, key = figure.axes[0].lines
    assert key.get_marker() == mean.get_marker()  # beside the name
    assert mean.get_xydata() == pytest.approx(np.array([(1, 0.015), (2, 0.04)]))
    assert tail.get_xydata() == pytest.approx(np.array([(2, 0.05), (3, 0.06), (4, 0.07)]))
    assert tail.get_linewidth() < mean.get_linewidth()
    assert "Thin: seeds that went on after another had stopped." in note(figure)


def test_epochs_without_validation_are_passed_over():
    figure = over_epochs(history({"a": [[None, 0.02, None, 0.03]], "b": [[None] * 4]}), METRIC)
    drawn = line(figure, "a").get_xydata()
    assert drawn == pytest.approx(np.array([(2, 0.02), (4, 0.03)]))
    said = note(figure)
    assert "n = 1 seed per cell: no intervals." in said
    assert "Never evaluated: b." in said
    assert not figure.axes[0].collections


def test_values_that_are_no_numbers_are_said():
    nan = float("nan")
    figure = over_epochs(history({"a": [[0.01, nan]], "b": [[nan, nan]]}), METRIC)
    assert line(figure, "a").get_xydata() == pytest.approx(np.array([(1, 0.01)]))
    assert "Not shown, no number: a (1 of 2), b." in note(figure)
    with pytest.raises(NothingToDraw):
        over_epochs(history({"a": [[nan]]}), METRIC)


def test_seven_lines_differ_without_color_and_their_names_do_not_touch():
    # All end at the same height.
    names = ["uniform", "popularity", "in_batch", "mixed", "adaptive", "adaptive_mixed", "genni"]
    figure = over_epochs(history({name: [[0.01, 0.03]] * 2 for name in names}), METRIC)
    (axes,) = figure.axes
    lines = [line(figure, name) for name in names]
    assert len({(each.get_marker(), str(each._dash_pattern)) for each in lines}) == 7
    assert len({str(each._dash_pattern) for each in lines}) == 6
    labels = sorted((text.get_position()[1], text.get_text()) for text in axes.texts)
    assert {text for _, text in labels} == set(names)
    gaps = np.diff([y for y, _ in labels]) * axes.get_window_extent().height
    assert gaps.min() > 7 / 72 * figure.dpi  # a row of 7 points
    assert labels[0][0] >= 0
    assert labels[-1][0] <= 1


def test_lines_that_end_early_are_named_in_a_legend():
    figure = over_epochs(history({"a": [[0.01] * 20], "b": [[0.02] * 3]}), METRIC)
    assert legend(figure) == ["a", "b"]
    assert not figure.axes[0].texts


def test_twenty_cells_have_a_legend_and_no_bands():
    cells = {f"cell {i}": [[0.01, 0.02], [0.02, 0.03]] for i in range(20)}
    figure = over_epochs(history(cells), METRIC)
    assert legend(figure) == list(cells)
    assert not figure.axes[0].collections
    assert "Of so many cells no intervals are drawn." in note(figure)
