import json
import logging
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir

from negrec import experiment
from negrec.commandline import train
from negrec.errors import InputError
from negrec.evaluation.metrics import hit_rate

CONF = Path(__file__).parents[1] / "conf"
SMALL = [
    "tracking=none",
    "dataset.users=200",
    "dataset.items=100",
    "trainer.max_epochs=2",
    "trainer.threads=1",
    "trainer.progress=false",
]


def config(folder, *overrides):
    words = [*SMALL, f"paths.cache_dir={folder / 'cache'}", *overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", words), words


def run(folder, *overrides):
    cfg, words = config(folder.parent, *overrides)
    folder.mkdir(exist_ok=True)
    return experiment.run(cfg, folder, words)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment") / "run"
    return run(folder)


def read(path):
    return json.loads(path.read_text())


def test_a_run_leaves_what_it_was_made_from_and_what_came_of_it(finished):
    assert {path.name for path in finished.folder.iterdir()} >= {
        "config.yaml",
        "run.json",
        "results.json",
        "leak_report.json",
        "users.parquet",
        "items.parquet",
        "ranks.parquet",
        "events.jsonl",
        "checkpoint",
    }
    record = read(finished.folder / "run.json")
    assert record["status"] == "FINISHED"
    assert record["run_id"] == finished.run_id


def test_the_saved_ranks_give_the_reported_metrics(finished):
    ranks = pl.read_parquet(finished.folder / "ranks.parquet")
    expected = hit_rate(ranks["greater"].to_numpy() + 1, 10, ranks["ties"].to_numpy())
    metrics = read(finished.folder / "results.json")["metrics"]
    assert metrics["test/hr_10"] == pytest.approx(expected)
    assert metrics["oracle/hr_10"] > metrics["popularity/hr_10"]
    for name in ("test/hr_10_head", "test/n_tail", "test/balance_10", "cost/peak_mb"):
        assert name in metrics


def test_the_id_maps_cover_users_and_catalogue(finished):
    assert len(pl.read_parquet(finished.folder / "users.parquet")) == 200
    items = pl.read_parquet(finished.folder / "items.parquet")
    assert items["item"].to_list() == list(range(1, len(items) + 1))
    assert items["id"].is_unique().all()


def results(folder):
    metrics = read(folder / "results.json")["metrics"]
    return {name: value for name, value in metrics.items() if not name.startswith("cost/")}


def test_two_runs_with_the_same_seed_are_equal_to_the_last_bit(finished, tmp_path):
    again, other = run(tmp_path / "again"), run(tmp_path / "other", "seed=1")
    assert results(again.folder) == results(finished.folder)
    assert results(other.folder) != results(finished.folder)
    ranks = [pl.read_parquet(f / "ranks.parquet") for f in (finished.folder, again.folder)]
    assert ranks[0].equals(ranks[1])


def test_the_key_depends_on_what_determines_the_result_alone(finished, tmp_path):
    def key(*overrides):
        cfg, words = config(tmp_path, *overrides)
        return experiment._record(cfg, experiment.build(cfg), tmp_path, words, None, {})["key"]

    own = read(finished.folder / "run.json")["key"]
    assert key("trainer.progress=true", "paths.runs_dir=elsewhere") == own
    assert len({own, key("seed=1"), key("sampler=popularity"), key("dataset.seed=1")}) == 4


def test_a_finished_run_is_measured_again_or_trained_longer(tmp_path):
    first = run(tmp_path / "run")
    again = run(tmp_path / "run")
    assert again.run_id == first.run_id
    assert results(again.folder)["test/hr_10"] == first.measured.test.metrics["hr_10"]
    longer = run(tmp_path / "run", "trainer.max_epochs=4")
    assert longer.fit.epochs == 4
    whole = run(tmp_path / "whole", "trainer.max_epochs=4")
    assert results(longer.folder) == results(whole.folder)
    events = (longer.folder / "events.jsonl").read_text().splitlines()
    tracked = [e["values"] for e in map(json.loads, events) if e["kind"] == "metrics"]
    last = [values["test/mrr"] for values in tracked if "test/mrr" in values][-1]
    assert last == longer.measured.test.metrics["mrr"] != first.measured.test.metrics["mrr"]


def test_the_test_targets_are_looked_at_when_asked_for(tmp_path):
    cfg, words = config(tmp_path)
    (tmp_path / "run").mkdir()
    chosen = experiment.run(cfg, tmp_path / "run", words, test=False)
    assert chosen.measured is None
    assert not any(name.startswith("test/") for name in results(chosen.folder))
    assert not (chosen.folder / "ranks.parquet").exists()
    whole = run(tmp_path / "whole")
    assert chosen.fit.best_value == whole.fit.best_value
    later = experiment.run(cfg, tmp_path / "run", words)
    assert later.run_id == chosen.run_id
    assert later.measured.test.metrics == whole.measured.test.metrics


def test_a_run_cannot_go_on_with_other_settings(finished):
    with pytest.raises(InputError, match=r"cannot go on with another .*seed.*: only trainer\."):
        run(finished.folder, "seed=5")


def test_a_run_cannot_go_on_with_other_data(tmp_path):
    run(tmp_path / "run")
    record = read(tmp_path / "run" / "run.json")
    (tmp_path / "run" / "run.json").write_text(json.dumps({**record, "data_hash": "0"}))
    with pytest.raises(InputError, match="was trained on other data"):
        run(tmp_path / "run")


@pytest.mark.parametrize("setting", ["trainer.schedule=cosine", "trainer.evaluate_every=4"])
def test_a_run_that_would_have_begun_otherwise_cannot_be_longer(tmp_path, setting):
    run(tmp_path / "run", setting)
    with pytest.raises(InputError, match=r"cannot have another trainer\.max_epochs"):
        run(tmp_path / "run", setting, "trainer.max_epochs=4")


def test_two_processes_do_not_share_a_run(finished):
    with (
        FileLock(finished.folder / "run.lock"),
        pytest.raises(InputError, match="another process is at work on the run"),
    ):
        run(finished.folder)


def test_another_process_is_waited_for_when_asked(finished):
    held, ended = threading.Event(), []

    def work() -> None:
        with FileLock(finished.folder / "run.lock"):
            held.set()
            time.sleep(0.3)
            ended.append(True)

    threading.Thread(target=work).start()
    held.wait()
    with experiment.alone_in(finished.folder, wait=True):
        assert ended
        assert run(finished.folder).run_id == finished.run_id  # which enters once more
        assert (finished.folder / "run.lock").exists()
    assert not (finished.folder / "run.lock").exists()


@pytest.mark.parametrize("overrides", [["model=popularity"], ["trainer.max_epochs=0"]])
def test_a_run_without_training_is_measured(tmp_path, capsys, overrides):
    made = run(tmp_path / "run", *overrides)
    assert made.fit.epochs == 0
    train.show(made, config(tmp_path, *overrides)[0])
    assert "nothing was trained\n" in capsys.readouterr().out
    assert read(made.folder / "run.json")["status"] == "FINISHED"
    if overrides == ["model=popularity"]:
        assert made.measured.test.metrics == pytest.approx(
            made.measured.popularity.metrics, nan_ok=True
        )


def test_a_run_that_came_to_nothing_says_so(tmp_path, capsys):
    made = run(tmp_path / "run", "model=popularity", "trainer.metric=null")
    train.show(made, config(tmp_path, "model=popularity", "trainer.metric=null")[0])
    assert "nothing was trained, and nothing was measured\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("seed=abc", "seed must be a whole number, got seed=abc"),
        ("max_length=abc", "max_length must be a whole number"),
        ("max_length=0", "max_length must be at least 1, got 0"),
        ("window=none", "window must be last or all"),
    ],
)
def test_bad_settings_of_the_run_itself(tmp_path, setting, message):
    with pytest.raises(InputError, match=message):
        run(tmp_path / "run", setting)


