"""``negrec data stats`` as it is typed."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from negrec import cli
from negrec.data.order import patterns

SMALL = ("dataset.users=150", "dataset.items=60")
TRAIN = ("trainer.max_epochs=1", "trainer.threads=1", "trainer.progress=false")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, untouched_logging):
    """A working directory with a table of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NEGREC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    # 30 users take 0 1 2 3 in this order on four days, and again 0 on the fifth; they begin on
    # different days.
    rows = [(u, f"i{t % 4}", f"2024-01-{t + 1 + u % 20:02}") for u in range(30) for t in range(5)]
    pl.DataFrame(rows, schema=["user", "item", "date"], orient="row").write_csv("clicks.csv")
    return tmp_path


@pytest.fixture
def stats(capsys):
    """Types the verb; the exit code, what was printed, what was said."""

    def typed(*words):
        capsys.readouterr()
        code = cli.main(["data", "stats", *words])
        return code, *capsys.readouterr()

    return typed


def saved(folder: str) -> dict[str, object]:
    return json.loads(Path(folder, "stats.json").read_text())


def test_a_table_of_ones_own(stats):
    code, out, err = stats("clicks.csv")
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.startswith("data_stats")] == [
        f"data_stats/clicks/{name}"
        for name in ("popularity.png", "popularity.svg", "stats.json", "stats.md")
    ]
    assert re.search(r"users +30 *\n items +4 *\n interactions +150 *\n", out)
    (found,) = saved("data_stats/clicks")["datasets"]
    # Of 5 interactions of a user the last repeats the first.
    assert found["repeats"] == 0.2
    assert "clicks: 20.0% of the interactions repeat an earlier one" in out
    assert found["times"]["whole_days"]
    assert found["times"]["equal"] == 0
    # 01, 12, 23 and 30, each 30 times.
    rules = found["order"]["shuffled_histories"][0]["rules"]
    assert rules["original"] == 4
    # Equal times there are none: nothing moves.
    assert found["order"]["shuffled_equal_times"][0]["rules"]["mean"] == 4
    splits = found["splits"]
    assert splits["leave_one_out"]["leak"]["train_interactions"] == 90
    # All of one day: a cut by time falls between days.
    assert splits["global_temporal"]["leak"]["later_than_test"] == 0
    assert Path("data_stats/clicks/popularity.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in Path("data_stats/clicks").iterdir()) == [
        *("popularity.png", "popularity.svg", "stats.json", "stats.md")
    ]


def test_without_times_there_is_one_split(stats):
    pl.read_csv("clicks.csv").drop("date").write_csv("plain.csv")
    code, out, _ = stats("plain.csv", "out=here", "shuffles=1")
    assert code == 0
    assert "needs timestamps" in " ".join(out.split())
    assert "plain: there are no times: the order of a history is the file's" in out
    (found,) = saved("here")["datasets"]
    assert found["order"]["shuffled_equal_times"] is None
    assert found["order"]["shuffled_histories"][0]["rules"]["spread"] is None
    assert "needs timestamps" in found["splits"]["global_temporal"]["refused"]


def test_where_nothing_can_be_held_out(stats):
    # Each user took one thing: no history, by time or by place.
    rows = [(f"u{n}", f"i{n % 3}", f"2024-01-{n + 1:02}") for n in range(8)]
    pl.DataFrame(rows, schema=["user", "item", "date"], orient="row").write_csv("single.csv")
    code, out, err = stats("single.csv", "clicks.csv", "shuffles=1")
    assert (code, err) == (0, "")
    text = " ".join(out.split())
    assert "split=leave_one_out needs users with 3 interactions" in text
    assert re.search(r"^ *single +none +8 +0 +0 +- +- +- *$", out, re.MULTILINE)
    found = saved("data_stats/single+clicks")["datasets"][0]
    assert set(found["splits"]) == {"leave_one_out", "global_temporal", "none"}
    # 3, 3 and 2 of 8: differences 0, 1, 1 over the three pairs, times 2 / (2 * 3^2 * 8/3).
    assert found["splits"]["none"]["gini"] == pytest.approx(1 / 12)
    assert Path("data_stats/single+clicks/popularity.png").exists()
    assert stats("single.csv")[0] == 0
    assert Path("data_stats/single/popularity.png").exists()


