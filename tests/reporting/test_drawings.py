"""What the figures of a report are drawn from, in numbers."""

import math

import numpy as np
import polars as pl
import pytest

from negrec.reporting import cells, drawings, knobs, runs, significance
from negrec.reporting.figures.style import NothingToDraw
from tests.reporting.fake_runs import write


@pytest.fixture
def compare(tmp_path):
    """A comparison of runs, one for each set of arguments."""

    def make(*settings):
        found = []
        for setting in settings:
            folder = tmp_path / f"r{len([*tmp_path.iterdir()])}"
            run = runs.read(write(folder, **setting))
            assert run is not None
            found.append(run)
        (comparison,) = cells.sort(found).comparisons
        return comparison

    return make


def alpha(value, seed=0, **more):
    """A run of genni whose test values say the opposite of its validation."""
    valid = more.pop("valid", 0.01 * value + 0.001 * seed)
    config = {"alpha": value, "sampler.alpha": value, **more.pop("config", {})}
    return {"sampler": "genni", "seed": seed, "valid": valid, "test": 0.9 - valid} | {
        "config": config,
        **more,
    }


def named(comparison):
    return {drawing.name: drawing for drawing in knobs.of_comparison(comparison)}


def test_a_knob_is_shown_by_validation_at_the_best_epoch(compare):
    comparison = compare(*(alpha(value, seed) for value in (1.0, 2.0, 4.0) for seed in (0, 1)))
    assert knobs.swept(comparison.runs) == ["alpha"]  # sampler.alpha always agrees
    (drawing,) = named(comparison).values()
    assert drawing.name == "sensitivity-alpha"
    assert drawing.caption.startswith("NDCG@10 on validation by alpha")
    (axes,) = drawing.draw().axes
    assert axes.get_ylabel() == "NDCG@10 on validation (%)"
    (container,) = axes.containers
    # The mean of alpha and alpha + 0.1 hundredths.
    expected = [[1.0, 0.0105], [2.0, 0.0205], [4.0, 0.0405]]
    assert container.lines[0].get_xydata() == pytest.approx(np.array(expected))


def test_many_values_are_trials_and_the_best_is_that_of_validation(compare):
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    drawing = named(compare(*map(alpha, values)))["trials-alpha"]
    (axes,) = drawing.draw().axes
    points, best = axes.lines
    assert points.get_xydata() == pytest.approx(np.array([(v, 0.01 * v) for v in values]))
    # On test alpha = 1 is the best: 0.9 - 0.01.
    assert best.get_xydata() == pytest.approx(np.array([(8.0, 0.08)]))


def test_two_knobs_make_a_heat_map_of_validation(compare):
    def run(x, y, valid, seed=0):
        return alpha(x, seed, valid=valid, config={"beta": y})

    comparison = compare(
        *(run(1.0, 0.1, 0.02 + s, i) for i, s in enumerate((0.001, 0.002, 0.003))),
        *(run(1.0, 0.2, 0.03 + s, i) for i, s in enumerate((0.003, 0.001, 0.002))),
        *(run(2.0, 0.1, 0.01 + s, i) for i, s in enumerate((0.001, 0.003, 0.002))),
        run(2.0, 0.2, math.nan),  # no epoch was ever measured
    )
    frame = knobs.heatmap_frame(comparison.cells, "alpha", "beta", "valid/ndcg_10")
    rows = {(row["alpha"], row["beta"]): row for row in frame.iter_rows(named=True)}
    assert rows.keys() == {(1.0, 0.1), (1.0, 0.2), (2.0, 0.1)}
    assert [rows[pair]["valid/ndcg_10"] for pair in sorted(rows)] == pytest.approx(
        [0.022, 0.032, 0.012]
    )
    best = {0: 0.033, 1: 0.031, 2: 0.032}
    assert rows[1.0, 0.2]["p"] is None
    assert rows[1.0, 0.1]["p"] == pytest.approx(
        significance.compare(best, {0: 0.021, 1: 0.022, 2: 0.023}).p
    )
    assert {row["n"] for row in rows.values()} == {3}
    image = named(comparison)["heatmap-genni-beta-alpha"].draw().axes[0].images[0].get_array()
    # Rows: alpha; columns: beta.
    assert image[0].tolist() == pytest.approx([0.022, 0.032])
    assert image[1, 0] == pytest.approx(0.012)


