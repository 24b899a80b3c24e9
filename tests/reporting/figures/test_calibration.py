import numpy as np
import polars as pl
import pytest

from negrec.reporting.figures.calibration import calibration
from negrec.reporting.figures.style import NothingToDraw
from tests.reporting.figures.drawn import legend, line, note, texts


def points(cell: str, rate: float | None, beta: float | None, seeds: int = 2) -> pl.DataFrame:
    """Precision 0.1 / K (K = 1, 10, 100); seed s says (s + 1) times as much."""
    k = np.array([1, 10, 100])
    parts = [
        pl.DataFrame({"k": k, "precision": 0.1 / k, "probability": (s + 1) * 0.1 / k}).with_columns(
            cell=pl.lit(cell),
            seed=pl.lit(s),
            sampling_rate=pl.lit(rate, pl.Float64),
            beta=pl.lit(beta, pl.Float64),
        )
        for s in range(seeds)
    ]
    return pl.concat(parts)


def test_means_over_seeds_and_the_diagonal():
    figure = calibration(points("bce", None, None), title="ML-1M")
    curve, marks = figure.axes[0].lines[:2]
    # The mean of 1 and 2 times the precision.
    expected = np.array([(0.1, 0.15), (0.01, 0.015), (0.001, 0.0015)])
    assert curve.get_xydata() == pytest.approx(expected)
    assert marks.get_xydata() == pytest.approx(expected)
    diagonal = line(figure, "calibrated").get_xydata()
    assert diagonal[:, 0] == pytest.approx(diagonal[:, 1])
    assert {"K = 1", "K = 10", "K = 100"} <= set(texts(figure).split("\n"))
    assert figure.axes[0].get_xscale() == figure.axes[0].get_yscale() == "log"
    assert note(figure) == (
        "Means over seeds, K = 1 to 100. n = 2 seeds per cell. Grey: calibrated."
    )


def test_the_line_of_theorem_5_1():
    both = pl.concat(
        [points("bce", 0.25, 1.0), points("gbce", 0.25, 0.25), points("dns", None, None)]
    )
    figure = calibration(both)
    assert legend(figure) == ["bce", "gbce", "dns"]
    bce = line(figure, "theorem 5.1, alpha 0.25, beta 1").get_xydata()
    # P / (alpha - alpha P + P), at the ends and between them.
    p = bce[:, 0]
    assert bce[:, 1] == pytest.approx(p / (0.25 - 0.25 * p + p))
    assert len(p) > 100
    # Corollary 5.1.1: with beta = alpha it is calibrated.
    calibrated = line(figure, "theorem 5.1, alpha 0.25, beta 0.25").get_xydata()
    assert calibrated[:, 1] == pytest.approx(calibrated[:, 0])
    assert bce[0, 0] == figure.axes[0].get_xlim()[0]
    assert "Thin: theorem 5.1" in note(figure)


def test_a_precision_of_zero_has_no_place_on_a_log_axis():
    frame = points("bce", None, None, seeds=1).with_columns(
        precision=pl.when(pl.col("k") == 1).then(0.0).otherwise(pl.col("precision"))
    )
    figure = calibration(frame)
    assert figure.axes[0].lines[0].get_xdata() == pytest.approx([0.01, 0.001])
    assert "K = 10 to 100" in note(figure)
    with pytest.raises(NothingToDraw):
        calibration(frame.with_columns(precision=0.0))
