"""``negrec refit`` on small runs: what is trained, on what, for how long."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch

from negrec import cli
from negrec.commandline.trained import trained
from negrec.training.checkpoint import Checkpoints, load
from tests import logs, toy

SMALL = [
    *("tracking=none", "diagnostics=none", "trainer.threads=1", "trainer.progress=false"),
    *("model.dim=8", "model.blocks=1", "model.heads=1", "max_length=8", "trainer.batch_size=16"),
    *("trainer.max_epochs=3", "dataset.attributes=attrs.csv"),
]
PLAIN = ["trainer.schedule=linear", "split=global_temporal", "split.fractions=[0.6,0.2,0.2]"]
FIRST = ["model=s3rec", "objective=s3rec_pretrain", "split=leave_one_out", "trainer.max_epochs=2"]


def read(path):
    return json.loads(path.read_text())


def newest():
    """The folder of the run that was begun last."""
    files = [path for path in Path("multirun").rglob("run.json") if "pretraining" not in path.parts]
    return max(files, key=lambda path: path.stat().st_mtime_ns).parent


def train(*words):
    """The id and the folder of a new run."""
    given = {word.split("=")[0] for word in words}
    rest = [word for word in SMALL if word.split("=")[0] not in given]
    data = ["dataset=file", "dataset.path=clicks.csv"]
    assert cli.main(["train", *data, *rest, *words]) == 0
    folder = newest()
    return read(folder / "run.json")["run_id"], folder


def best_was(folder, epoch):
    """As if an epoch before the last had been the best."""
    results = read(folder / "results.json")
    results |= {"best_epoch": epoch, "converged": True}
    (folder / "results.json").write_text(json.dumps(results))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a table of clicks, a newer one, attributes, and finished runs by name."""
    folder = tmp_path_factory.mktemp("refit")
    rows = [
        (u, f"i{item}", 10**9 + t)
        for u, items in enumerate(toy.random_histories(60, 30, 9, 1))
        for t, item in enumerate(items)
    ]
    later = [
        *rows,
        *((u, "new", 10**9 + 100) for u in range(5)),
        (99, "i1", 10**9),
        (99, "i2", 2e9),
    ]
    for name, table in (("clicks", rows), ("newer", later)):
        pl.DataFrame(table, schema=["user", "item", "timestamp"], orient="row").with_columns(
            pl.col("timestamp").cast(pl.Int64)
        ).write_csv(folder / f"{name}.csv")
    items = pl.DataFrame({"item": [f"i{n}" for n in range(1, 31)], "attribute": [0, 1, 2] * 10})
    items.write_csv(folder / "attrs.csv")
    with pytest.MonkeyPatch.context() as patch, logs.untouched():
        patch.chdir(folder)
        patch.setenv("NEGREC_CACHE_DIR", str(folder / "cache"))
        runs = {"plain": train(*PLAIN)}
        best_was(runs["plain"][1], 2)
        yield folder, {name: (run, place.absolute()) for name, (run, place) in runs.items()}


@pytest.fixture
def refit(world, monkeypatch, capsys, untouched_logging):
    """Types the verb; the exit code, what was printed, what was said."""
    folder, runs = world
    monkeypatch.chdir(folder)
    monkeypatch.setenv("NEGREC_CACHE_DIR", str(folder / "cache"))

    def typed(run, *words):
        capsys.readouterr()
        code = cli.main(["refit", f"run={runs[run][0] if run in runs else run}", *words])
        return code, *capsys.readouterr()

    typed.runs = runs
    return typed


def weights(folder):
    return load(Checkpoints(folder / "checkpoint").best).part("model")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def rows_of(path):
    return len(pl.read_csv(path))


def test_all_data_for_the_best_number_of_epochs_with_the_old_course(refit, capsys):
    run, _ = refit.runs["plain"]
    code, out, _ = refit("plain")
    assert code == 0
    folder = newest()
    record = read(folder / "run.json")
    assert record["run_id"] != run
    assert record["refit_of"] == run
    assert folder.parent == Path("multirun/refit")
    assert f"negrec recommend run={record['run_id']}" in out
    assert f'"negrec.refit_of": "{run}"' in (folder / "events.jsonl").read_text()
    results = read(folder / "results.json")
    assert results["epochs"] == results["best_epoch"] == 2
    found = trained(record["run_id"])
    assert len(found.parts.split.train.values) == rows_of("clicks.csv")
    assert found.parts.split.info.n_items == 30
    # What a person would type: two epochs of a line that ends after three.
    words = [word for word in PLAIN if not word.startswith("split")]
    ours = ["split=none", "trainer.metric=null", "trainer.schedule_epochs=3"]
    _, by_hand = train(*words, *ours, "trainer.max_epochs=2")
    assert same(weights(folder), weights(by_hand))
    _, other = train(*words, "split=none", "trainer.metric=null", "trainer.max_epochs=2")
    assert not same(weights(folder), weights(other))
    # Typed again it is there already.
    before = sorted(Path("multirun").rglob("run.json"))
    code, out, _ = refit("plain")
    assert code == 0
    assert "was trained on all data before" in out
    assert f"negrec recommend run={record['run_id']}" in out
    assert sorted(Path("multirun").rglob("run.json")) == before
    # One that was cut off goes on.
    first = weights(folder)
    (folder / "run.json").write_text(json.dumps({**record, "status": "KILLED"}))
    code, out, _ = refit("plain")
    assert code == 0
    assert "resumed at epoch 3" in out
    assert read(folder / "run.json") == {**record, "status": "FINISHED"}
    assert same(first, weights(folder))
    # And it can be used.
    assert cli.main(["recommend", f"run={record['run_id']}", "-o", "recs.parquet"]) == 0
    assert len(pl.read_parquet("recs.parquet")) == 60 * 20


