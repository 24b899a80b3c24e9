import itertools
import subprocess
import sys

import matplotlib as mpl
import pytest
from matplotlib.colors import to_rgb

from negrec.reporting.figures import style


def test_twenty_cells_differ_in_black_and_white():
    looks = style.looks([f"cell {i}" for i in range(20)])
    assert len({(look.marker, look.filled) for look in looks.values()}) == 20


def test_up_to_the_limit_of_direct_labels_every_marker_differs_and_neighbours_differ_in_dashes():
    looks = list(style.looks([str(i) for i in range(style.DIRECT)]).values())
    assert len({look.marker for look in looks}) == style.DIRECT
    assert all(a.dashes != b.dashes for a, b in itertools.pairwise(looks))
    assert len({(look.color, look.dashes) for look in looks}) == style.DIRECT


def test_every_color_stands_out_from_white_paper():
    for look in style.looks([str(i) for i in range(20)]).values():
        r, g, b = to_rgb(look.color)
        assert 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.72  # luma; yellow has 0.9


def test_a_name_keeps_its_look_whatever_stands_behind_it():
    assert style.looks(["a", "b", "a", "c"])["b"] == style.looks(["a", "b"])["b"]


def test_looks_that_are_given_must_cover_all_names():
    given = style.looks(["a", "b"])
    assert style.chosen_looks(["b"], given)["b"] == given["b"]
    with pytest.raises(ValueError, match=r"looks has none for \['c'\]"):
        style.chosen_looks(["a", "c"], given)


def test_the_settings_are_taken_back():
    before = dict(mpl.rcParams)
    with style.house_style():
        assert mpl.rcParams["font.size"] == style.FONT
    assert dict(mpl.rcParams) == before


def test_a_users_own_settings_do_not_matter():
    with mpl.rc_context({"lines.linewidth": 9, "axes.facecolor": "red"}), style.house_style():
        assert mpl.rcParams["lines.linewidth"] == 1.3
        assert mpl.rcParams["axes.facecolor"] == "white"


def test_neither_pyplot_nor_torch_is_imported():
    modules = ", ".join(
        f"negrec.reporting.figures.{name}"
        for name in ("calibration", "curves", "critical_difference", "forest", "heatmap", "output")
    )
    check = "assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", f"import sys, {modules}; {check}"], check=True)
