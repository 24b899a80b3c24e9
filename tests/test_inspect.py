"""``negrec inspect`` on small runs that were really trained."""

import json
import math
import re
from pathlib import Path

import polars as pl
import pytest

from negrec import cli
from negrec.commandline.inspect import draw, log_spaced
from negrec.commandline.trained import trained
from tests import logs

SMALL = [
    *("tracking=none", "dataset.users=150", "dataset.items=60", "trainer.max_epochs=2"),
    *("trainer.batch_size=32", "trainer.threads=1", "trainer.progress=false"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs and their folders, by name."""
    folder = tmp_path_factory.mktemp("inspect")
    with pytest.MonkeyPatch.context() as patch, logs.untouched():
        patch.chdir(folder)
        patch.setenv("NEGREC_CACHE_DIR", str(folder / "cache"))
        found = {}
        for name, words in {
            "bce": [],
            "softmax": ["loss=softmax", "loss.temperature=0.5"],
            "popularity": ["model=popularity"],
            "keep": [
                *("evaluation.seen=keep", "objective=ranking_with_teacher", "mining_start=0"),
            ],
        }.items():
            assert cli.main(["train", *SMALL, *words]) == 0
            new = max(Path("multirun").rglob("run.json"), key=lambda path: path.stat().st_mtime_ns)
            found[name] = (json.loads(new.read_text())["run_id"], new.parent.absolute())
        yield found


@pytest.fixture
def inspect(runs, monkeypatch, capsys, untouched_logging):
    """Types the verb in the folder of the runs; the exit code, what was printed, what was said."""
    monkeypatch.chdir(runs["bce"][1].parents[2])
    monkeypatch.setenv("NEGREC_CACHE_DIR", str(Path("cache").absolute()))
    monkeypatch.setenv("COLUMNS", "100")

    def typed(*words):
        capsys.readouterr()
        code = cli.main(["inspect", *words])
        return code, *capsys.readouterr()

    return typed


def told_target(out):
    found = re.search(r"test target: (\S+) \((\w+)\) at rank (\S+) of (\S+), .* ([\d.]+)\n", out)
    assert found is not None
    item, cohort, rank, ranked, probability = found.groups()
    return item, cohort, int(rank), int(ranked), float(probability)


@pytest.mark.parametrize("name", ["bce", "softmax", "keep"])
def test_the_target_stands_where_the_evaluation_found_it(runs, inspect, name):
    run, folder = runs[name]
    ranks = pl.read_parquet(folder / "ranks.parquet")
    items = pl.read_parquet(folder / "items.parquet")
    users = pl.read_parquet(folder / "users.parquet")
    for row in ranks.head(3).iter_rows(named=True):
        user = str(users["id"][row["user"]])
        code, out, err = inspect(f"run={run}", f"user={user}")
        assert (code, err) == (0, "")
        item, cohort, rank, _, _ = told_target(out)
        assert item == str(items["id"][row["target"] - 1])
        assert rank == row["greater"] + 1
        assert cohort == ("head", "mid", "tail")[row["cohort"]]
        assert (folder / f"inspect-{user}.png").read_bytes().startswith(b"\x89PNG")


def test_sums_of_probabilities_are_what_the_run_says(runs, inspect):
    run, folder = runs["bce"]
    found = trained(run)
    parts, model = found.parts, found.model
    sums = [draw(parts, model, user).total for user in range(150)]
    metrics = json.loads((folder / "results.json").read_text())["metrics"]
    assert sum(sums) / 150 == pytest.approx(metrics["test/probability_sum"])
    _, out, _ = inspect(f"run={run}", f"user={parts.interactions.user_ids[5]}")
    assert f"sum over the catalogue: {sums[5]:,.2f}" in out


def test_probabilities_of_bce_are_sigmoids(runs, inspect):
    run, _ = runs["bce"]
    _, out, _ = inspect(f"run={run}", "user=7", "top=60")
    rows = re.findall(r"^ +\d+ +\S+ +\d+ +(-?[\d.]+) +([\d.]+)", out, re.MULTILINE)
    assert len(rows) > 40
    for score, probability in rows:
        assert float(probability) == pytest.approx(1 / (1 + math.exp(-float(score))), abs=5e-4)


def test_probabilities_of_softmax_are_of_the_sharpened_scores(runs, inspect):
    run, _ = runs["softmax"]
    _, out, _ = inspect(f"run={run}", "user=7", "top=60")
    assert "the softmax over the catalogue" in out
    rows = re.findall(r"^ +\d+ +\S+ +\d+ +(-?[\d.]+) +([\d.]+)", out, re.MULTILINE)
    (first, best), (last, worst) = [tuple(map(float, rows[i])) for i in (0, -1)]
    # Temperature 1/2: e^(2 (s - s')) is the ratio of two probabilities.
    assert best / worst == pytest.approx(math.exp(2 * (first - last)), rel=0.02)
    # The history is left out of the list, but not of the sum.
    assert 0.5 < sum(float(probability) for _, probability in rows) < 1


def test_the_history_is_that_before_the_test_target(runs, inspect):
    run, _ = runs["bce"]
    _, out, _ = inspect(f"run={run}", "user=7")
    page = out.split("top 10")[0]
    items = re.findall(r"^ +(\S+) +\d+ *$", page, re.MULTILINE)
    target = told_target(out)[0]
    assert len(items) >= 2
    assert target not in items  # made-up users take nothing twice
    listed = out.split("top 10")[1].split("predicted probability by rank")[0]
    top = re.findall(r"^ +\d+ +(\S+) +\d+", listed, re.MULTILINE)
    assert len(top) == 10
    assert not set(top) & set(items)


def test_what_cannot_be_looked_at_is_one_line(runs, inspect, monkeypatch):
    run, folder = runs["bce"]

    def refusal(*words):
        code, out, err = inspect(*words)
        assert (code, out) == (2, "")
        (line,) = err.splitlines()
        return line

    assert "run=none: no such run" in refusal("run=none", "user=1")
    assert "there is no user nobody in synthetic" in refusal(f"run={run}", "user=nobody")
    assert "a run and a user are needed" in refusal(f"run={run}")
    assert "top=0 must be a whole number from 1" in refusal(f"run={run}", "user=7", "top=0")
    assert "trained nothing" in refusal(f"run={runs['popularity'][0]}", "user=7")
    assert "was trained on other data" in refusal(f"run={run}", "user=7", "dataset.seed=1")
    path = folder / "run.json"
    record = path.read_text()
    path.write_text(record.replace('"FINISHED"', '"KILLED"'))
    assert f"not finished (KILLED): `negrec train run={run}`" in refusal(f"run={run}", "user=7")
    path.write_text(record)
    best = folder / "checkpoint" / "best.safetensors"
    held = best.read_bytes()
    best.write_bytes(b"torn")
    assert "its best checkpoint cannot be read" in refusal(f"run={run}", "user=7")
    best.write_bytes(held)


def test_help_says_what_a_probability_is(inspect):
    for words in ([], ["--help"]):
        code, out, _ = inspect(*words)
        assert code == 0
        assert "run=ID user=USER" in out
        assert "the sigmoid of its score" in out


def test_ranks_are_spaced_by_their_logarithm():
    assert log_spaced(1) == [1]
    assert log_spaced(10) == [1, 2, 5, 10]
    assert log_spaced(12_101)[-4:] == [2000, 5000, 10_000, 12_101]


def test_a_trained_run_has_its_calibration_among_the_artifacts(runs):
    _, folder = runs["bce"]
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    artifacts = {event["values"]["path"] for event in events if event["kind"] == "artifact"}
    assert "calibration.parquet" in artifacts
