import numpy as np
import polars as pl
import pytest

from negrec.reporting.figures.sensitivity import panels, sensitivity
from negrec.reporting.significance import describe
from tests.reporting.figures.drawn import bars, legend, note, texts

METRIC = "test/ndcg_10"


def runs(values: dict[tuple[str, float], list[float]], knob: str = "alpha") -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"sampler": name, knob: setting, "seed": seed, METRIC: value}
            for (name, setting), of in values.items()
            for seed, value in enumerate(of)
        ]
    )


def test_means_and_intervals_in_the_order_of_the_knob():
    # The values are not in order.
    frame = runs({("genni", 2.5): [0.04, 0.06], ("genni", 0): [0.01, 0.03], ("dns", 1): [0.02] * 2})
    figure = sensitivity(frame, "alpha", METRIC, title="Beauty")
    lines = {each.lines[0].get_color(): each for each in figure.axes[0].containers}
    assert len(lines) == 2
    dns, genni = sorted(lines.values(), key=lambda each: len(each.lines[0].get_xdata()))
    assert genni.lines[0].get_xydata() == pytest.approx(np.array([(0, 0.02), (2.5, 0.05)]))
    (up,) = bars(genni)
    for segment, values in zip(up, ([0.01, 0.03], [0.04, 0.06]), strict=True):
        of = describe(values)
        assert segment[:, 1] == pytest.approx([of.low, of.high])
    assert dns.lines[0].get_xydata() == pytest.approx(np.array([(1, 0.02)]))
    assert dns.lines[0].get_marker() != genni.lines[0].get_marker()
    assert dns.lines[0]._dash_pattern != genni.lines[0]._dash_pattern
    assert {"alpha", "NDCG@10 on test (%)", "Beauty"} <= set(texts(figure).split("\n"))
    assert note(figure) == "n = 2 seeds per point; 95% intervals."


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1, 100], "linear"),
        ([1, 101], "log"),
        ([0, 1, 101], "symlog"),  # 0 has no logarithm
        ([0, 1, 2], "linear"),
        ([-1, 1, 1000], "linear"),
    ],
)
def test_scales(values: list[float], scale: str):
    figure = sensitivity(runs({("a", value): [0.1] for value in values}), "alpha", METRIC)
    (axes,) = figure.axes
    assert axes.get_xscale() == scale
    assert axes.get_xticks().tolist() == values
    assert note(figure) == "n = 1 seed per point: no intervals."
    assert not axes.containers[0].has_yerr


def test_a_knob_that_is_missing_in_some_runs():
    frame = pl.concat(
        [runs({("a", 1): [0.1]}), runs({("b", 1): [0.1]}).with_columns(alpha=None)],
        how="vertical_relaxed",
    )
    said = note(sensitivity(frame, "alpha", METRIC))
    assert said.endswith("Not shown, no number: b.")


def test_names_of_any_kind_are_labels():
    # matplotlib leaves labels that begin with "_" out of its legends, and reads formulas in "$".
    names = ["_private", "$x_1$", "", *"abcdef"]
    frame = runs({(name, 1): [0.1] for name in names})
    assert legend(sensitivity(frame, "alpha", METRIC)) == names
    few = sensitivity(frame.filter(pl.col("sampler").is_in(names[:3])), "alpha", METRIC)
    assert [text.get_text() for text in few.axes[0].texts] == names[:3]


def grid() -> pl.DataFrame:
    models, losses, ks = ("sasrec", "gru4rec"), ("bce", "gbce", "softmax"), (1, 4, 16, 64, 256)
    return pl.DataFrame(
        [
            {"model": m, "loss": one, "k": k, "seed": s, METRIC: 0.01 * (i + 1) + 0.001 * (j + s)}
            for i, m in enumerate(models)
            for j, one in enumerate(losses)
            for k in ks
            for s in range(2)
        ]
    )


def test_a_panel_per_model_and_a_line_per_loss():
    figure = panels(grid(), METRIC)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["sasrec", "gru4rec"]
    for i, axes in enumerate(figure.axes):
        assert axes.get_xscale() == "log"
        assert axes.xaxis.get_transform().base == 2
        assert axes.get_xticks().tolist() == [1, 4, 16, 64, 256]
        assert len(axes.containers) == 3
        for j, container in enumerate(axes.containers):
            assert container.lines[0].get_xdata().tolist() == [1, 4, 16, 64, 256]
            # The mean of two seeds is half a thousandth above the first.
            expected = [0.01 * (i + 1) + 0.001 * j + 0.0005] * 5
            assert container.lines[0].get_ydata() == pytest.approx(expected)
    # A loss looks the same in both panels.
    looks = [[c.lines[0].get_marker() for c in axes.containers] for axes in figure.axes]
    assert looks[0] == looks[1]
    assert legend(figure) == ["bce", "gbce", "softmax"]
    assert note(figure) == "n = 2 seeds per point; 95% intervals."


def test_panels_have_a_log_axis_and_say_what_does_not_fit_on_it():
    with pytest.raises(ValueError, match="k must be above 0 on a log axis, got 0"):
        panels(grid().with_columns(k=pl.col("k") - 1), METRIC)


def test_a_panel_alone():
    figure = panels(grid().filter(model="sasrec"), METRIC)
    assert len(figure.axes) == 1