def test_a_sweep_is_known_by_its_tag(tmp_path):
    cfg, words = config(tmp_path)
    (tmp_path / "run").mkdir()
    experiment.run(cfg, tmp_path / "run", words, sweep="12-00-00_sweep")
    events = map(json.loads, (tmp_path / "run" / "events.jsonl").read_text().splitlines())
    tags = [event["values"] for event in events if event["kind"] == "tags"]
    assert any(values.get("negrec.sweep") == "12-00-00_sweep" for values in tags)


def test_a_run_is_named_and_tagged_by_what_was_chosen(tmp_path):
    cfg, words = config(tmp_path, "sampler=inverse_popularity")
    (tmp_path / "run").mkdir()
    chosen = {
        "dataset": "synthetic",
        "model": "sasrec",
        "objective": "ranking",
        "sampler": "inverse_popularity",
        "sampler/false_negatives": "none",
        "loss": "bce",
        "hydra/launcher": "basic",
    }
    experiment.run(cfg, tmp_path / "run", words, choices=chosen)
    events = list(map(json.loads, (tmp_path / "run" / "events.jsonl").read_text().splitlines()))
    tags = {k: v for e in events if e["kind"] == "tags" for k, v in e["values"].items()}
    assert tags["negrec.sampler"] == "inverse_popularity"
    assert tags["negrec.loss"] == "bce"
    assert tags["negrec.objective"] == "ranking"
    assert not any("hydra" in tag for tag in tags)
    assert any("synthetic-sasrec-inverse_popularity-bce-s0" in str(event) for event in events)


def test_an_unknown_metric_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"trainer\.metric=hr_7 .*choose one of hr_1, ndcg_1"):
        run(tmp_path / "run", "trainer.metric=hr_7")
    assert list((tmp_path / "run").iterdir()) == []


def test_no_oracle_where_seen_items_are_ranked(tmp_path):
    assert run(tmp_path / "run", "evaluation.seen=keep").measured.oracle is None


def test_a_failed_run_says_so(tmp_path):
    with pytest.raises(InputError, match="not finite"):
        run(tmp_path / "run", "trainer.optimizer.lr=1e38")
    assert read(tmp_path / "run" / "run.json")["status"] == "FAILED"


def test_a_refused_setting_writes_nothing(tmp_path):
    with pytest.raises(Exception, match="alpha must be at least 0"):
        run(tmp_path / "run", "sampler=genni", "alpha=-1")
    assert list((tmp_path / "run").iterdir()) == []


def test_more_epochs_are_suggested_when_the_best_is_the_last(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    made = run(tmp_path / "run", "trainer.max_epochs=1")
    train.show(made, config(tmp_path)[0])
    assert f"negrec train run={made.run_id} trainer.max_epochs=2" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["targets=every_item"], "EveryItem do not go with model SASRec.*targets=next_item"),
        (["targets=masked_item"], "MaskedItem do not go with model SASRec.*targets=next_item"),
        (
            ["model=bert4rec", "targets=next_item"],
            "NextItem do not go with model BERT4Rec.*targets=masked_item",
        ),
    ],
)
def test_targets_that_a_model_cannot_be_asked_for_are_refused(tmp_path, overrides, message):
    cfg, _ = config(tmp_path, *overrides)
    with pytest.raises(InputError, match=message):
        experiment.build(cfg)
