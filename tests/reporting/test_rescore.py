"""Rescoring of runs that were really trained, and of ranks worked out by hand."""

import csv
import json
import math
import shutil
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from negrec import cli
from negrec.commandline.rescore import main
from negrec.errors import InputError
from negrec.evaluation.cohorts import popularity_cohorts
from negrec.reporting import runs
from negrec.reporting.rescore import Groups, of_run
from tests import logs

SMALL = [
    *("tracking=none", "dataset.users=150", "dataset.items=60", "trainer.max_epochs=2"),
    *("trainer.batch_size=32", "trainer.threads=1", "trainer.progress=false"),
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of all runs: three of two samplers, and one with several targets per user."""
    root = tmp_path_factory.mktemp("rescore")
    several = ["split=global_temporal", "split.target=all", "split.catalogue=train"]
    with pytest.MonkeyPatch.context() as patch, logs.untouched():
        patch.chdir(root)
        patch.setenv("NEGREC_CACHE_DIR", str(root / "cache"))
        for folder, words in {
            "small/0": [],
            "small/1": ["seed=1"],
            "small/2": ["sampler=popularity"],
            "several/0": [*several, "dataset.items=300", "dataset.users=60"],
        }.items():
            words = [word for word in SMALL if word.split("=")[0] not in str(words)] + words
            assert cli.main(["train", *words, f"hydra.run.dir=multirun/{folder}"]) == 0
    return root


@pytest.fixture
def rescore(trained, monkeypatch, capsys):
    """Types the verb in the folder of the runs; what was printed."""
    monkeypatch.chdir(trained)

    def typed(*words):
        capsys.readouterr()
        assert main(words) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return typed


def run_of(root, name):
    found = runs.read(root / "multirun" / name)
    assert found is not None
    return found


def saved(root, folder, name="rescore.json"):
    return json.loads((root / "multirun" / folder / name).read_text())


def lines(out, label):
    """The cells of the lines of a metric."""
    rows = iter(line.split() for line in out.splitlines())
    found = []
    for row in rows:
        if row[:1] == [label]:
            found.append(row[1:])
            for following in rows:
                if not following:
                    break
                found.append(following)
            break
    return found


# ---- what was measured is found again


@pytest.mark.parametrize("name", ["small/0", "several/0"])
def test_the_default_settings_give_what_the_run_measured(trained, rescore, name):
    run = run_of(trained, name)
    before = (run.folder / "results.json").read_bytes()
    rescore(f"run={run.run_id}")
    assert (run.folder / "results.json").read_bytes() == before
    (record,) = saved(trained, name)["runs"]
    recomputed = {k: v for k, v in record["metrics"].items() if not k.startswith("items_")}
    measured = {
        key.removeprefix("test/"): value
        for key, value in json.loads(before)["metrics"].items()
        if key.startswith("test/")
    }
    of_lists = ("coverage", "arp", "exposure", "novelty", "probability")
    expected = {key: value for key, value in measured.items() if not key.startswith(of_lists)}
    assert recomputed == pytest.approx(expected, nan_ok=True)
    assert set(recomputed) == set(expected)
    assert len(expected) > 40


def test_the_run_with_several_targets_has_cold_ones_and_recall(trained):
    # What the test above compares must be there.
    found = run_of(trained, "several/0").metrics
    assert found["test/n_cold"] > 0
    assert found["test/hr_10_warm"] > found["test/hr_10"]
    assert found["test/recall_10"] != found["test/hr_10"]


def test_other_cutoffs_and_groups_by_a_second_implementation(trained, rescore):
    run = run_of(trained, "small/2")
    rescore(f"run={run.run_id}", "cutoffs=7,3", "cohorts=items:0.1,0.25,0.5", "hr", "balance")
    record = saved(trained, "small/2")
    assert record["groups"] == ["g1", "g2", "g3", "g4"]
    found = record["runs"][0]["metrics"]
    items = pl.read_parquet(run.folder / "items.parquet")
    place = {
        item: at for at, item in enumerate(items.sort(-items["count"], "item")["item"].to_list())
    }
    n = len(items)
    by_group: dict[str, list[float]] = {}
    for row in run.targets().iter_rows(named=True):
        assert row["ties"] == 0
        at = place[row["target"]]
        group = 1 + (at >= n // 10) + (at >= n // 4) + (at >= n // 2)
        by_group.setdefault(f"g{group}", []).append(row["greater"] < 7)
    assert (found["items_g1"], found["items_g4"]) == (n // 10, n - n // 2)
    assert sum(map(len, by_group.values())) == 150
    for name, hits in by_group.items():
        assert found[f"n_{name}"] == len(hits)
        assert found[f"hr_7_{name}"] == pytest.approx(np.mean(hits))
    kinds = {name.rsplit("_g", 1)[0] for name in found}
    assert kinds == {"n", "n_cold", "items", "hr_3", "hr_7", "balance_3", "balance_7"}


def write(folder, targets, counts, **config):
    """A run's folder with the ranks of some targets, (user, target, greater, ties)."""
    folder.mkdir(parents=True)
    frame = pl.DataFrame(targets, schema=["user", "target", "greater", "ties"], orient="row")
    frame.with_columns(cohort=pl.lit(0, dtype=pl.Int8)).write_parquet(folder / "ranks.parquet")
    pl.DataFrame({"item": range(1, len(counts) + 1), "count": counts}).write_parquet(
        folder / "items.parquet"
    )
    config = {"evaluation.cutoffs": [1], "trainer.metric": "ndcg_10", "seed": 0, **config}
    record = {"run_id": folder.name, "status": "FINISHED", "config": config, "key": "k"}
    record |= {"choices": {"dataset": "made"}, "data_hash": "d", "split_hash": "s", "version": "0"}
    (folder / "run.json").write_text(json.dumps(record))
    results = {"epochs": 1, "best_epoch": 1, "converged": False, "metrics": {"test/n": 4}}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "events.jsonl").write_text("")
    found = runs.read(folder)
    assert found is not None
    return found


