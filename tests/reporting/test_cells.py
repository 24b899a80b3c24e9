"""What may stand in one table, and what it is called there."""

import math

import pytest

from negrec.errors import InputError
from negrec.reporting import cells, runs
from tests.reporting.fake_runs import write


@pytest.fixture
def made(tmp_path):
    """Writes runs, one for each set of arguments, and reads them back."""

    def make(*settings):
        found = []
        for at, setting in enumerate(settings):
            run = runs.read(write(tmp_path / f"r{at}", **setting))
            assert run is not None
            found.append(run)
        return found

    return make


def test_cells_differ_in_more_than_seed_threads_and_device(made):
    threads = {"config": {"trainer.threads": 2, "trainer.device": "cpu"}}
    found = cells.sort(
        made({"seed": 0}, {"seed": 1} | threads, {"seed": 0, "sampler": "genni", "k": 1})
    )
    (comparison,) = found.comparisons
    assert [(cell.label, cell.n) for cell in comparison.cells] == [("genni", 1), ("uniform", 2)]
    assert [run.seed for run in comparison.cell("uniform").runs] == [0, 1]


@pytest.mark.parametrize(
    "other",
    [
        {"dataset": "ml-1m"},
        {"split": "global_temporal", "config": {"split._target_": "GlobalTemporal"}},
        {"config": {"evaluation.seen": "keep"}},
        {"config": {"trainer.metric": "hr_10"}},
    ],
)
def test_what_is_measured_otherwise_is_another_comparison(made, other):
    # Other hashes are to be expected there, and no reason to refuse.
    found = cells.sort(made({}, other | {"data_hash": "d1", "split_hash": "s1"}))
    assert len(found.comparisons) == 2
    assert len({comparison.title for comparison in found.comparisons}) == 2


def test_titles_say_what_is_measured_otherwise(made):
    found = cells.sort(made({}, {"config": {"evaluation.seen": "keep"}}))
    assert [comparison.title for comparison in found.comparisons] == [
        "beauty leave_one_out seen=filter",
        "beauty leave_one_out seen=keep",
    ]


def test_other_data_in_one_table_is_refused(made):
    found = made({"seed": 0}, {"seed": 1}, {"seed": 2, "data_hash": "other"})
    with pytest.raises(InputError) as error:
        cells.sort(found)
    text = str(error.value)
    assert "beauty leave_one_out: runs with other data (data_hash)" in text
    assert "r0, r1 saw d0; r2 saw other" in text
    assert "runs=r0,r1" in text
    assert "\n" not in text


def test_a_split_may_depend_on_the_seed_but_not_on_the_cell(made):
    by_seed = [{"seed": seed, "split_hash": f"s{seed}"} for seed in range(2)]
    genni = [setting | {"sampler": "genni"} for setting in by_seed]
    assert len(cells.sort(made(*by_seed, *genni)).comparisons) == 1
    genni[1]["split_hash"] = "s9"
    with pytest.raises(InputError, match=r"targets for seed 1 \(split_hash\).*r1 saw s1; r3 saw"):
        cells.sort(made(*by_seed, *genni))


def test_of_two_runs_with_one_seed_the_newest_counts(made):
    found = cells.sort(
        made({"test": 0.1, "written": 200.0}, {"test": 0.2, "written": 300.0}, {"written": 100.0})
    )
    (cell,) = found.comparisons[0].cells
    assert [run.run_id for run in cell.runs] == ["r1"]
    assert [(old.run_id, new.run_id) for old, new in found.superseded] == [
        ("r0", "r1"),
        ("r2", "r1"),
    ]


def test_runs_without_test_values_are_set_aside(made):
    found = made({}, {"seed": 1})
    metrics = {k: v for k, v in found[1].metrics.items() if not k.startswith("test/")}
    from dataclasses import replace

    result = cells.sort([found[0], replace(found[1], metrics=metrics)])
    assert [run.run_id for run in result.untested] == ["r1"]
    assert [cell.n for cell in result.comparisons[0].cells] == [1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([{}], ["uniform"]),
        ([{}, {"sampler": "genni"}], ["uniform", "genni"]),
        # The same sampler everywhere would tell nothing.
        (
            [{}, {"loss": "gbce", "config": {"loss._target_": "GBCE"}}],
            ["bce", "gbce"],
        ),
        # Only where it is needed, and by the short key: sampler.alpha says the same.
        (
            [
                {},
                {"sampler": "genni", "config": {"alpha": 1.0, "sampler.alpha": 1.0}},
                {"sampler": "genni", "config": {"alpha": 2.5, "sampler.alpha": 2.5}},
            ],
            ["uniform", "genni alpha=1", "genni alpha=2.5"],
        ),
        # One knob after the other until all are told apart.
        (
            [{"config": {"a": a, "model.dim": dim}} for a, dim in ((1, 32), (1, 64), (2, 64))],
            ["uniform a=1 dim=32", "uniform a=1 dim=64", "uniform a=2"],
        ),
        # Another key ends alike and says otherwise: the whole key stands.
        (
            [{"config": {"x.k.size": 1, "y.size": 5}}, {"config": {"x.k.size": 2, "y.size": 5}}],
            ["uniform x.k.size=1", "uniform x.k.size=2"],
        ),
    ],
)
def test_labels_are_the_shortest_that_tell_apart(made, settings, expected):
    assert cells.labels(made(*settings)) == expected


def test_labels_cannot_depend_on_the_order_of_folders(made):
    found = made({}, {"sampler": "genni", "config": {"alpha": 1}}, {"sampler": "mixed"})
    assert cells.labels(found[::-1]) == cells.labels(found)[::-1]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"k": 5, "sampler.k": 7}, 5),
        ({"sampler.k": 7}, 7),
        ({"k": "all"}, math.inf),
        ({"sampler.parts.in_batch.k": 25, "sampler.parts.uniform.k": 250}, 275),
        ({"sampler._target_": "negrec.samplers.full.Full"}, math.inf),
    ],
)
def test_negatives_are_those_that_the_loss_sees(config, expected):
    assert cells.negatives(config) == expected


def test_tables_stand_at_equal_k(made):
    (comparison,) = cells.sort(
        made({"k": 256, "sampler": "in_batch"}, {"k": 1}, {"k": 1, "sampler": "genni"})
    ).comparisons
    by_k = comparison.at_equal_k()
    assert {k: [cell.label for cell in of_k.cells] for k, of_k in by_k.items()} == {
        1: ["genni", "uniform"],
        256: ["in_batch"],
    }
    assert list(by_k) == [1, 256]


def test_cost_and_what_was_reached_in_time(made):
    # 4 epochs of 2 s and half a second of validation; the best, 0.1, comes in the third.
    (comparison,) = cells.sort(
        made({"valid": 0.1, "epochs": 4, "best_epoch": 3}, {"valid": 0.2, "seed": 1})
    ).comparisons
    (cell,) = comparison.cells
    assert cell.seconds == pytest.approx(10.0)
    assert cell.seconds_per_epoch == pytest.approx(2.5)
    assert cell.training_seconds == pytest.approx(8.0)
    assert cell.reached_within(6.0, "ndcg_10") == pytest.approx({0: 0.1, 1: 0.2})
    # After 4 s two epochs are over: (1 - e^-2) / (1 - e^-3) of the best.
    share = (1 - math.exp(-2)) / (1 - math.exp(-3))
    assert cell.reached_within(5.9, "ndcg_10") == pytest.approx({0: 0.1 * share, 1: 0.2 * share})
    assert cell.reached_within(1.9, "ndcg_10") == {}