def test_a_heat_map_without_a_number_is_none(compare):
    grid = [alpha(x, valid=math.nan, config={"beta": y}) for x in (1.0, 2.0) for y in (0.1, 0.2)]
    with pytest.raises(NothingToDraw):
        named(compare(*grid))["heatmap-genni-beta-alpha"].draw()


def test_knobs_that_end_alike_have_figures_of_their_own(compare):
    def run(a, b):
        return alpha(1.0, config={"sampler.parts.a.k": a, "sampler.parts.b.k": b})

    names = named(compare(run(1, 1), run(1, 2), run(2, 1), run(2, 2)))
    assert {name for name in names if name.startswith("sensitivity")} == {
        "sensitivity-sampler.parts.a.k",
        "sensitivity-sampler.parts.b.k",
    }


def test_panels_by_model_loss_and_negatives(compare):
    runs_ = [
        {"k": k, "valid": 0.01 * k * (1 + at), "choices": {"model": model}, "loss": loss}
        | {"config": {"model.name": model, "loss.name": loss}}
        for model in ("sasrec", "gru4rec")
        for at, loss in enumerate(("bce", "gbce"))
        for k in (1, 4)
    ]
    figure = named(compare(*runs_))["panels"].draw()
    assert {axes.get_title(loc="left") for axes in figure.axes} == {"sasrec", "gru4rec"}
    for axes in figure.axes:
        drawn = [container.lines[0].get_xydata() for container in axes.containers]
        expected = [[(1, 0.01), (4, 0.04)], [(1, 0.02), (4, 0.08)]]
        assert sorted(map(np.ndarray.tolist, drawn)) == pytest.approx(np.array(expected))


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        # k / (V - 1) = 4 / 100; BCE has beta = 1, gBCE 1 - t (1 - alpha).
        ({"loss": "bce", "k": 4}, (0.04, 1.0)),
        ({"loss": "gbce", "k": 4, "config": {"loss.t": 0.75}}, (0.04, 1 - 0.75 * 0.96)),
        ({"loss": "sampled_softmax", "k": 4}, (None, None)),
        ({"loss": "bce", "k": 4, "sampler": "popularity"}, (None, None)),
        ({"loss": "bce", "k": None}, (None, None)),
    ],
)
def test_theorem_5_1_is_for_uniform_negatives_and_its_own_losses(tmp_path, setting, expected):
    folder = write(tmp_path / "r", **setting)
    items = pl.DataFrame({"item": range(1, 102), "id": range(101), "count": 1})
    items.write_parquet(folder / "items.parquet")
    run = runs.read(folder)
    assert run is not None
    assert drawings.theorem_5_1(run) == pytest.approx(expected)


def test_ranks_over_data_sets_need_five_of_them(tmp_path):
    def comparisons(data_sets):
        found = []
        for at in range(data_sets):
            for sampler, value in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
                # On the first data set a is the best, on all others c.
                test = 1.0 if (at, sampler) == (0, "a") else value
                folder = tmp_path / f"{data_sets}-{at}-{sampler}"
                found.append(runs.read(write(folder, sampler=sampler, dataset=f"d{at}", test=test)))
        return cells.sort([run for run in found if run]).comparisons

    assert [*drawings.over_data_sets(comparisons(4), "hr_10")] == []
    (drawing,) = drawings.over_data_sets(comparisons(5), "hr_10")
    texts = {text.get_text().strip() for text in drawing.draw().axes[0].texts}
    # Ranks of c: 2 and four times 1; of b: 3 and four times 2; of a: 1 and four times 3.
    assert {"c (1.20)", "b (2.20)", "a (2.60)"} <= texts


def test_the_caption_states_the_rule_of_the_front(compare):
    from negrec.reporting import verdict

    comparison = compare({"sampler": "genni"}, {"sampler": "uniform"})
    found = verdict.answer(comparison, "hr_10")
    made = {d.name: d for d in drawings.of_comparison(found, "hr_10", 10, {})}
    assert "as good in both and better in one" in made["balance"].caption