@pytest.fixture
def by_hand(tmp_path):
    # Item 3 is the most popular, 1 follows, then 2 and 4. The last target is cold; the third ties
    # with one other item, so it is at position 2 or 3.
    targets = [(0, 3, 0, 0), (1, 1, 4, 0), (2, 4, 1, 1), (3, 0, 4, 0)]
    return write(tmp_path / "multirun" / "byhand", targets, [50, 10, 100, 5])


def test_metrics_by_hand(by_hand):
    found = of_run(by_hand, Groups.of("counts:50"), [2])
    # Head: items 3 and 1, one hit of two targets. Tail: items 2 and 4, position 2 or 3: half a hit.
    assert (found["hr_2_head"], found["hr_2_tail"]) == (0.5, 0.5)
    assert (found["items_head"], found["items_tail"]) == (2, 2)
    assert (found["n"], found["n_head"], found["n_tail"], found["n_cold"]) == (4, 2, 1, 1)
    # In all 1.5 hits: of four targets, and of three without the cold one.
    assert (found["hr_2"], found["hr_2_warm"]) == (0.375, 0.5)
    # 1 for the first, half of 1 / log2(3) for the third.
    assert found["ndcg_2"] == pytest.approx((1 + 0.5 / math.log2(3)) / 4)
    assert found["balance_2"] == 1
    # With one item on top its group has all hits but half a one of three groups:
    # gini of 1, 0, .5 is sum |x - y| / (2 n^2 mean) = 2 (1 + .5 + .5) / (2 x 9 x .5) = 4 / 9.
    found = of_run(by_hand, Groups.of("counts:100,50"), [2])
    assert [found[f"hr_2_{name}"] for name in ("head", "mid", "tail")] == [1, 0, 0.5]
    assert found["balance_2"] == pytest.approx(5 / 9)


def test_a_group_without_targets_has_no_rate_and_the_table_says_so(by_hand, monkeypatch, capsys):
    monkeypatch.chdir(by_hand.folder.parents[1])
    assert main(["run=byhand", "cohorts=counts:10,7"]) == 0
    out = capsys.readouterr().out
    assert lines(out, "targets") == [["4", "2", "0", "1", "3"]]
    assert lines(out, "items")[0] == ["3", "0", "1"]
    assert lines(out, "HR@1")[0] == ["25.00", "50.00", "–", "0.00", "33.33"]
    assert "no balance: no target in mid" in out
    metrics = saved(by_hand.folder.parents[1], "byhand")["runs"][0]["metrics"]
    assert metrics["balance_1"] is None
    assert "WARNING" not in out


def test_sampled_ranking_keeps_its_warning(tmp_path, monkeypatch, capsys):
    write(tmp_path / "multirun" / "r", [(0, 1, 0, 0)], [2, 1], **{"evaluation.sampled": 100})
    monkeypatch.chdir(tmp_path)
    assert main(["run=r"]) == 0
    assert "WARNING: ranked among 100 random items" in capsys.readouterr().out


