import numpy as np
import pytest
from matplotlib.text import Text
from scipy.optimize import minimize

from negrec.reporting.figures.labels import beside, shorten, spread
from negrec.reporting.figures.style import house_style, new_figure


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("genni", "genni"),
        ("a" * 20, "a" * 20),
        ("adaptive_mixed pool=1000", "adaptive_mixed\npool=1000"),
        ("adaptive_in_batch_with_k", "adaptive_in_batch_\nwith_k"),
        ("x" * 30, "x" * 20 + "\n" + "x" * 10),  # nowhere to break
        ("a" * 30 + "b" * 30, "a" * 19 + "…\n" + "b" * 20),
        ("", ""),
    ],
)
def test_names_become_at_most_two_rows_of_twenty(name: str, shown: str):
    assert shorten([name]) == {name: shown}


def test_names_that_differ_in_what_is_cut_out_are_numbered():
    names = ["a" * 30 + middle + "b" * 30 for middle in "123"]
    shown = list(shorten(names).values())
    assert shown[1:] == ["a" * 19 + "…\n" + "b" * 16 + f" ({i})" for i in (2, 3)]
    assert len(set(shown)) == 3


@pytest.mark.parametrize(
    ("wanted", "placed"),
    [
        ([0.2, 0.8], [0.2, 0.8]),  # far enough apart
        ([0.5, 0.5], [0.4, 0.6]),  # both give way alike
        ([0.6, 0.5], [0.65, 0.45]),  # order kept: 0.55 -+ 0.1
        ([0.95, 1.0], [0.8, 1.0]),  # the top is the end
        ([0.0, 0.0, 0.9], [0.0, 0.2, 0.9]),  # and so is the bottom
    ],
)
def test_labels_are_spread(wanted: list[float], placed: list[float]):
    assert spread(wanted, 0.2) == pytest.approx(placed)


def test_spreading_moves_the_least():
    # The same problem, solved by a general optimiser.
    wanted = np.sort(np.random.default_rng(0).random(6))
    gap = 0.15
    apart = {"type": "ineq", "fun": lambda y: np.diff(y) - gap}
    start = np.linspace(0, 1, 6)
    solved = minimize(
        lambda y: ((y - wanted) ** 2).sum(),
        start,
        bounds=[(0, 1)] * 6,
        constraints=apart,
        options={"ftol": 1e-12},
    )
    assert solved.success
    assert spread(wanted.tolist(), gap) == pytest.approx(solved.x, abs=1e-5)


@house_style()
def test_labels_beside_points_hide_no_label_and_no_point():
    # Eight points in a heap: labels that stood right of each would cover one another.
    points = [(0.5 + 0.02 * i, 0.5 + 0.01 * (i % 3)) for i in range(8)]
    figure, (axes,) = new_figure(3.5, 2.8)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    labels = beside(axes, [f"sampler {i}" for i in range(8)], points, np.array(points))
    renderer = figure.canvas.get_renderer()
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(label, renderer) for label in labels]  # without the lines
    frame = axes.get_window_extent()
    for i, box in enumerate(boxes):
        assert not any(box.padded(-0.5).overlaps(other) for other in boxes[:i])
        assert not any(box.contains(*axes.transData.transform(point)) for point in points)
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1


@house_style()
def test_a_label_stands_next_to_its_own_point():
    # Between the two there is room for one letter, but nearer to the other point.
    points = [(0.5, 0.5), (0.546, 0.5)]
    figure, (axes,) = new_figure(3.5, 2.8)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    labels = beside(axes, ["a", "b"], points, np.array(points))
    figure.draw_without_rendering()
    places = axes.transData.transform(points)
    for i, label in enumerate(labels):
        box = Text.get_window_extent(label, figure.canvas.get_renderer())
        gaps = [
            max(box.x0 - x, x - box.x1, 0) ** 2 + max(box.y0 - y, y - box.y1, 0) ** 2
            for x, y in places
        ]
        assert gaps.index(min(gaps)) == i
