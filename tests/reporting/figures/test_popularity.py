import numpy as np
import pytest

from negrec.reporting.figures.popularity import popularity, popularity_overlaid
from negrec.reporting.figures.style import NothingToDraw
from tests.reporting.figures.drawn import legend, note, texts

# 20 in all: cumulated 6, 10, 13, 14, ... against 20/3 and 40/3: 1 head, 2 mid, 7 tail.
COUNTS = np.array([1, 4, 1, 6, 1, 1, 3, 1, 1, 1])


def test_the_cohorts_of_a_curve():
    figure = popularity({"leave_one_out": COUNTS}, title="beauty")
    curves = {each.get_label(): each for each in figure.axes[0].lines}
    head, mid, tail = (
        curves[f"{name} items, {share}%"]
        for name, share in (("head: 1", 10), ("mid: 2", 20), ("tail: 7", 70))
    )
    assert head.get_xydata().tolist() == [[1, 6]]
    assert head.get_marker() == "o"  # a point has no line
    assert mid.get_xydata().tolist() == [[2, 4], [3, 3]]
    assert tail.get_xydata().tolist() == [[rank, 1] for rank in range(4, 11)]
    borders = [each.get_xdata()[0] for each in figure.axes[0].lines if len(each.get_xdata()) == 2]
    assert {1.5, 3.5} <= set(borders)
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"
    assert "Not drawn" not in note(figure)


def test_items_without_interactions_have_no_place_on_a_log_axis():
    figure = popularity({"one": np.array([3, 2, 2, 0, 0]), "other": np.array([1, 1])})
    assert "Not drawn, without any: 2 of 5 (one)." in note(figure)
    assert [axes.get_title() for axes in figure.axes] == ["one", "other"]
    with pytest.raises(NothingToDraw):
        popularity({"one": np.zeros(3, dtype=int)})


def test_many_items_are_thinned_to_what_can_be_seen():
    counts = np.arange(1_000_000, 0, -1)
    figure = popularity({"large": counts})
    tails = [each for each in figure.axes[0].lines if str(each.get_label()).startswith("tail")]
    x, y = tails[0].get_data()
    assert len(x) <= 400
    assert x[-1] == 1_000_000
    assert (y == 1_000_001 - x).all()


def test_data_sets_side_by_side_on_common_axes():
    figure = popularity_overlaid(
        {"small": COUNTS, "even": np.array([5, 5])}, counted="Training part of leave_one_out."
    )
    single, cumulated = figure.axes
    assert single.get_yscale() == "log"
    # Shares of items and of interactions, most popular first.
    assert single.lines[0].get_xydata()[:3] == pytest.approx(
        np.array([[0.1, 6 / 20], [0.2, 4 / 20], [0.3, 3 / 20]])
    )
    assert single.lines[1].get_xydata() == pytest.approx(np.array([[0.5, 0.5], [1, 0.5]]))
    assert cumulated.lines[0].get_xydata()[:4] == pytest.approx(
        np.array([[0, 0], [0.1, 0.3], [0.2, 0.5], [0.3, 0.65]])
    )
    assert cumulated.lines[1].get_xydata() == pytest.approx(np.array([[0, 0], [0.5, 0.5], [1, 1]]))
    assert legend(figure) == ["small", "even"]
    assert "leave_one_out" in note(figure)
    assert "% of the catalogue" in texts(figure)