# ---- groups


@given(st.lists(st.integers(0, 60), min_size=1, max_size=40))
def test_three_groups_are_the_cohorts_of_the_evaluation(counts):
    counts = np.array(counts)
    thirds = Groups.of("3")
    assert thirds.names == ("head", "mid", "tail")
    assert thirds.of_items(counts).tolist() == popularity_cohorts(counts).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Counts 40, 30, 20, 10 of items 2, 1, 4, 3; cumulated 40, 70, 90, 100.
        ("2", [1, 0, 1, 1]),
        ("mass:0.8", [0, 0, 1, 1]),
        ("mass:0.7", [1, 0, 1, 1]),  # below 70, not at it
        ("mass:0.2,0.95", [0, 0, 2, 1]),  # 40 and 30 alone are above 20
        ("items:0.25", [1, 0, 1, 1]),
        ("items:0.5,0.75", [0, 0, 2, 1]),
        ("items:0.7", [0, 0, 1, 1]),  # 2.8 items: two whole ones
        ("counts:30,20", [0, 0, 2, 1]),
        ("counts:30.5", [1, 0, 1, 1]),
    ],
)
def test_groups_by_hand(text, expected):
    assert Groups.of(text).of_items(np.array([30, 40, 10, 20])).tolist() == expected


def test_cuts_are_exact():
    # In floats .29 x 100 is 28.999999999999996, and 1/10 has no exact value.
    assert (Groups.of("items:0.29").of_items(np.ones(100, dtype=int)) == 0).sum() == 29
    tenths = Groups.of("10").of_items(np.full(100, 7))
    # Below each tenth of the total: one item fewer in the first group, one more in the last.
    assert np.bincount(tenths).tolist() == [9, *[10] * 8, 11]
    # A long decimal: its denominator times a count is beyond 64 bits.
    long = Groups.of("mass:0.33333333333333333333")
    assert long.cuts == (Fraction(33333333333333333333, 10**20),)
    assert long.of_items(np.full(6, 10**6)).tolist() == [0, 1, 1, 1, 1, 1]


def test_equal_counts_stand_by_id():
    assert Groups.of("items:0.5").of_items(np.ones(4, dtype=int)).tolist() == [0, 0, 1, 1]


def test_names_by_number():
    assert Groups.of("2").names == ("head", "tail")
    assert Groups.of("4").names == ("g1", "g2", "g3", "g4")


# ---- sweeps


def test_a_sweep_is_a_line_per_cell_with_its_spread(trained, rescore):
    out = rescore("sweep=small", "cutoffs=4", "hr")
    of = {run["cell"]: [] for run in saved(trained, "small")["runs"]}
    for run in saved(trained, "small")["runs"]:
        of[run["cell"]].append(run["metrics"]["hr_4"])
    assert {cell: len(values) for cell, values in of.items()} == {"uniform": 2, "popularity": 1}
    first, second = of["uniform"]
    mean, sd = (first + second) / 2, abs(first - second) / math.sqrt(2)
    (popularity, uniform) = lines(out, "HR@4")
    assert popularity[:3] == ["popularity", "1", f"{100 * of['popularity'][0]:.2f}"]
    assert uniform[:5] == ["uniform", "2", f"{100 * mean:.2f}", "±", f"{100 * sd:.2f}"]
    assert "runs: 3 finished" in out
    with (trained / "multirun" / "small" / "rescore.csv").open(newline="") as file:
        rows = {(row["cell"], row["metric"]): row for row in csv.DictReader(file)}
    row = rows["uniform", "hr_4"]
    assert row["comparison"] == "synthetic leave_one_out"
    assert row["n"] == "2"
    assert (float(row["mean"]), float(row["sd"])) == pytest.approx((mean, sd))
    # t(.975, 1) = 12.7062
    assert float(row["high"]) == pytest.approx(mean + 12.7062 * sd / math.sqrt(2), abs=1e-5)
    assert rows["popularity", "hr_4"]["sd"] == ""
    assert {name for _, name in rows} >= {"hr_4_head", "hr_4_mid", "hr_4_tail", "n_tail"}
    assert not any(name.startswith(("ndcg", "balance", "mrr")) for _, name in rows)