def test_several_side_by_side(stats, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")  # a pipe has room: nothing is folded or clipped
    Path("more").mkdir()
    table = pl.read_csv("clicks.csv")
    table.head(100).write_csv("more/clicks.csv")
    table.tail(50).drop("date").write_csv("fewer.csv")
    code, out, _ = stats("clicks.csv", "more/clicks.csv", "fewer.csv", "shuffles=2")
    assert code == 0
    assert re.search(r"^ +clicks +clicks \(2\) +fewer *$", out, re.MULTILINE)
    assert re.search(r"^ users +30 +20 +10 *$", out, re.MULTILINE)
    assert re.search(r"^ first time \(UTC\) +2024-01-01 +2024-01-01 +- *$", out, re.MULTILINE)
    assert re.search(r"^ sparsity: empty user-item pairs +0.00%", out, re.MULTILINE)
    assert "global_temporal" in out
    assert "…" not in out
    found = saved("data_stats/clicks+clicks_(2)+fewer")["datasets"]
    assert [each["name"] for each in found] == ["clicks", "clicks (2)", "fewer"]


def test_the_seed_makes_it_reproducible(stats):
    rng = np.random.default_rng(0)
    rows = [(user, item) for user in range(100) for item in rng.zipf(1.5, size=10) % 40]
    pl.DataFrame(rows, schema=["user", "item"], orient="row").write_csv("random.csv")

    def shuffled(*words):
        assert stats("random.csv", *words)[0] == 0
        (found,) = saved("data_stats/random")["datasets"]
        return found["order"]["shuffled_histories"][0]["frequent"]["shuffled"]

    first = shuffled()
    assert first == shuffled()
    assert first != shuffled("seed=1")


def test_settings_of_the_data_are_heard(stats):
    assert stats("clicks.csv", "dataset.duplicates=first", "max_length=2")[0] == 0
    (found,) = saved("data_stats/clicks")["datasets"]
    assert (found["counts"]["interactions"], found["cleaning"]["duplicates"]) == (120, 30)
    assert found["cut"] == 0.5  # 2 of 4 lie before the newest two


def test_rules_are_those_of_the_table(stats):
    assert stats("clicks.csv")[0] == 0
    table = pl.read_csv("clicks.csv").sort("user", "date", maintain_order=True)
    user = table["user"].rank("dense").cast(pl.Int64).to_numpy() - 1
    item = table["item"].str.slice(1).cast(pl.Int64).to_numpy()
    expected = [each._asdict() for each in patterns(user, item)]
    (found,) = saved("data_stats/clicks")["datasets"]
    for each, counted in zip(found["order"]["shuffled_histories"], expected, strict=True):
        assert {kind: each[kind]["original"] for kind in counted} == counted


def test_a_model_is_asked_about_shuffled_histories(stats):
    words = ("dataset=synthetic", *SMALL, "model=sasrec", *TRAIN, "shuffles=2")
    assert stats(*words)[::2] == (0, "")
    (found,) = saved("data_stats/synthetic")["datasets"]
    model = found["model"]
    (run,) = Path("data_stats/synthetic/runs").iterdir()
    results = json.loads((run / "results.json").read_text())
    # What the run measured on the test is what is found before shuffling.
    assert model["ndcg_10"]["original"] == pytest.approx(results["metrics"]["test/ndcg_10"])
    assert model["hr_10"]["original"] == pytest.approx(results["metrics"]["test/hr_10"])
    assert model["run_id"] == results["run_id"]
    assert len(model["jaccard_10"]) == 2
    assert all(0 < each < 1 for each in model["jaccard_10"])
    assert not Path("mlflow.db").exists()
    # The second time nothing is trained, and the same is found.
    before = (run / "results.json").stat().st_mtime_ns
    assert stats(*words)[0] == 0
    assert (run / "results.json").stat().st_mtime_ns == before
    assert saved("data_stats/synthetic")["datasets"][0]["model"] == model
    # And so it is by the run's id.
    by_run = (f"run={model['run_id']}", "paths.runs_dir=data_stats", "out=by_run")
    assert stats(*by_run, "shuffles=2")[0] == 0
    assert saved("by_run")["datasets"][0]["model"] == model


def test_order_is_all_to_a_markov_chain(stats):
    assert (
        stats("clicks.csv", "model=markov", "split=leave_one_out", "evaluation.seen=keep")[0] == 0
    )
    (found,) = saved("data_stats/clicks")["datasets"]
    ndcg = found["model"]["ndcg_10"]
    # Learnt from 0 1 2 of each user, tested on 0 after 0 1 2 3. Nothing is known to follow 3 or 2:
    # 0, 1 and 2 are as popular, and 0 has one of the ranks 1, 2, 3. After 0 or 1, which come last
    # in half of the shuffled histories, another is first, and 0 has rank 2 or 3.
    gain = [1, 1 / np.log2(3), 1 / 2]
    assert ndcg["original"] == pytest.approx(sum(gain) / 3)
    # 150 shuffled histories: standard error 0.006.
    expected = (sum(gain) / 3 + sum(gain[1:]) / 2) / 2
    assert ndcg["mean"] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["shuffles=3"], "a data set is needed"),
        (["clicks.csv", "shuffles=0"], "shuffles must be a whole number from 1, got shuffles=0"),
        (["clicks.csv", "trainer.max_epochs=3"], "negrec data stats has no trainer.max_epochs="),
        (["clicks.csv", "out=a", "out=b"], "out is given twice"),
        (["clicks.csv", "dataset.min_ratings=3"], "dataset.min_rating"),
        (["dataset=beuty"], "did you mean beauty"),
        (["nothing.csv"], "there is no file nothing.csv"),
        (["clicks.csv", "model=sasrce"], "did you mean sasrec"),
        (["clicks.csv", "model=sasrec,mf"], "one model can be trained at a time"),
        (["clicks.csv", "model=sasrec", "trainer.epoch=3"], "there is no key trainer.epoch"),
        (["run=abcd1234"], "no such run"),
        (["run=abcd1234", "clicks.csv"], "leave out the others"),
        (["run=abcd1234", "seed=3"], "seed= has no say in a finished run"),
        (["clicks.csv", "--cfg", "job"], "negrec data stats has no --cfg"),
        (["clicks.csv", "out=clicks.csv"], "cannot write to clicks.csv"),
        (["clicks.csv", "out=clicks.csv/deeper"], "choose another folder with out=FOLDER"),
    ],
)
def test_bad_input_is_one_line(stats, words, told):
    code, out, err = stats(*words)
    assert code == 2
    assert err.count("\n") == 1
    assert told in err
    assert "After cleaning" not in out
    assert not Path("data_stats").exists() or not list(Path("data_stats").rglob("stats.*"))


