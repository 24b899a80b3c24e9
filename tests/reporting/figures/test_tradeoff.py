import math

import numpy as np
import polars as pl
import pytest

from negrec.reporting.figures.style import NothingToDraw, looks
from negrec.reporting.figures.tradeoff import pareto, tradeoff
from tests.reporting.figures.drawn import bars, legend, note, texts

X, Y = "test/balance_10", "test/hr_10"


def points(x: list[float], y: list[float], n: int = 5, name: str = X) -> pl.DataFrame:
    frame = pl.DataFrame({"cell": [f"cell {i}" for i in range(len(x))], name: x, Y: y})
    arm = (lambda c, by: pl.col(c) + by) if n > 1 else (lambda c, by: pl.lit(None, pl.Float64))
    return frame.with_columns(
        pl.lit(n).alias("n"),
        *(
            arm(c, by).alias(c + end)
            for c in (name, Y)
            for end, by in (("_low", -0.01), ("_high", 0.02))
        ),
    )


def test_points_and_the_ends_of_their_bars():
    figure = tradeoff(points([0.4, 0.6], [0.03, 0.05]), X, Y, title="Beauty")
    (axes,) = figure.axes
    assert [tuple(c.lines[0].get_xydata()[0]) for c in axes.containers] == [
        (0.4, 0.03),
        (0.6, 0.05),
    ]
    across, up = bars(axes.containers[1])
    # 0.6 - 0.01 to 0.6 + 0.02, at the height 0.05; the other likewise.
    assert across[0] == pytest.approx(np.array([(0.59, 0.05), (0.62, 0.05)]))
    assert up[0] == pytest.approx(np.array([(0.6, 0.04), (0.6, 0.07)]))
    shown = texts(figure).split("\n")
    assert {"Beauty", "cell 0", "cell 1", "HR@10 on test (%)"} <= set(shown)
    assert note(figure).startswith("n = 5 seeds per cell; 95% intervals.")
    # Hit rates in percent.
    assert axes.yaxis.get_major_formatter()(0.03, 0) == "3"


def test_the_front_is_drawn_to_the_edges():
    # (0.4, 0.05) and (0.6, 0.03) are the front; (0.4, 0.03) is dominated by both.
    figure = tradeoff(points([0.4, 0.6, 0.4], [0.05, 0.03, 0.03]), X, Y)
    (axes,) = figure.axes
    front = axes.lines[-1]
    (left, _), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    expected = [(left, 0.05), (0.4, 0.05), (0.4, 0.03), (0.6, 0.03), (0.6, bottom)]
    assert front.get_xydata() == pytest.approx(np.array(expected))


def test_the_front_of_a_cost_is_on_the_left():
    # 2 s for 3 % and 8 s for 5 %; 9 s for 4 % is worse than the second in both.
    name = "cost/seconds"
    figure = tradeoff(points([8.0, 2.0, 9.0], [0.05, 0.03, 0.04], name=name), name, Y)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    (_, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    expected = [(right, 0.05), (8, 0.05), (8, 0.03), (2, 0.03), (2, bottom)]
    assert axes.lines[-1].get_xydata() == pytest.approx(np.array(expected))


def test_a_cost_of_zero_needs_a_linear_axis():
    name = "cost/seconds"
    (axes,) = tradeoff(points([0.0, 2.0], [0.05, 0.03], name=name), name, Y).axes
    assert axes.get_xscale() == "linear"
    # An interval that reaches below 0 does not: 0.005 - 0.01.
    (axes,) = tradeoff(points([0.005, 2.0], [0.05, 0.03], name=name), name, Y).axes
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[0] > 0


def dominated(p: tuple[float, float], others: list[tuple[float, float]]) -> bool:
    """Smaller x and larger y are better: a second implementation, word by word."""
    return any(q[0] <= p[0] and q[1] >= p[1] and (q[0] < p[0] or q[1] > p[1]) for q in others)


def test_the_pareto_set_by_a_second_implementation():
    rng = np.random.default_rng(0)
    for _ in range(20):
        # Few values: ties in one direction and in both.
        found = [tuple(p) for p in rng.integers(0, 6, (12, 2)).astype(float)]
        x, y = zip(*found, strict=True)
        expected = [not dominated(p, found) for p in found]
        assert pareto(x, y, "low", "high") == expected
        assert pareto([-v for v in x], y, "high", "high") == expected


def test_one_cell_of_one_seed():
    figure = tradeoff(points([0.4], [0.03], n=1), X, Y)
    (container,) = figure.axes[0].containers
    assert not container.has_xerr
    assert not container.has_yerr
    assert note(figure).startswith("n = 1 seed per cell: no intervals.")


def test_what_has_no_balance_is_named_and_left_out():
    figure = tradeoff(points([0.4, math.nan], [0.03, 0.05]), X, Y)
    assert len(figure.axes[0].containers) == 1
    assert "Not shown, no number: cell 1." in note(figure)
    with pytest.raises(NothingToDraw):
        tradeoff(points([math.nan], [0.03]), X, Y)


def test_twenty_cells_have_a_legend_beside_the_axes():
    rng = np.random.default_rng(0)
    figure = tradeoff(points(rng.random(20).tolist(), rng.random(20).tolist()), X, Y)
    assert legend(figure) == [f"cell {i}" for i in range(20)]
    figure.draw_without_rendering()
    (box,) = (each.get_window_extent() for each in figure.legends)
    assert box.x0 >= figure.axes[0].get_window_extent().x1
    assert box.y0 >= 0
    markers = {
        (c.lines[0].get_marker(), c.lines[0].get_markerfacecolor() == "white")
        for c in figure.axes[0].containers
    }
    assert len(markers) == 20


def test_rows_of_a_cell_share_a_look_and_are_joined_and_labelled():
    # Apple's figure A1: sizes of a buffer.
    frame = points([0.4, 0.6, 0.5], [0.03, 0.05, 0.02]).with_columns(
        cell=pl.Series(["a", "a", "b"]), label=pl.Series(["1", "20", "5"])
    )
    figure = tradeoff(frame, X, Y)
    (axes,) = figure.axes
    joined = [line for line in axes.lines if line.get_linestyle() == "-"]
    assert [line.get_xydata().tolist() for line in joined] == [[[0.4, 0.03], [0.6, 0.05]]]
    assert [text.get_text() for text in axes.texts] == ["1", "20", "5"]
    assert legend(figure) == ["a", "b"]


def test_looks_of_the_report_are_kept():
    given = looks(["other", "cell 0"])
    figure = tradeoff(points([0.4], [0.03]), X, Y, looks=given)
    (container,) = figure.axes[0].containers
    assert container.lines[0].get_marker() == given["cell 0"].marker == "s"