def test_other_targets_stand_in_a_table_of_their_own(trained, rescore):
    for name, source in (("a", "small/0"), ("b", "several/0")):
        (trained / "multirun" / "both" / name).mkdir(parents=True)
        for file in (trained / "multirun" / source).glob("*.*"):
            if file.is_file():
                shutil.copy(file, trained / "multirun" / "both" / name)
    out = rescore("sweep=both", "mrr")
    assert "synthetic global_temporal: test results" in out
    assert "synthetic leave_one_out: test results" in out
    assert len([line for line in out.splitlines() if line.split()[:1] == ["MRR"]]) == 2


# ---- refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], None),
        (["run=none"], "run=none: no such run"),
        (["sweep=none"], "sweep=none: no such sweep"),
        (["sweep=small", "run=x"], "run=ID or sweep=NAME"),
        (["hr"], "run=ID or sweep=NAME"),
        (["sweep=small", "cutoffs=0"], "cutoffs=0 must be whole numbers from 1"),
        (["sweep=small", "cutoffs=1,x"], "cutoffs=1,x must be"),
        (["sweep=small", "cutoffs="], "cutoffs= must be"),
        (["sweep=small", "coverage"], "coverage cannot be recomputed"),
        (["sweep=small", "exposure_gini_10"], "exposure_gini_10 cannot be recomputed"),
        (["sweep=small", "hr_10"], "hr cutoffs=10"),
        (["sweep=small", "precision"], "there is no metric 'precision'"),
        (["sweep=small", "recall"], "recall is the hit rate where every user has one target"),
        (["sweep=small", "k=3"], "negrec rescore has no k="),
        (["sweep=small", "-m"], "negrec rescore has no -m"),
        (["sweep=small", "cohorts=2", "cohorts=3"], "cohorts is given twice"),
        (["sweep=small", "cohorts="], "2 to 10"),
        (["sweep=small", "cohorts=1"], "2 to 10"),
        (["sweep=small", "cohorts=11"], "2 to 10"),
        (["sweep=small", "cohorts=thirds"], "2 to 10"),
        (["sweep=small", "cohorts=share:0.5"], "'share' is not one of mass, items, counts"),
        (["sweep=small", "cohorts=items:"], "no list of numbers"),
        (["sweep=small", "cohorts=items:1/0"], "no list of numbers"),
        (["sweep=small", "cohorts=counts:nan"], "no list of numbers"),
        (["sweep=small", "cohorts=items:0.8,0.2"], "shares rise between 0 and 1"),
        (["sweep=small", "cohorts=items:0.2,0.2"], "shares rise between 0 and 1"),
        (["sweep=small", "cohorts=mass:0,0.2"], "shares rise between 0 and 1"),
        (["sweep=small", "cohorts=mass:20"], "shares rise between 0 and 1"),
        (["sweep=small", "cohorts=counts:10,100"], "least counts fall"),
        (["sweep=small", "cohorts=counts:0"], "least counts fall"),
        (["sweep=small", "cohorts=counts:9,8,7,6,5,4,3,2,1,1"], "at most 10 groups"),
    ],
)
def test_what_cannot_be_meant_is_one_line(trained, monkeypatch, capsys, words, said):
    monkeypatch.chdir(trained)
    if said is None:
        assert main(words) == 0
        assert "cohorts=items:0.2,0.8" in capsys.readouterr().out
        return
    before = sorted(trained.rglob("rescore.*"))
    with pytest.raises(InputError) as error:
        main(words)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""
    assert sorted(trained.rglob("rescore.*")) == before


def test_a_damaged_or_unfinished_run_is_one_line(by_hand, monkeypatch):
    monkeypatch.chdir(by_hand.folder.parents[1])
    ranks = by_hand.folder / "ranks.parquet"
    held = ranks.read_bytes()
    ranks.write_bytes(held[:40])
    with pytest.raises(InputError, match=r"byhand cannot be rescored: ranks\.parquet"):
        main(["run=byhand"])
    ranks.unlink()
    with pytest.raises(InputError, match=r"ranks\.parquet in .* is missing or damaged"):
        main(["run=byhand"])
    ranks.write_bytes(held)
    record = by_hand.folder / "run.json"
    text = record.read_text()
    record.write_text(text.replace("FINISHED", "KILLED"))
    with pytest.raises(InputError, match=r"not finished \(KILLED\): `negrec train run=byhand`"):
        main(["run=byhand"])
    record.write_text(text)
    (by_hand.folder / "results.json").write_text("{")
    with pytest.raises(InputError, match="run=byhand: files of it are missing or damaged"):
        main(["run=byhand"])
    assert not list(Path.cwd().rglob("rescore.*"))
