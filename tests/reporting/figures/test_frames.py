import math

import polars as pl
import pytest

from negrec.reporting.figures.frames import finite, over_seeds, seeds
from negrec.reporting.figures.style import NothingToDraw
from negrec.reporting.significance import describe


def test_means_over_seeds_agree_with_the_statistics():
    values = {"a": [0.1, 0.4, 0.3], "b": [0.2, 0.25], "c": [0.7]}
    frame = pl.DataFrame([{"cell": name, "x": x} for name, of in values.items() for x in of])
    found = over_seeds(frame, ["cell"], ["x"])
    assert found.columns == ["cell", "n", "x", "x_low", "x_high"]
    for row in found.iter_rows(named=True):
        expected = describe(values[row["cell"]])
        assert row["n"] == expected.n
        ends = [row["x"], row["x_low"], row["x_high"]]
        assert ends == pytest.approx([expected.mean, expected.low, expected.high], nan_ok=True)
    assert math.isnan(found["x_low"][2])


def test_what_is_no_number_is_left_out_and_said():
    frame = pl.DataFrame(
        {
            "cell": ["a", "a", "b", "b", "c", "d"],
            "x": [1.0, 2.0, None, 4.0, math.nan, math.inf],
            "y": [1, 2, 3, 4, 5, 6],
        }
    )
    kept, said = finite(frame, ["x", "y"], "cell")
    assert kept["x"].to_list() == [1, 2, 4]
    assert said == "Not shown, no number: b (1 of 2), c, d."
    assert finite(frame.head(2), ["x"], "cell")[1] == ""


def test_nothing_left_is_an_error_of_its_own():
    with pytest.raises(NothingToDraw, match="no row has a number in x"):
        finite(pl.DataFrame({"cell": ["a"], "x": [math.nan]}), ["x"], "cell")


@pytest.mark.parametrize(
    ("n", "said"),
    [
        ([1, 1], "n = 1 seed per cell: no intervals."),
        ([5, 5], "n = 5 seeds per cell; 95% intervals."),
        ([3, 5], "n = 3 to 5 seeds per cell; 95% intervals."),
        ([1, 5], "n = 1 to 5 seeds per cell; 95% intervals where n > 1."),
    ],
)
def test_n_is_said(n: list[int], said: str):
    assert seeds(n) == said
    assert seeds(n, intervals=False) == said[: said.index("cell") + 4] + "."