def test_newer_data(refit):
    code, out, _ = refit("plain", "dataset.path=newer.csv")
    assert code == 0
    assert "all of other data than it was trained on" in out
    found = trained(read(newest() / "run.json")["run_id"])
    data = found.parts.interactions
    assert data.n_interactions == rows_of("newer.csv")
    assert {"new"} | {f"i{n}" for n in range(1, 31)} == set(data.item_ids)
    assert data.n_users == 61


def test_a_run_whose_best_epoch_was_its_last_is_told(refit):
    run, folder = refit.runs["plain"]
    kept = (folder / "results.json").read_text()
    results = {**json.loads(kept), "best_epoch": 3, "converged": False}
    (folder / "results.json").write_text(json.dumps(results))
    try:
        code, out, _ = refit("plain", "trainer.max_epochs=0")
    finally:
        (folder / "results.json").write_text(kept)
    assert code == 0
    assert f"first train it longer with `negrec train run={run} trainer.max_epochs=6`" in out


def test_settings_of_an_experiments_split_are_taken_out(refit):
    # Its file sets split.validation_users, and its counts are those of users.
    run, _ = train(
        *("experiment=gsasrec", "split.count=users", "k=2", "trainer.max_epochs=1"),
    )
    assert refit(run)[0] == 0
    found = trained(read(newest() / "run.json")["run_id"])
    assert set(found.cfg.split) == {"_target_", "count"}
    assert found.cfg.split.count == "users"
    assert len(found.parts.split.test) == 0
    assert found.cfg.model.dim == 8


def test_a_model_without_parameters_counts_all_data(refit):
    words = [word for word in SMALL if not word.startswith(("model", "dataset"))]
    words += ["model=popularity", "split=leave_one_out"]
    assert cli.main(["train", "clicks.csv", *words]) == 0
    run = read(newest() / "run.json")["run_id"]
    assert refit(run)[0] == 0
    found = trained(read(newest() / "run.json")["run_id"])
    assert int(found.parts.split.info.counts.sum()) == rows_of("clicks.csv")
    assert read(newest() / "results.json")["epochs"] == 0
    popular = pl.read_csv("clicks.csv")["item"].value_counts(sort=True)["count"][0]
    assert found.model.scorer.every(found.model.scorer.nobody(1)).max() == popular


def test_a_pre_training_within_is_refitted_too(refit):
    run, old = train(
        *("experiment=s3rec", "trainer.max_epochs=2", "pretraining.trainer.max_epochs=3"),
    )
    best_was(old, 1)
    best_was(old / "pretraining", 2)
    assert refit(run)[0] == 0
    folder = newest()
    first = folder / "pretraining"
    assert read(folder / "results.json")["epochs"] == 1
    assert read(first / "results.json")["epochs"] == 2
    config = read(first / "run.json")["config"]
    assert config["trainer.schedule_epochs"] == 3
    hashes = [read(place / "run.json")["split_hash"] for place in (folder, first, old)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_run_that_it_started_from_is_refitted_first(refit):
    source, _ = train(*FIRST)
    run, _ = train("model=s3rec", "split=leave_one_out", f"init_from={source}")
    best_was(newest(), 1)
    code, out, _ = refit(run)
    assert code == 0
    folder = newest()
    record = read(folder / "run.json")
    begun = record["config"]["init_from"]
    assert begun not in (source, run)
    assert f"run {begun} is run {source} on all data" in out
    before = trained(begun)
    assert before.record["refit_of"] == source
    assert read(before.folder / "results.json")["epochs"] == 2  # nothing was measured: all of them
    assert before.record["split_hash"] == record["split_hash"]
    assert refit(run)[0] == 0
    assert newest() == folder


def test_a_refit_again_keeps_the_course(refit):
    assert refit("plain")[0] == 0
    run, _ = refit.runs["plain"]
    records = [read(path) for path in Path("multirun/refit").glob(f"{run}-*/run.json")]
    again = next(
        record["run_id"]
        for record in records
        if record["config"]["seed"] == 0
        and "clicks" in record["config"]["dataset.path"]
        and record["config"]["trainer.max_epochs"] == 2
    )
    assert refit(again, "seed=3")[0] == 0
    record = read(newest() / "run.json")
    assert record["refit_of"] == again
    assert record["config"]["trainer.schedule_epochs"] == 3
    assert record["config"]["trainer.max_epochs"] == 2


def test_refusals(refit, world):
    run, folder = refit.runs["plain"]
    code, out, err = refit("no-such")
    assert (code, out) == (2, "")
    assert "no such run" in err
    assert "leave out -m" in refit("plain", "-m")[2]
    assert "there is no key modle" in refit("plain", "modle=1")[2]
    assert "there is no file gone.csv" in refit("plain", "dataset.path=gone.csv")[2]
    assert cli.main(["refit", "seed=1"]) == 2
    kept = (folder / "run.json").read_text()
    (folder / "run.json").write_text(json.dumps({**json.loads(kept), "status": "KILLED"}))
    try:
        code, out, err = refit("plain")
    finally:
        (folder / "run.json").write_text(kept)
    assert (code, out) == (2, "")
    assert f"run={run} is not finished (KILLED): `negrec train run={run}` goes on with it" in err


def test_the_help_page(capsys):
    assert cli.main(["refit", "--help"]) == 0
    assert "dataset.path=newer.parquet" in capsys.readouterr().out