def test_the_help_page(stats):
    code, out, _ = stats("--help")
    assert code == 0
    assert "negrec data stats dataset=NAME" in out
    assert stats()[1] == out


def test_published_counts(real_data, stats):
    """Table 1 of S3-Rec (arXiv:2008.07873): Beauty has mean length 8.9 and sparsity 99.93%."""
    code, out, _ = stats("dataset=beauty", f"paths.data_dir={real_data}")
    assert code == 0
    for label, value in (
        *(("users", "22,363"), ("items", "12,101"), ("interactions", "198,502")),
        *(("mean", "8.9"), ("sparsity: empty user-item pairs", "99.93%")),
    ):
        assert re.search(rf"^ {label} +{value}\n?", out, re.MULTILINE)
    (found,) = saved("data_stats/beauty")["datasets"]
    cohorts = found["splits"]["global_temporal"]["cohorts"]
    # Prakash et al., section 5.2: about 20% of Beauty's items are mid and 74% tail, and a head
    # item has 14 times the users of a tail item (of a larger edition of the data).
    assert cohorts["mid"]["share"] == pytest.approx(0.20, abs=0.025)
    assert cohorts["tail"]["share"] == pytest.approx(0.74, abs=0.025)
    assert cohorts["head"]["median_users"] / cohorts["tail"]["median_users"] == pytest.approx(
        14, abs=4
    )
    assert not np.isnan(found["splits"]["leave_one_out"]["gini"])
